"""Objects a second over a distance: a worker at its defaults, and rclone at its own and with more at once."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.lab import Lab
from bench.objects import Clouds, copy, mirror, rclone_program
from demo.weed import free_ports
from tests.lab.rabbit import RabbitNode

ROUND_TRIP = 40
"""Milliseconds to each cloud and back."""

TRANSFERS = (4, 32, 64, 128, 256)
"""How many rclone copies at once; the first is its default."""


@dataclass(frozen=True, slots=True)
class Far:
    """Objects a second: the worker's median, rclone's for each number of transfers, and the ratio of ours to
    its default and to its best."""

    ours: float
    rclone: dict[int, float]
    to_default: float
    to_best: float


def measure(lab: Lab, node: RabbitNode, *, rounds: int, count: int, say: Callable[[str], None]) -> Far:
    """Copy `count` objects by the worker and by each rclone in turn, `rounds` times."""
    program = rclone_program()
    clouds = Clouds(lab, count)
    clouds.endpoints = tuple(_far(lab, endpoint) for endpoint in clouds.endpoints)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {transfers: [] for transfers in TRANSFERS}
    for number in range(rounds):
        ours.append(mirror(lab, node, clouds, f"worker-{number}/", concurrency='"auto"').rate)
        say(f"{ROUND_TRIP} ms away, round {number + 1} of {rounds}: worker {ours[-1]:.0f}/s")
        for transfers, rates in theirs.items():
            rates.append(copy(lab, node, program, clouds, f"{transfers}-{number}/", transfers=transfers).rate)
            say(f"{ROUND_TRIP} ms away, round {number + 1}: rclone, {transfers} at once, {rates[-1]:.0f}/s")
    mine = statistics.median(ours)
    medians = {transfers: statistics.median(rates) for transfers, rates in theirs.items()}
    return Far(mine, medians, mine / medians[TRANSFERS[0]], mine / max(medians.values()))


def _far(lab: Lab, endpoint: str) -> str:
    """Return an endpoint that leads to `endpoint` over the distance."""
    (port,) = free_ports(1)
    arguments = (str(port), str(urlsplit(endpoint).port), str(ROUND_TRIP // 2))
    lab.python(f"delay-{port}", "-m", "bench.delay", *arguments).wait_for(port)
    return f"http://127.0.0.1:{port}"
