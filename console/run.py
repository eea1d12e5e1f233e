"""`hookmirror up | receiver | worker`: the services."""

import sys

import click

import receiver.program
import worker.program
from common import service
from console.options import config_option


@click.command()
@config_option
def up(config: str | None) -> None:
    """Run receiver and worker in one process.

    For one machine, on the embedded queue or over RabbitMQ. Ctrl-C or SIGTERM finishes what is in progress
    and exits 0.
    """
    sys.exit(service.main(config, receiver.program.run, worker.program.run))


@click.command(name="receiver")
@config_option
def receiver_(config: str | None) -> None:
    """Take hooks and queue them.

    Over amqp:// run as many as you like.
    """
    sys.exit(service.main(config, receiver.program.run))


@click.command(name="worker")
@config_option
def worker_(config: str | None) -> None:
    """Do queued tasks: compare each key and copy it.

    Over amqp:// run as many as you like.
    """
    sys.exit(service.main(config, worker.program.run))
