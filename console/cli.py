"""`hookmirror ...`: the commands, one file a group; no logic here."""

import sys

import click

from common.errors import ConfigError, HookmirrorError
from console import brake, dead, init, run, sign, status, uploads
from console.demo import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hookmirror")
def hookmirror() -> None:
    """Keep a bucket in one S3 cloud equal to a bucket in another, driven by the source's webhooks.

    \b
    First steps:
      hookmirror demo                     see it work, with nothing configured
      hookmirror init                     write hookmirror.toml, then fill it in
      hookmirror up                       receiver and worker in one process

    \b
    In production, over RabbitMQ, any number of each:
      hookmirror receiver
      hookmirror worker

    \b
    Looking after it:
      hookmirror status
      hookmirror dead list
      hookmirror brake list
    """


commands = (
    init.init,
    run.up,
    run.receiver_,
    run.worker_,
    status.status,
    dead.dead,
    brake.brake,
    uploads.uploads,
    sign.sign,
    demo.demo,
)
for command in commands:
    hookmirror.add_command(command)


def main() -> None:
    """Run the command line; our errors become one sentence and an exit code (2: the configuration)."""
    try:
        sys.exit(hookmirror(standalone_mode=True))
    except HookmirrorError as error:
        click.echo(f"hookmirror: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
