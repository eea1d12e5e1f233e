"""`hookmirror uploads`: what is said of uploads that nobody may finish, and what is asked before they go."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.settings import PREFIX, Settings
from common.store.memory import MemoryBucket, MemoryStore
from common.store.port import OpenUpload, Store
from console import cli

CONFIG = """\
[stores.a]
[stores.b]
[[routes]]
source = "a:from"
target = "b:to"
target_prefix = "copy/"
"""

OLD, YOUNG = 30 * 86400.0, 3600.0
"""Seconds ago."""


class Dated(MemoryBucket):
    """A bucket that tells when its uploads were begun: "old" in the key says how long ago."""

    async def uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        async for upload in super().uploads(prefix):
            yield replace(upload, started=time.time() - (OLD if "old" in upload.key else YOUNG))


class Shelf(MemoryStore):
    def bucket(self, name: str) -> MemoryBucket:
        return Dated(name, self._contents)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    """The target of the route that the commands find configured."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "secrets_dir", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)
    Path("hookmirror.toml").write_text(CONFIG)
    stores: dict[str, Store] = {"a": MemoryStore(), "b": (shelf := Shelf())}

    async def opened(_: Settings, __: AsyncExitStack) -> dict[str, Store]:
        return stores

    monkeypatch.setattr("console.uploads.open_stores", opened)
    return shelf.create("to")


def begin(target: MemoryBucket, *keys: str) -> None:
    for key in keys:
        asyncio.run(target.create_upload(f"copy/{key}", headers={}, metadata={}))


def left(target: MemoryBucket) -> list[str]:
    async def keys() -> list[str]:
        return [upload.key async for upload in target.uploads()]

    return asyncio.run(keys())


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli.hookmirror, ("uploads", *arguments), input=answer)


def test_young_uploads_are_told_of_and_not_called_none(target: MemoryBucket) -> None:
    assert "No open uploads." in run("list").output
    begin(target, "young-1", "young-2")
    for command in ("list", "clear"):
        result = run(command)
        assert result.exit_code == 0
        assert "No open uploads." not in result.output
        assert "No open upload is older than 168 hours." in result.output
        assert "Younger than 168 hours: 2" in result.output
        assert "--older-than 0" in result.output
    assert "copy/young-1" in run("list", "--older-than", "0").output
    assert len(left(target)) == 2


def test_a_dry_run_lists_what_would_be_aborted_and_aborts_nothing(target: MemoryBucket) -> None:
    begin(target, "old", "young")
    result = run("clear", "--dry-run")
    assert (result.exit_code, "copy/old" in result.output) == (0, True)
    assert "would abort: 1" in result.output
    assert [one["key"] for one in json.loads(run("clear", "--dry-run", "--json").stdout)] == ["copy/old"]
    assert len(left(target)) == 2


def test_without_a_person_to_ask_nothing_is_aborted(target: MemoryBucket) -> None:
    begin(target, "old")
    result = run("clear", answer="y\n")
    assert result.exit_code == 2
    assert "abort these 1 uploads?" in result.stderr
    assert "--yes" in result.stderr
    assert left(target) == ["copy/old"]


@pytest.mark.parametrize(("answer", "code", "rest"), [("y\n", 0, 1), ("n\n", 1, 2), ("\n", 1, 2)])
def test_a_person_is_asked_after_the_list(
    target: MemoryBucket, answer: str, code: int, rest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.options.at_terminal", lambda: True)
    begin(target, "old", "young")
    result = run("clear", answer=answer)
    assert result.exit_code == code
    assert "copy/old" in result.stdout
    assert len(left(target)) == rest


def test_a_script_says_yes(target: MemoryBucket) -> None:
    begin(target, "old-1", "old-2", "young")
    assert "aborted: 2" in run("clear", "--yes").output
    assert left(target) == ["copy/young"]
