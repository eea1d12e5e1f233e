"""`python -m bench`: measure, and print ratios. It measures and does not judge: exit code 0 when it could."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from bench import far, hooks, objects, report, waiting
from bench.lab import Failed, Missing, open_lab
from common.errors import HookmirrorError

INTERRUPTED = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: a rough answer in half a minute.")
@click.option("--hooks-only", is_flag=True, help="Only hooks a second.")
@click.option("--objects-only", is_flag=True, help="Only objects a second.")
@click.option("--far", "only_far", is_flag=True, help="Only objects a second with both clouds 40 ms away.")
@click.option(
    "--waiting",
    "waiting_count",
    metavar="COUNT",
    type=int,
    help="Only what so many waiting tasks cost RabbitMQ.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")
def bench(
    quick: bool,
    hooks_only: bool,
    objects_only: bool,
    only_far: bool,
    waiting_count: int | None,
    as_json: bool,
) -> None:
    """Measure hooks/s against a bare handler and objects/s against rclone, side by side."""

    def say(line: str) -> None:
        click.echo(line, err=True)

    if hooks_only and objects_only:
        raise click.UsageError("--hooks-only and --objects-only exclude each other")
    if waiting_count:
        result = measure_waiting(waiting_count, say)
    elif only_far:
        result = measure_far(quick, say)
    else:
        result = measure(quick, not objects_only, not hooks_only, say)
    click.echo(json.dumps(result, indent=2) if as_json else report.table(result))


def measure(quick: bool, with_hooks: bool, with_objects: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what was measured, as plain values; progress goes to `say`."""
    result: dict[str, Any] = {"machine": report.machine()}
    with open_lab() as lab:
        say("starting RabbitMQ")
        node = lab.rabbit()
        if with_hooks:
            rounds, seconds = (2, 2.0) if quick else (5, 4.0)
            result["hooks"] = asdict(hooks.measure(lab, node.url, rounds=rounds, seconds=seconds, say=say))
        if with_objects:
            rounds, count = (2, 600) if quick else (5, 3000)
            result["objects"] = asdict(objects.measure(lab, node, rounds=rounds, count=count, say=say))
    return result


def measure_far(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what was measured over a distance, as plain values."""
    with open_lab() as lab:
        rounds, count = (1, 2000) if quick else (2, 4000)
        measured = far.measure(lab, lab.rabbit(), rounds=rounds, count=count, say=say)
        return {"machine": report.machine(), "far": asdict(measured)}


def measure_waiting(count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what `count` waiting tasks cost the broker, as plain values."""
    with open_lab() as lab:
        say("starting RabbitMQ")
        return {
            "machine": report.machine(),
            "waiting": asdict(waiting.measure(lab.rabbit(), count=count, say=say)),
        }


if __name__ == "__main__":
    try:
        bench(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except (Failed, HookmirrorError, RuntimeError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(2 if isinstance(error, Missing) else 1)
