"""A real receiver under abuse: slow connections by the hundred, an endless body, bodies of all kinds."""

import asyncio
import http.client
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from demo.weed import free_ports
from receiver import intake
from receiver.openapi.document import build
from tests.lab.corpus import keeping
from tests.lab.fuzz import fuzz
from tests.lab.programs import Program, record
from tests.lab.samples import names, sample
from tests.lab.until import until

PATH, STACKS = "/webhook/3f9c0a7b5d1e42", "/stacks/77aa0b5d1e42ff"
CONFIG = """\
[queue]
url = "sqlite:///{folder}/queue.db"
[receiver]
host = "127.0.0.1"
port = {port}
public_url = "http://127.0.0.1:{port}{path}"
stack_url = "http://127.0.0.1:{port}{stacks}"
requests_per_second = 1000000
burst = 1000000
[metrics]
port = {metrics}
[stores.mcs]
[stores.aws]
[[routes]]
source = "mcs:source"
target = "aws:target"
[[stack_routes]]
log = true
"""
GOOD = json.dumps({"Records": [record("k")]}).encode()


class Running:
    """A receiver in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._metrics = free_ports(2)
        config = folder / "hookmirror.toml"
        config.write_text(
            CONFIG.format(folder=folder, port=self.port, path=PATH, stacks=STACKS, metrics=self._metrics)
        )
        self.program = Program(folder, 0, "receiver", config)

    @property
    def url(self) -> str:
        """Where hooks go."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def memory(self) -> int:
        """Bytes that the process holds in memory."""
        status = Path(f"/proc/{self.program.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    async def counted(self, outcome: str) -> float:
        """How many hooks ended so."""
        url = f"http://127.0.0.1:{self._metrics}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            lines = (await response.text()).splitlines()
        [line] = [one for one in lines if one.startswith(f'hookmirror_hooks_total{{outcome="{outcome}"}}')]
        return float(line.split()[-1])


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    receiver = Running(tmp_path)
    try:
        await receiver.program.started()
        yield receiver
    finally:
        receiver.program.kill()


class Crowd:
    """Connections that send a byte now and then, half of them of a head, half of a body; who is cut off
    comes again."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self.open = self.cut = 0
        self._tasks = [asyncio.create_task(self._dribble(number % 2 == 0)) for number in range(size)]

    async def _dribble(self, head: bool) -> None:
        start = b"POST %s HTTP/1.1\r\nHost: x\r\n" % PATH.encode()
        start += b"X: " if head else b"Content-Length: 9999\r\n\r\n"
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.open += 1
                try:
                    await self._hold(reader, writer, start)
                finally:
                    self.open -= 1
                    writer.close()
                self.cut += 1

    @staticmethod
    async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes) -> None:
        writer.write(start)
        ending = asyncio.create_task(reader.read())
        try:
            while not (await asyncio.wait([ending], timeout=0.5))[0]:
                writer.write(b"y")
        finally:
            ending.cancel()
            await asyncio.wait([ending])

    async def leave(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


@pytest.mark.parametrize(
    "seconds",
    [8, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(180)])],
    ids=["short", "long"],
)
async def test_five_hundred_slow_connections_do_not_delay_good_hooks(running: Running, seconds: int) -> None:
    crowd = Crowd(running.port, 500)
    took: list[float] = []
    held: list[int] = []
    try:
        await until(lambda: crowd.open == 500, "five hundred are connected")
        end = time.monotonic() + seconds
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end:
                start = time.monotonic()
                async with session.post(running.url, data=GOOD) as answer:
                    assert answer.status == 200, await answer.text()
                took.append(time.monotonic() - start)
                held.append(crowd.open)
                await asyncio.sleep(0.01)
        assert crowd.cut >= 500, "the slow are cut off"
    finally:
        await crowd.leave()
    p99 = sorted(took)[math.ceil(len(took) * 0.99) - 1]
    print(f"{len(took)} good hooks, p99 {p99 * 1000:.0f} ms, {crowd.cut} slow connections cut off")  # noqa: T201
    assert len(took) >= 100
    assert sum(held) / len(held) > 400, "the slow were there meanwhile"
    assert p99 < 1
    assert await running.counted("slow") >= 500


async def pour(port: int, head: bytes, size: int) -> int:
    """Send a body of `size` bytes for as long as it is taken; return how many were."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    with suppress(ConnectionError):
        writer.write(head)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    writer.close()
    return sent


@pytest.mark.parametrize("path", [PATH, "/guess"])
async def test_a_body_of_200_mb_costs_under_5_mib_of_memory(running: Running, path: str) -> None:
    size = 200_000_000
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    async with aiohttp.ClientSession() as session:
        for _ in range(50):  # what any hook costs is in memory from here on
            async with session.post(running.url, data=GOOD) as answer:
                assert answer.status == 200
            async with session.post(running.url, data=b" " * (intake.MAX_BODY + 1)) as answer:
                assert answer.status == 413
        before, most, done = running.memory(), 0, False

        async def watch() -> None:
            nonlocal most
            while not done:
                most = max(most, running.memory())
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        sent = await pour(running.port, head, size)
        async with session.post(running.url, data=GOOD) as answer:
            assert answer.status == 200
        done = True
        await watching
    assert sent < size / 4, "it is not let run on"
    assert most - before < 5 * 2**20


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
EVENTS = st.sampled_from(["s3:ObjectCreated:Put", "ObjectRemoved:Delete", "s3:TestEvent", "s3:New:Thing"])


@st.composite
def records(draw: st.DrawFn) -> Any:
    """A record of some sender with up to three of its values replaced, in any depth."""
    value: Any = draw(st.sampled_from([sample(name) for name in names()])) | {}
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, 3))):
        holder: Any = value
        while isinstance(holder, dict | list) and holder:
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
            if not isinstance(holder[key], dict | list) or not draw(st.integers(0, 3)):
                holder[key] = draw(VALUES | EVENTS)
                break
            holder = holder[key]
    return value


BODIES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.lists(VALUES, max_size=5).map(lambda value: json.dumps({"Records": value}).encode()),
    records().map(lambda value: json.dumps(value).encode()),
    records().map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
)


@contextmanager
def asking(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize(
    "count",
    [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])],
    ids=["short", "long"],
)
def test_no_body_gets_a_5xx(tmp_path: Path, seed: int, count: int) -> None:
    """What is found is kept in the corpus, and tried in every run from then on
    (tests/integration/test_openapi.py)."""
    receiver = Running(tmp_path)
    answers: dict[int, int] = {}
    unanswered: list[bytes] = []

    @seeded(seed)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def post(body: bytes) -> None:
        unanswered.append(body)
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        answer.read()
        answers[answer.status] = answers.get(answer.status, 0) + 1
        assert answer.status in {200, 403, 413}, answer.status
        unanswered.pop()

    try:
        asyncio.run(_started(receiver))
        with asking(receiver.port) as connection, keeping(unanswered):
            post()
        print(f"{sum(answers.values())} bodies: {answers}, HOOKMIRROR_TEST_SEED={seed}")  # noqa: T201
        assert answers[200] > count / 2
        assert not receiver.program.ended()
        assert PATH.rpartition("/")[2] not in receiver.program.words(), "the secret is in no log"
        assert receiver.program.did("hook") > 0
        assert asyncio.run(receiver.counted("failed")) == 0
    finally:
        receiver.program.kill()


async def _started(receiver: Running) -> None:
    await receiver.program.started()


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_bodies_made_from_the_openapi_document_get_what_it_says(running: Running, seed: int) -> None:
    document = build(hooks=PATH, stacks=STACKS, version="0")
    url = f"http://127.0.0.1:{running.port}"
    answers = await asyncio.to_thread(fuzz, document, url, count=10_000, seed=seed)
    print(f"{sum(answers.values())} requests: {dict(answers)}, HOOKMIRROR_TEST_SEED={seed}")  # noqa: T201
    assert {answers[f"POST {PATH}", status] > 0 for status in (200, 403)} == {True}
    assert answers[f"POST {STACKS}", 200] > 0
    assert not running.program.ended()
    assert STACKS.rpartition("/")[2] not in running.program.words(), "nor is the other"
    assert PATH.rpartition("/")[2] not in running.program.words(), "the secret is in no log"
    assert await running.counted("failed") == 0
