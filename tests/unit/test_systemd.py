"""The units under deploy/systemd: what systemd makes of them, and that they agree with the program."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.service import EXIT_CONFIG
from common.settings import PREFIX, SECRETS_DIR, Settings, load
from console.cli import COMMANDS
from receiver.program import GRACE

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
PROGRAM = "/opt/hookmirror/bin/hookmirror"
EXPOSURE = 20
"""Tenths: what `systemd-analyze security` may say at most. Undone, it says 96."""

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def lines(unit: Path) -> list[str]:
    """The settings, without comments."""
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def values(unit: Path, key: str) -> list[str]:
    """Every value of `key`, in order."""
    return [line.partition("=")[2] for line in lines(unit) if line.partition("=")[0] == key]


def environment(unit: Path) -> dict[str, str]:
    """The environment that the unit sets."""
    return dict(value.split("=", 1) for value in values(unit, "Environment"))


def seconds(span: str) -> float:
    """The seconds of a time span as written here."""
    return float(span.removesuffix("s"))


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([tool, *words], capture_output=True, text=True, timeout=60)


def test_there_is_a_unit_for_each_way_to_run() -> None:
    assert [unit.name for unit in UNITS] == [
        "hookmirror-receiver.service",
        "hookmirror-worker@.service",
        "hookmirror.service",
    ]


@every_unit
def test_systemd_finds_nothing_to_say_about_a_unit(unit: Path, tmp_path: Path) -> None:
    installed = tmp_path / unit.name
    installed.write_text(unit.read_text().replace(PROGRAM, shutil.which("true") or "/bin/true"))
    done = analyze("verify", "--man=no", str(installed))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@every_unit
def test_a_unit_is_hardly_exposed(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(unit))
    assert done.returncode == 0, done.stdout[-2000:]


def test_what_confines_is_the_same_for_all() -> None:
    confined = [
        {
            line
            for line in lines(unit)
            if re.match(r"Cap|Dev|Key|Lock|MemoryDeny|No|Priv|Prot|Re[ms].*=|Sys|UM", line)
        }
        for unit in UNITS
    ]
    assert len(confined[0]) > 25
    assert confined[0] == confined[1] == confined[2]


@every_unit
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    (start,) = values(unit, "ExecStart")
    program, command = start.split()
    assert program == PROGRAM
    assert command in COMMANDS


@every_unit
def test_a_stop_is_waited_for_longer_than_it_takes_and_a_wrong_configuration_is_not_tried_again(
    unit: Path,
) -> None:
    (stop,), (never_again,) = values(unit, "TimeoutStopSec"), values(unit, "RestartPreventExitStatus")
    assert seconds(stop) > max(Settings().worker.drain, GRACE) + 5
    assert int(never_again) == EXIT_CONFIG
    assert values(unit, "KillSignal") == ["SIGTERM"]


@every_unit
def test_what_a_unit_configures_is_accepted(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    loaded = dict(value.split(":") for value in values(unit, "LoadCredential"))
    assert set(loaded) == {"hookmirror.toml", "HOOKMIRROR"}
    (tmp_path / "hookmirror.toml").write_text("[stores.aws]\n")
    (tmp_path / "HOOKMIRROR_QUEUE__URL").write_text("amqp://host/\n")  # so systemd names a file of the folder
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name, value in environment(unit).items():
        monkeypatch.setenv(name, value.replace("%d", str(tmp_path)).replace("%i", "9465"))
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / SECRETS_DIR.strip("/")))
    settings = load()
    assert settings.metrics.port in {9464, 9465}
    assert settings.queue.url == "amqp://host/"
    assert "aws" in settings.stores


def test_the_operators_command_hands_on_configuration_credentials_and_words(tmp_path: Path) -> None:
    program, credentials = tmp_path / "program", tmp_path / "credentials"
    program.write_text('#!/bin/sh\necho "$HOOKMIRROR_CONFIG $HOOKMIRROR_QUEUE__URL" "$@"\n')
    program.chmod(0o755)
    credentials.mkdir()
    (credentials / "QUEUE__URL").write_text("amqp://u:p@host/\n")
    text = (FOLDER / "hookmirror").read_text()
    for installed, here in (("/etc/hookmirror/credentials", credentials), (PROGRAM, program)):
        assert installed in text
        text = text.replace(installed, str(here))
    done = subprocess.run(
        ["sh", "-s", "dead", "show", "a b"],
        input=text,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=30,
        check=True,
    )
    assert done.stdout == "/etc/hookmirror/hookmirror.toml amqp://u:p@host/ dead show a b\n"
