"""`hookmirror dead export`: the dead letters as JSON, one a line."""

import json
import os
import shutil
import sys
import tempfile
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import IO

import click

from common.queue.port import Queue
from console.dead.letter import as_dict
from console.dead.options import entries, where_options
from console.dead.where import Where
from console.options import config_option, json_option, print_json, with_queue


@click.command()
@config_option
@json_option
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), help="Write to this file.  [default: standard output]"
)
@where_options
def export(config: str | None, as_json: bool, output: str | None, where: Where) -> None:
    """Write dead letters as JSON, one a line.

    All, or those that match, in no order. They stay where they are. The file is whole or not there: it is
    written as FILE.part and renamed at its end; only you can read it. With --json and --output, what is
    printed is the count.

    \b
    For example, the keys:   hookmirror dead export --reason Refused | jq -r .task.key
    """
    if output is None:
        # Into a file first: a reader that stops reading must not keep the dead letters from everybody else.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            with_queue(config, lambda queue: _write(queue, where, file))
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout)
        return
    count = _to_file(config, where, Path(output))
    if as_json:
        print_json({"exported": count, "output": output})
    else:
        click.echo(f"exported: {count} to {output}")


def _to_file(config: str | None, where: Where, target: Path) -> int:
    part = target.with_name(f"{target.name}.part")
    try:
        # The bytes of a stack's dead letter hold what is masked elsewhere.
        with open(part, "w", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
            count = with_queue(config, lambda queue: _write(queue, where, file))
            file.flush()
            os.fsync(file.fileno())  # the dead letters may be dropped next
        part.replace(target)
    except OSError as error:
        raise click.ClickException(
            f"--output {target}: {error.strerror}. Name a file that can be written."
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return count


async def _write(queue: Queue, where: Where, file: IO[str]) -> int:
    count = 0
    async with aclosing(entries(queue, "exporting")) as found:
        async for entry in found:
            if where(entry):
                file.write(json.dumps(as_dict(entry), default=str) + "\n")
                count += 1
    return count
