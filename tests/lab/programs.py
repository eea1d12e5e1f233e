"""The real programs as real processes, configured by a real file, to be killed for real."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from common.queue import open_queue
from common.queue.port import Counts
from common.store.s3 import S3Bucket, S3Store
from demo.compare import compare
from demo.weed import ACCESS_KEY, SECRET_KEY, free_ports, settings_for
from tests.lab.faults import Faults
from tests.lab.until import until

LOOK_AFTER = 2

CONFIG = """\
[queue]
url = "{queue}"
[receiver]
host = "127.0.0.1"
port = {port}
public_url = "http://127.0.0.1:{port}/webhook/acceptance"
{receiver}
[worker]
look_after = {look_after}
allow_short_look_after = true
{worker}
[stores.mcs]
endpoint = "{source}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[stores.aws]
endpoint = "{target}"
access_key_id = "{access}"
secret_access_key = "{secret}"
[[routes]]
source = "mcs:source"
target = "aws:target"
{routes}
"""


class Program:
    """One process of ours; its log lines are kept."""

    def __init__(self, folder: Path, number: int, name: str, config: Path, stderr: int | None = None) -> None:
        self.name = name
        self._log = folder / f"{number}-{name}.log"
        environment = {**os.environ, "HOOKMIRROR_LOG": "json", "HOOKMIRROR_CONFIG": str(config)}
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "console", name],
                env=environment,
                stderr=out if stderr is None else stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines so far; the last may be cut."""
        text = self._log.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def did(self, action: str) -> int:
        """Return how many lines have this action."""
        return sum(line["action"] == action for line in self.lines())

    async def started(self) -> "Program":
        """Return when every part of the process says that it has started."""
        parts = 2 if self.name == "up" else 1
        await until(lambda: self.did("started") == parts or self.ended(), f"{self.name} starts")
        assert not self.ended(), self.words()
        return self

    def words(self) -> str:
        """Return everything it wrote."""
        return self._log.read_text()

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.wait()

    async def ends(self, within: float = 40.0) -> int:
        """Return the exit code once the process has ended by itself."""
        await until(self.ended, f"{self.name} ends", within)
        return self._process.wait()


@dataclass
class Site:
    """One installation: a source and a target bucket, a queue, and the programs started on them."""

    folder: Path
    queue_url: str
    source_endpoint: str
    target_endpoint: str
    source: S3Bucket
    target: S3Bucket
    worker: str = ""
    """More lines for [worker]."""
    receiver: str = ""
    """More lines for [receiver]."""
    routes: str = ""
    """More routes."""
    look_after: int = LOOK_AFTER
    port: int = field(default_factory=lambda: free_ports(1)[0])
    programs: list[Program] = field(default_factory=list)

    @property
    def stack_url(self) -> str:
        """Where stack notifications go, when `receiver` says so."""
        return f"http://127.0.0.1:{self.port}/stacks/acceptance"

    @property
    def config(self) -> Path:
        """The configuration file, as it is by now."""
        path = self.folder / "hookmirror.toml"
        path.write_text(
            CONFIG.format(
                queue=self.queue_url,
                port=self.port,
                worker=self.worker,
                receiver=self.receiver,
                routes=self.routes,
                look_after=self.look_after,
                source=self.source_endpoint,
                target=self.target_endpoint,
                access=ACCESS_KEY,
                secret=SECRET_KEY,
            )
        )
        return path

    @property
    def hook_url(self) -> str:
        """Where hooks go."""
        return f"http://127.0.0.1:{self.port}/webhook/acceptance"

    def launch(self, name: str, *, stderr: int | None = None) -> Program:
        """Start `hookmirror <name>` and return at once. `stderr` is the open file for its log, if not one of
        its own."""
        program = Program(self.folder, len(self.programs), name, self.config, stderr)
        self.programs.append(program)
        return program

    async def run(self, name: str) -> Program:
        """Start `hookmirror <name>` and return when it has started."""
        return await self.launch(name).started()

    async def counts(self) -> Counts:
        """Return the queue's depths."""
        queue = await open_queue(self.queue_url, look_after=self.look_after)
        try:
            return await queue.counts()
        finally:
            await queue.close()

    async def quiet(self, within: float = 90.0) -> None:
        """Return when nothing waits any more, looks included. A delivery in a worker's hands does not
        show on RabbitMQ: nothing waits on two looks here, and `in_step` waits for what is in hand."""

        async def empty() -> bool:
            counts = await self.counts()
            return not (sum(counts.ready.values()) or counts.waiting or counts.held)

        async def empty_twice() -> bool:
            if not await empty():
                return False
            await asyncio.sleep(0.5)
            return await empty()

        await until(empty_twice, "the queue becomes quiet", within)


async def in_step(site: Site, *proxies: Faults, within: float = 90.0) -> None:
    """Wait until nothing waits, no proxy has a request under way, and the target is the source; fail with
    the differences when that does not come, and on any dead letter."""
    differences: list[str] = []

    async def agreed() -> bool:
        before = [proxy.taken for proxy in proxies]
        await site.quiet(within)
        differences[:] = await compare(site.source, site.target)
        still = before == [proxy.taken for proxy in proxies] and not any(proxy.busy for proxy in proxies)
        return still and not differences

    try:
        await until(agreed, "nothing is under way and the target is the source", within)
    finally:
        assert differences == []
    assert (await site.counts()).dead == 0


@asynccontextmanager
async def site(folder: Path, queue_url: str, source: str, target: str) -> AsyncIterator[Site]:
    """A site on the S3 servers at `source` and `target` with two new, empty buckets."""
    stores = [await S3Store.open(name, settings_for(url)) for name, url in (("mcs", source), ("aws", target))]
    buckets = [stores[0].bucket("source"), stores[1].bucket("target")]
    for bucket in buckets:
        await bucket.create()
        async for entry in bucket.list():
            await bucket.delete(entry.key)
        async for upload in bucket.uploads():
            await bucket.abort_upload(upload.key, upload.id)
    here = Site(folder, queue_url, source, target, buckets[0], buckets[1])
    try:
        yield here
    finally:
        for program in here.programs:
            program.kill()
        for store in stores:
            await store.close()


def record(
    key: str, event: str = "s3:ObjectCreated:Put", *, bucket: str = "source", **fields: Any
) -> dict[str, Any]:
    """Return one record as MCS writes it."""
    return {
        "s3": {
            "object": {"key": key, "sequencer": 1577453615, **fields},
            "configurationId": "1",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "mcs2883541269"}},
            "s3SchemaVersion": "1.0",
        },
        "eventVersion": "1.0",
        "requestParameters": {"sourceIPAddress": "185.6.245.156"},
        "userIdentity": {"principalId": "2407013e-cbc1-415f-9102-16fb9bd6946b"},
        "eventName": event,
        "awsRegion": "ru-msk",
        "eventSource": "aws:s3",
        "responseElements": {"x-amz-request-id": "VGJR5rtJ"},
    }


REMOVED = "s3:ObjectRemoved:Delete"


async def post(url: str, *records: dict[str, Any]) -> int:
    """Send one hook with `records`; return the status, 0 when there was no answer at all."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.post(url, json={"Records": list(records)}) as response,
        ):
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0


async def deliver(url: str, *records: dict[str, Any], within: float = 60.0) -> None:
    """Send one hook as a sender does: again and again, until it is answered with 200."""

    async def taken() -> bool:
        return await post(url, *records) == 200

    await until(taken, "the hook is taken", within)
