"""`hookmirror up | receiver | worker`: the services."""

import sys
from typing import NoReturn

import click

from common import service
from common.settings import Settings
from console.child import program
from console.options import config_option
from console.supervisor import how_many, supervise


def run(config: str | None, *names: str) -> NoReturn:
    """Run the programs `names` in this process, or in several; end with their exit code."""

    async def work(settings: Settings) -> None:
        if "worker" in names and how_many(settings.worker) > 1:
            await supervise(settings, names, config)
        else:
            await service.serve(settings, [program(name) for name in names])

    sys.exit(service.carry_out(config, work))


@click.command()
@config_option
def up(config: str | None) -> None:
    """Run receiver and worker in one process.

    For one machine, on the embedded queue or over RabbitMQ; worker.processes says whether there are more
    worker processes. Ctrl-C or SIGTERM finishes what is in progress
    and exits 0.
    """
    run(config, "receiver", "worker")


@click.command(name="receiver")
@config_option
def receiver_(config: str | None) -> None:
    """Take hooks and queue them.

    Over amqp:// run as many as you like.
    """
    run(config, "receiver")


@click.command(name="worker")
@config_option
def worker_(config: str | None) -> None:
    """Do queued tasks: compare each key and copy it.

    Over amqp:// run as many as you like; worker.processes says how many processes each has.
    """
    run(config, "worker")
