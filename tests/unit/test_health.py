"""`hookmirror health`: whom it asks, and what it makes of the answer."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.settings import PREFIX, Settings
from common.tables import MetricsSettings, ReceiverSettings
from console import cli, health


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and an environment that says nothing."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)


def check(text: str) -> Result:
    """Run the command with the configuration `text`."""
    Path("hookmirror.toml").write_text(text)
    return CliRunner().invoke(cli.hookmirror, ["health"], prog_name="hookmirror")


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers /healthz with `status`, and all else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def silent() -> Iterator[int]:
    """The port of a process that takes connections and never answers, as a hung one does."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


EVERYWHERE = "0.0.0.0"  # noqa: S104 - only asked about


@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
def test_a_process_that_answers_at_its_metrics_port_is_healthy(host: str) -> None:
    with answering(200) as port:
        result = check(f'[metrics]\nhost = "{host}"\nport = {port}\n')
    assert (result.exit_code, result.output) == (0, f"alive: 127.0.0.1, port {port} (metrics.port) answers\n")


def test_without_a_metrics_port_the_receiver_is_asked_at_its_own() -> None:
    with answering(200) as port:
        result = check(f"[receiver]\nport = {port}\n")
    assert (result.exit_code, result.output) == (
        0,
        f"alive: 127.0.0.1, port {port} (receiver.port) answers\n",
    )


def test_a_metrics_port_is_asked_and_not_the_receivers() -> None:
    with answering(200) as healthy, answering(500) as sick:
        result = check(f"[receiver]\nport = {healthy}\n[metrics]\nport = {sick}\n")
    assert (result.exit_code, result.output) == (
        1,
        f"Error: 127.0.0.1, port {sick} (metrics.port) answers 500\n",
    )


def test_a_process_that_is_not_there_is_not_healthy() -> None:
    with silent() as port:
        pass
    result = check(f"[metrics]\nport = {port}\n")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: no answer from 127.0.0.1, port {port} (metrics.port): ")


def test_a_process_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WITHIN", 0.1)
    with silent() as port:
        result = check(f"[metrics]\nport = {port}\n")
    assert result.exit_code == 1
    assert "timed out" in result.output


def test_a_port_that_nobody_can_know_is_told() -> None:
    result = check("[metrics]\nport = 0\n")
    assert result.exit_code == 1
    assert "metrics.port is 0" in result.output


def test_a_wrong_configuration_exits_one_for_docker_knows_no_two() -> None:
    result = check("[metrics]\nprot = 1\n")
    assert result.exit_code == 1
    assert "metrics.prot" in result.output


@pytest.mark.parametrize(
    ("host", "asked"), [("::", "::1"), (EVERYWHERE, "127.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("::1", "::1")]
)
def test_what_listens_everywhere_is_asked_on_this_machine(host: str, asked: str) -> None:
    assert health.where(Settings(metrics=MetricsSettings(host=host, port=1))) == (asked, 1, "metrics.port")
    assert health.where(Settings(receiver=ReceiverSettings(host=host)))[:2] == (asked, 8080)


def test_the_check_loads_neither_the_stores_nor_the_receiver() -> None:
    program = "import sys, console.health, console.cli; print(*sys.modules)"
    root = Path(cli.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    heavy = {"aiobotocore", "botocore", "fastapi", "aiohttp", "aio_pika", "uvicorn"}
    assert not heavy & set(done.stdout.split())
