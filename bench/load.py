"""A load generator that costs little: keep-alive connections on bare protocols, requests made beforehand.

python -m bench.load PORT CONNECTIONS SECONDS        prints a `Load` as JSON
"""

import asyncio
import json
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

BUCKET = "bench-source"
KEYS = 4096
"""Different requests, so that no side can live off remembering one."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """One run: answers a second, latencies in seconds, the answers that were no 200, and the
    generator's own processor time for each second of the run."""

    rate: float
    p50: float
    p99: float
    errors: int
    cpu: float


def hook(key: str, bucket: str = BUCKET) -> bytes:
    """Return a hook's body as MCS writes it, with one record."""
    record = {
        "s3": {
            "object": {
                "eTag": "aed563ecafb4bcc5654c597a421547b2",
                "sequencer": 1577453615,
                "key": key,
                "size": 100,
            },
            "configurationId": "1",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "mcs2883541269"}},
            "s3SchemaVersion": "1.0",
        },
        "eventVersion": "1.0",
        "requestParameters": {"sourceIPAddress": "185.6.245.156"},
        "userIdentity": {"principalId": "2407013e-cbc1-415f-9102-16fb9bd6946b"},
        "eventName": "s3:ObjectCreated:Put",
        "awsRegion": "ru-msk",
        "eventSource": "aws:s3",
        "responseElements": {"x-amz-request-id": "VGJR5rtJ"},
    }
    return json.dumps({"Records": [record]}).encode()


def requests(count: int = KEYS) -> list[bytes]:
    """Return `count` different requests, whole."""
    bodies = [hook(f"folder/object-{number:06}") for number in range(count)]
    head = (
        "POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "X-Amz-Sns-Message-Type: Notification\r\nContent-Length: {}\r\n\r\n"
    )
    return [head.format(len(body)).encode() + body for body in bodies]


class _Run:
    """What all connections of a run share."""

    def __init__(self, seconds: float) -> None:
        self.requests = requests()
        self.sent = 0
        self.deadline = time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.errors = 0
        self.open = 0
        self.over = asyncio.get_running_loop().create_future()

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


class _Sender(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._answer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._run.open += 1
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        now, run, self._answer = time.perf_counter(), self._run, b""
        run.latencies.append(now - self._sent_at)
        run.errors += b" 200 " not in head[:16]
        if now < run.deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        run = self._run
        run.open -= 1
        run.errors += exc is not None or time.perf_counter() < run.deadline
        if not run.open and not run.over.done():
            run.over.set_result(None)


async def drive(port: int, connections: int, seconds: float) -> Load:
    """Send as fast as `connections` callers that wait for their answers can, for `seconds`."""
    run, loop = _Run(seconds), asyncio.get_running_loop()
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(connections):
        await loop.create_connection(lambda: _Sender(run), "127.0.0.1", port)
    await run.over
    took = time.perf_counter() - start
    hundredths = statistics.quantiles(run.latencies, n=100)
    return Load(
        rate=len(run.latencies) / took,
        p50=hundredths[49],
        p99=hundredths[98],
        errors=run.errors,
        cpu=(time.process_time() - cpu) / took,
    )


if __name__ == "__main__":
    port, connections, seconds = sys.argv[1:]
    print(json.dumps(asdict(uvloop.run(drive(int(port), int(connections), float(seconds))))))
