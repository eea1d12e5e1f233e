"""The example programs of deploy/examples, called as a worker calls them."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from common.errors import ActionFailed, ActionRefused
from common.store.port import State
from common.store.s3 import S3Bucket, S3Store
from common.task import Task
from demo.weed import ACCESS_KEY, SECRET_KEY, settings_for
from tests.lab.clouds import moto
from tests.lab.keys import AWKWARD
from worker.actions import ObjectOrder
from worker.execute import Program

EXAMPLES = sorted((Path(__file__).parents[2] / "deploy/examples").glob("*.sh"))
AWS, RCLONE = EXAMPLES

STUB = """\
#!/usr/bin/env bash
printf '%s|' "${{0##*/}}" "$@" >> {folder}/calls
echo >> {folder}/calls
for last in "$@"; do :; done
if [[ $last == */object ]]; then truncate -s "${{STUB_SIZE:-0}}" "$last"; fi
exit "${{STUB_EXITS:-0}}"
"""

KEY = "-a b'c\"$(d)/ф"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the programs ask for, and a folder for temporary files that can be looked into."""
    (tmp_path / "tmp").mkdir()
    values = {
        "TMPDIR": str(tmp_path / "tmp"),
        "SOURCE_PROFILE": "mcs",
        "SOURCE_ENDPOINT": "https://mcs.example",
        "TARGET_PROFILE": "aws",
        "TARGET_BUCKET": "backup",
        "SOURCE_REMOTE": "mcs",
        "TARGET_REMOTE": "aws",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@dataclass(frozen=True)
class Stubs:
    """`aws` and `rclone` that only write down how they are called."""

    folder: Path

    def calls(self) -> list[str]:
        written = self.folder / "calls"
        return written.read_text().splitlines() if written.exists() else []


@pytest.fixture
def stubs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    """The stubs, found before the real ones."""
    (place / "bin").mkdir()
    for name in ("aws", "rclone"):
        stub = place / "bin" / name
        stub.write_text(STUB.format(folder=place))
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return Stubs(place)


async def call(path: Path, key: str = KEY, *, there: bool = True) -> None:
    state = State("e", 1, "", "", {}, {}) if there else None
    order = ObjectOrder(Task(route="r", key=key), "photos", state)
    await Program(str(path), timeout=60, on_failure="bury")(order)


async def test_with_aws_a_copy_goes_through_a_file_that_does_not_stay(stubs: Stubs, place: Path) -> None:
    await call(AWS)
    first, second = stubs.calls()
    assert first.startswith(
        f"aws|--profile|mcs|--endpoint-url|https://mcs.example|s3api|get-object|--bucket=photos|--key={KEY}|/"
    )
    assert second.startswith(f"aws|--profile|aws|s3api|put-object|--bucket=backup|--key={KEY}|--body|/")
    assert list((place / "tmp").iterdir()) == []


async def test_with_aws_a_delete_asks_the_target_alone(stubs: Stubs) -> None:
    await call(AWS, there=False)
    assert stubs.calls() == [
        f"aws|--profile|aws|s3api|delete-object|--bucket=backup|--key={KEY}|",
    ]


async def test_with_aws_what_is_too_large_for_one_request_is_refused(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_SIZE", str(5 * 2**30 + 1))
    with pytest.raises(ActionRefused, match="exit code 65: more than 5 GiB"):
        await call(AWS)
    assert len(stubs.calls()) == 1


async def test_with_rclone_a_copy_and_a_delete_are_one_command_each(stubs: Stubs) -> None:
    await call(RCLONE)
    await call(RCLONE, there=False)
    assert stubs.calls() == [
        "rclone|copy|--quiet|--retries|1|--ignore-times|--error-on-no-transfer|--no-traverse|"
        "--files-from-raw|-|mcs:photos|aws:backup|",
        f"rclone|deletefile|--quiet|--retries|1|aws:backup/{KEY}|",
    ]


async def test_with_rclone_what_is_not_there_is_deleted(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXITS", "4")
    await call(RCLONE, there=False)
    with pytest.raises(ActionFailed):
        await call(RCLONE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("there", [True, False])
async def test_a_tool_that_fails_is_worth_another_try(
    stubs: Stubs, place: Path, path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    monkeypatch.setenv("STUB_EXITS", "1")
    with pytest.raises(ActionFailed, match="exit code 75"):
        await call(path, there=there)
    assert len(stubs.calls()) == 1
    assert list((place / "tmp").iterdir()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
async def test_what_is_not_set_is_named_and_nothing_is_called(
    stubs: Stubs, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TARGET_BUCKET")
    with pytest.raises(ActionRefused, match="exit code 64: TARGET_BUCKET is not set"):
        await call(path)
    assert stubs.calls() == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "arguments", [[], ["b", "k"], ["b", "", "copy"], ["b", "k", "move"], ["b", "k", "copy", "x"]]
)
def test_called_wrongly_they_say_how(stubs: Stubs, path: Path, arguments: list[str]) -> None:
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 64
    assert "copy" in done.stderr
    assert stubs.calls() == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("verb", ["copy", "delete"])
@pytest.mark.parametrize("key", [b"not \xff UTF-8", b"cut off \xd0", b"surrogate \xed\xb3\xbf", b"x" * 1025])
def test_what_can_be_no_key_is_refused_and_nothing_is_called(
    stubs: Stubs, path: Path, verb: str, key: bytes
) -> None:
    done = subprocess.run([path, "photos", key, verb], capture_output=True, text=True, timeout=30)
    assert done.returncode == 65
    assert "UTF-8" in done.stderr or "1024 bytes" in done.stderr
    assert stubs.calls() == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is not installed; run: sudo apt-get install shellcheck"
    found = subprocess.run([tool, path], capture_output=True, text=True, timeout=30)
    assert found.stdout == ""


@dataclass
class Cloud:
    """One cloud that is both, and how to reach its buckets."""

    source: S3Bucket
    target: S3Bucket

    async def copied(self, key: str) -> bytes | None:
        async with self.target.read(key) as reading:
            return b"".join([piece async for piece in reading.chunks()]) if reading else None


@pytest.fixture
async def cloud(place: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """A cloud that the real tools are told of in their own ways."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shutil.which("aws"), "aws is not installed; run: sudo apt-get install awscli"
    profile = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\nregion = us-east-1\n"
    (place / "config").write_text(f"[profile mcs]\n{profile}[profile aws]\n{profile}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(place / "config"))
    monkeypatch.setenv("RCLONE_CONFIG", "/dev/null")
    get_backend("s3").reset()  # it is one for this process
    with moto() as url:
        for name in ("SOURCE_ENDPOINT", "TARGET_ENDPOINT"):
            monkeypatch.setenv(name, url)
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": url,
            "ACCESS_KEY_ID": ACCESS_KEY,
            "SECRET_ACCESS_KEY": SECRET_KEY,
        }
        for name, value in remote.items():
            for side in ("MCS", "AWS"):
                monkeypatch.setenv(f"RCLONE_CONFIG_{side}_{name}", value)
        store = await S3Store.open("moto", settings_for(url))
        clouds = Cloud(store.bucket("photos"), store.bucket("backup"))
        await clouds.source.create()
        await clouds.target.create()
        yield clouds
        await store.close()


NAMES_OF_FILES = [
    "file:///etc/hostname",
    "fileb:///etc/hostname",
    "http://127.0.0.1:9/",
    "https://127.0.0.1:9/",
]
"""What the AWS command line reads a value from."""

NAMES_OF_RCLONE = [
    "a\u2401",
    "a\x01",
    "\uff0f",
    "x\uff0fy",
    "x/y",
    "\u201bFF",
    "a/\uff0e/b",
    "\uff0e\uff0e",
    "\u2400",
]
"""What stands for another character in the names that rclone shows, and some of those others."""

PATHS = [
    "/victim",
    "victim",
    "victim/",
    "dir",
    "dir/",
    "dir/child",
    "./a",
    "a",
    "dir/..",
    "a/.../b",
    "a.",
    "~/x",
    "C:\\x",
]

PATTERNS = [
    "*",
    "**",
    "?",
    "{a,b}",
    "[abc]",
    "- *",
    "+ *",
    "#comment",
    "; semi",
    "-v",
    "-rf",
    "--config=/dev/null",
]

VERSIONS = ["a-v2024-01-01-000000-000.txt", "a.txt"]

ODD = list(dict.fromkeys([*PATHS, *PATTERNS, *NAMES_OF_FILES, *NAMES_OF_RCLONE, *VERSIONS, *AWKWARD]))

TELLING = [
    "/victim",
    "victim/",
    "a//b",
    "a/../b",
    "..",
    "--help",
    "\x01",
    "back\\slash",
    "file:///etc/hostname",
]
"""Of each kind one: the AWS command line needs a second to start."""

CASES = [(AWS, [key]) for key in TELLING] + [(RCLONE, ODD[start::8]) for start in range(8)]


def account() -> Any:
    """The cloud from inside, where nobody takes a key for another."""
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]


def contents(bucket: str) -> dict[str, bytes]:
    """What is in a bucket of the cloud."""
    return {key: found.value for key, found in account().buckets[bucket].keys.items()}


async def done(path: Path, key: str, *, there: bool) -> bool:
    """Call the program; return whether it did what it was asked for, and did not refuse the key for good."""
    try:
        await call(path, key, there=there)
    except ActionRefused as error:
        if "exit code 65: " in str(error) or "\0" in key:
            return False
        raise
    return True


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize(("path", "keys"), CASES)
async def test_no_other_object_is_touched_for_whatever_key(path: Path, keys: list[str]) -> None:
    for key in ODD:
        account().put_object("photos", key, f"source {key}".encode())
        account().put_object("backup", key, f"target {key}".encode())
    source, target = contents("photos"), contents("backup")
    for key in keys:
        if taken := await done(path, key, there=True):
            target[key] = source[key]
        assert contents("backup") == target, key
        assert await done(path, key, there=False) == taken
        if taken:
            del target[key]
        assert contents("backup") == target, key
        assert taken == (not key.startswith("file:")) or path == RCLONE
    assert contents("photos") == source


async def test_an_object_that_is_gone_is_no_folder_of_others(cloud: Cloud) -> None:
    for bucket in (cloud.source, cloud.target):
        await bucket.write("dir/child", bucket.name.encode(), headers={}, metadata={})
    before = contents("backup")
    for path in EXAMPLES:
        with pytest.raises(ActionFailed, match="exit code 75"):
            await call(path, "dir")
        await call(path, "dir", there=False)
    assert contents("backup") == before


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
async def test_the_real_tools_copy_and_delete(cloud: Cloud, path: Path) -> None:
    key = "a b$ ф.jpg"
    for body in (b"the picture", b"another"):
        await cloud.source.write(key, body, headers={}, metadata={})
        await call(path, key)
        assert await cloud.copied(key) == body
    await call(path, key, there=False)
    assert await cloud.copied(key) is None
    await call(path, key, there=False)  # gone already
    with pytest.raises(ActionFailed, match="exit code 75"):
        await call(path, "no such key")
