"""`hookmirror ...`: the commands, one file a group; no logic here."""

import importlib
import sys

import click

from common.errors import ConfigError, HookmirrorError
from common.telemetry import unexpected

COMMANDS = {
    "init": "console.init:init",
    "up": "console.run:up",
    "receiver": "console.run:receiver_",
    "worker": "console.run:worker_",
    "hooks": "console.hooks.group:hooks",
    "status": "console.status:status",
    "health": "console.health:health",
    "dead": "console.dead.group:dead",
    "brake": "console.brake:brake",
    "routes": "console.routes:routes",
    "uploads": "console.uploads:uploads",
    "sign": "console.sign:sign",
    "demo": "demo.demo:demo",
}
"""Where each command is: "module:function"."""


class _Late(click.Group):
    """A group whose commands are imported when they are asked for: `health` need not wait for all of S3."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, function = COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        command: click.Command = getattr(importlib.import_module(module), function)
        return command


@click.group(cls=_Late, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hookmirror")
def hookmirror() -> None:
    """Keep a bucket in one S3 cloud equal to a bucket in another, driven by the source's webhooks.

    \b
    First steps:
      hookmirror demo                     see it work, with nothing configured
      hookmirror init                     write hookmirror.toml, then fill it in
      hookmirror hooks add                register at the source, once the receiver answers
      hookmirror up                       receiver and worker in one process

    \b
    In production, over RabbitMQ, any number of each:
      hookmirror receiver
      hookmirror worker

    \b
    Looking after it:
      hookmirror status
      hookmirror health                   for a container's health check
      hookmirror dead list
      hookmirror brake list
      hookmirror routes adopt OLD NEW     after a route was renamed
    """


def main() -> None:
    """Run the command line; our errors become one sentence and an exit code (2: the configuration)."""
    try:
        sys.exit(hookmirror(standalone_mode=True))
    except HookmirrorError as error:
        click.echo(f"hookmirror: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except Exception as error:  # noqa: BLE001 - nobody but us can read a traceback
        click.echo(f"hookmirror: {unexpected(error)}", err=True)
        sys.exit(1)
