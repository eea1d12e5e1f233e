"""What was measured, for people."""

import os
import platform
from typing import Any

from rich.console import Console
from rich.table import Column, Table


def machine() -> str:
    """Return what the numbers depend on."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def table(result: dict[str, Any]) -> str:
    """Return `result` as a table and a sentence for each ratio."""
    console = Console(width=110, highlight=False)
    with console.capture() as captured:
        console.print(f"\n{result['machine']}; medians")
        if "hooks" in result:
            _hooks(console, result["hooks"])
        if "objects" in result:
            _objects(console, result["objects"])
        if "far" in result:
            _far(console, result["far"])
        if "waiting" in result:
            _waiting(console, result["waiting"])
    return captured.get()


def _hooks(console: Console, hooks: dict[str, Any]) -> None:
    grid = Table("", *_right("hooks/s", "p50", "p99", "CPU/hook", "generator"), box=None, pad_edge=False)
    for name, side in (("receiver", hooks["ours"]), ("bare handler", hooks["bare"])):
        grid.add_row(
            name,
            f"{side['rate']:.0f}",
            *(f"{side[field] * 1000:.1f} ms" for field in ("p50", "p99")),
            f"{side['cpu'] * 1000:.3f} ms",
            f"{side['generator']:.0%} of a core",
        )
    _print(console, grid, "receiver to bare handler", hooks)


def _objects(console: Console, objects: dict[str, Any]) -> None:
    grid = Table(
        "", *_right("objects/s", "CPU/object", "the broker's", "the stores'"), box=None, pad_edge=False
    )
    for name, side in (("worker", objects["ours"]), ("rclone", objects["rclone"])):
        cpus = (f"{side[part] * 1000:.3f} ms" for part in ("cpu", "broker", "stores"))
        grid.add_row(name, f"{side['rate']:.0f}", *cpus)
    _print(console, grid, "worker to rclone, objects/s", objects)
    low, high = min(objects["cpu_ratios"]), max(objects["cpu_ratios"])
    console.print(
        f"worker to rclone, CPU/object: {objects['cpu_ratio']:.2f}  (pairs from {low:.2f} to {high:.2f})"
    )


def _far(console: Console, far: dict[str, Any]) -> None:
    grid = Table("40 ms away", *_right("at once", "objects/s"), box=None, pad_edge=False)
    grid.add_row("worker", "auto", f"{far['ours']:.0f}")
    for transfers, rate in far["rclone"].items():
        grid.add_row("rclone", str(transfers), f"{rate:.0f}")
    console.print()
    console.print(grid)
    console.print(
        f"worker to rclone, objects/s: {far['to_default']:.1f} of its default, "
        f"{far['to_best']:.2f} of its best"
    )


def _waiting(console: Console, cost: dict[str, Any]) -> None:
    console.print(
        f"\n{cost['count']} tasks of {cost['body']} bytes wait; {cost['rate']:.0f} a second went in"
    )
    for what in ("memory", "disk"):
        before, after = cost[what]
        each = (after - before) / cost["count"]
        console.print(
            f"{what}: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB now: {each:.0f} bytes a task"
        )


def _right(*headers: str) -> list[Column]:
    return [Column(header, justify="right") for header in headers]


def _print(console: Console, grid: Table, what: str, measured: dict[str, Any]) -> None:
    low, high = min(measured["ratios"]), max(measured["ratios"])
    console.print()
    console.print(grid)
    console.print(f"{what}: {measured['ratio']:.2f}  (pairs from {low:.2f} to {high:.2f})")
