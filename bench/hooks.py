"""Hooks a second: the receiver as it is deployed, against the bare handler, over one RabbitMQ node."""

import asyncio
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import aio_pika

from bench import bare
from bench.lab import Failed, Lab, Program
from bench.load import BUCKET, Load
from common.queue import topology
from common.queue.port import Lane
from demo.weed import free_ports

CONNECTIONS = 64

HANGS = 20.0
"""Seconds beyond its time after which a run is given up."""

CONFIG = """
[queue]
url = "{url}"
[receiver]
host = "127.0.0.1"
port = {port}
requests_per_second = 1e6
burst = 1000000
[stores.a]
endpoint = "http://127.0.0.1:9"
access_key_id = "bench"
secret_access_key = "bench-secret-key"
[stores.b]
endpoint = "http://127.0.0.1:9"
access_key_id = "bench"
secret_access_key = "bench-secret-key"
[[routes]]
name = "bench"
source = "a:{bucket}"
target = "b:bench-target"
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A program that takes hooks on `port` and puts them on `queue`."""

    program: Program
    port: int
    queue: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side. `cpu` is the program's processor time for one hook, in seconds."""

    load: Load
    cpu: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The medians of one side's runs. Seconds, but for the rate."""

    rate: float
    p50: float
    p99: float
    cpu: float
    generator: float
    """The load generator's share of one core."""

    @classmethod
    def of(cls, runs: list[Run]) -> "Summary":
        """Return the medians of `runs`."""
        median = statistics.median
        return cls(
            rate=median(run.load.rate for run in runs),
            p50=median(run.load.p50 for run in runs),
            p99=median(run.load.p99 for run in runs),
            cpu=median(run.cpu for run in runs),
            generator=median(run.load.cpu for run in runs),
        )


@dataclass(frozen=True, slots=True)
class Hooks:
    """Both sides, and the rates' ratio: ours to bare, the median of the pairs and each of them."""

    ours: Summary
    bare: Summary
    ratio: float
    ratios: list[float]


def measure(lab: Lab, url: str, *, rounds: int, seconds: float, say: Callable[[str], None]) -> Hooks:
    """Load both sides in turn, `rounds` times `seconds` each, after a warm-up that does not count."""
    ours, plain = _receiver(lab, url), _bare(lab, url)
    runs: dict[int, list[Run]] = {ours.port: [], plain.port: []}
    for side in (ours, plain):
        _run(lab, url, side, min(seconds, 2.0))
    for number in range(rounds):
        # The order turns every round: whoever comes second finds the broker warmer.
        for side in (ours, plain) if number % 2 else (plain, ours):
            runs[side.port].append(_run(lab, url, side, seconds))
        pair = [runs[side.port][-1].load.rate for side in (ours, plain)]
        say(f"hooks, round {number + 1} of {rounds}: receiver {pair[0]:.0f}/s, bare handler {pair[1]:.0f}/s")
    for side in (ours, plain):
        side.program.stop()
    pairs = zip(runs[ours.port], runs[plain.port], strict=True)
    ratios = [mine.load.rate / other.load.rate for mine, other in pairs]
    return Hooks(Summary.of(runs[ours.port]), Summary.of(runs[plain.port]), statistics.median(ratios), ratios)


def _receiver(lab: Lab, url: str) -> Side:
    (port,) = free_ports(1)
    config = lab.folder / "receiver.toml"
    config.write_text(CONFIG.format(url=url, port=port, bucket=BUCKET))
    program = lab.python("receiver", "-m", "receiver", HOOKMIRROR_CONFIG=str(config))
    program.wait_for(port)
    return Side(program, port, topology.lane_queue(Lane("bench")))


def _bare(lab: Lab, url: str) -> Side:
    (port,) = free_ports(1)
    program = lab.python("bare", "-m", "bench.bare", url, str(port))
    program.wait_for(port)
    return Side(program, port, bare.QUEUE)


def _run(lab: Lab, url: str, side: Side, seconds: float) -> Run:
    before = side.program.cpu()
    generator = lab.python("load", "-m", "bench.load", str(side.port), str(CONNECTIONS), str(seconds))
    generator.finish(within=seconds + HANGS)
    used = side.program.cpu() - before
    load = Load(**json.loads(generator.output.read_text()))
    side.program.check()
    queued = asyncio.run(_empty(url, side.queue))
    if load.errors or queued < load.rate * seconds:
        raise Failed(
            f"{side.queue}: {load.errors} hooks failed, {queued} are queued\n{side.program.failure()}"
        )
    return Run(load, used / (load.rate * seconds))


async def _empty(url: str, queue: str) -> int:
    """Purge `queue`, so that every run finds the broker alike, and return how much it held."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        found = await channel.declare_queue(queue, passive=True)
        purged = await found.purge()
        return purged.message_count or 0
