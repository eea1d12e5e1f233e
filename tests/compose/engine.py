"""The engine and the compose command that this machine has, and one project of ours on them."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class NoEngine(Exception):
    """There is nothing here to run containers with."""


class Failed(Exception):
    """Something did not come out as it must."""


def find_docker() -> str:
    """Return the path of the first docker on PATH that has an engine, or what DOCKER names."""
    wanted = os.environ.get("DOCKER")
    folders = os.environ.get("PATH", "").split(os.pathsep)
    tried = [wanted] if wanted else [str(Path(folder) / "docker") for folder in folders]
    for docker in tried:
        found = shutil.which(docker)
        if found and _works([found, "info"]):
            return found
    raise NoEngine(
        f"no docker with a running engine here (tried: {' '.join(filter(shutil.which, tried)) or 'none'})"
    )


def find_compose(docker: str) -> list[str]:
    """Return the command for compose: what COMPOSE names, Compose 2 of `docker`, or docker-compose."""
    if wanted := os.environ.get("COMPOSE"):
        return wanted.split()
    if _works([docker, "compose", "version"]):
        return [docker, "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    raise NoEngine("neither `docker compose` nor docker-compose is installed")


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Project:
    """docker-compose.yml under a name of its own, with `settings` instead of any .env there may be."""

    def __init__(self, docker: str, compose: list[str], name: str, env_file: Path, **settings: str) -> None:
        self.docker = docker
        self.name = name
        self._compose = [*compose, "-p", name, "--env-file", str(env_file)]
        ours = ("HOOKMIRROR_", "COMPOSE_", "DEMO_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        # compose 1.29 builds by way of the docker on PATH, which need not be the one with the engine.
        path = f"{Path(docker).parent}{os.pathsep}{kept.get('PATH', '')}"
        self._environment = kept | {"PATH": path} | settings

    def compose(self, *arguments: str, within: float = 120.0) -> str:
        """Run compose; return what it printed. Raises `Failed` with its words."""
        return self._run([*self._compose, *arguments], within)

    def call(self, *arguments: str, within: float = 60.0) -> str:
        """Run docker; return what it printed. Raises `Failed` with its words."""
        return self._run([self.docker, *arguments], within)

    def follow(self, container: str) -> subprocess.Popen[str]:
        """Return `docker logs -f` of a container, for its lines."""
        return subprocess.Popen(
            [self.docker, "logs", "-f", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def containers(self, service: str = "", *, kind: str = "False") -> list[str]:
        """Return the ids of the containers of a service, or of all; those of `run` with kind "True"."""
        labels = {"project": self.name, "oneoff": kind} | ({"service": service} if service else {})
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        return self.call("ps", "-a", "-q", "--no-trunc", *filters).split()

    def running(self, service: str) -> list[str]:
        """Return the ids of the containers of a service that run."""
        return [container for container in self.containers(service) if self.state(container)["Running"]]

    def state(self, container: str) -> dict[str, Any]:
        """Return the engine's word on a container: Running, ExitCode, Health, ..."""
        found: dict[str, Any] = json.loads(self.call("inspect", "-f", "{{json .State}}", container))
        return found

    def _run(self, command: list[str], within: float) -> str:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"not within {within:.0f} s: {' '.join(command)}") from error
        if done.returncode:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def until(condition: Callable[[], object], what: str, within: float) -> None:
    """Return when `condition` holds. Raises `Failed` with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:.0f} s: {what}")
        time.sleep(0.25)
