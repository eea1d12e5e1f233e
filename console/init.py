"""`hookmirror init`: a commented configuration to start from."""

import base64
import secrets
from pathlib import Path

import click

TEMPLATE = """\
# hookmirror's configuration. Every value can also come from the environment, with __ for nesting
# (HOOKMIRROR_STORES__MCS__SECRET_ACCESS_KEY=...), or from a file of that name in /run/secrets.

[queue]
url = "sqlite:///hookmirror.db"              # one machine; or "amqp://user:pass@host/vhost"
                                             # Relative paths are relative to this file.
# management_url = "http://host:15672"         # RabbitMQ's: a policy that loses hooks ends the start

[receiver]
host = "0.0.0.0"
port = 8080                                  # MCS only calls 80 and 443: put a reverse proxy before it
# Exactly as registered at the source, to the character; its path is the path served. The long random
# part is the only proof that a caller is the one you told: keep it to yourself.
public_url = "https://hooks.example.org/webhook/{token}"
# stack_url = "https://hooks.example.org/stacks/{stacks}"     # [[stack_routes]] below
# sns_topics = ["arn:aws:sns:eu-central-1:123456789012:my-topic"]    # Amazon's: docs/senders.md
# docs = true                                # /docs and /openapi.json, which tell no secret
# spool = "hookmirror-spool.db"              # takes hooks while the broker is away: docs/spool.md
# allowed_networks = ["203.0.113.0/24"]      # who may call; without it anybody who knows the path
# trusted_proxies = ["127.0.0.1"]            # whose X-Forwarded-For says who called
# requests_per_second = 1000                 # of one address; more is refused, and perhaps not sent again
# burst = 5000                               # so many at once
# max_connections = 800                      # at once, of all

[worker]
processes = 1                                # each uses one core at most; "auto": as many as there are
concurrency = "auto"                         # objects of a route at once, in each worker process; or a number
look_after = 1200                            # seconds until a write in doubt is re-checked: 1200 to 3600
attempts = 12                                # then a dead letter
drain = 25                                   # seconds to finish what is in hand after a SIGTERM
memory = 134217728                           # bytes of object data held at once

[metrics]                                    # docs/metrics.md
host = "127.0.0.1"                           # for a Prometheus elsewhere: "0.0.0.0", behind a firewall
# port = 9464                                # /metrics and /healthz; none without it

[stores.mcs]
endpoint = "https://hb.ru-msk.vkcloud-storage.ru"
region = "ru-msk"
# access_key_id = "..."                      # or: profile = "mcs" (of ~/.aws), or the AWS chain
# secret_access_key = "..."
# session_token = "..."                      # with temporary keys
key_encoding = "auto"                        # of keys in hooks: auto | raw | url
# max_requests_per_second = 300              # of each worker: MCS takes 1000 of a project (listings: 250)
# addressing = "auto"                        # auto | path | virtual: where the bucket's name stands
# consistency = "strong"                     # eventual, if reads may show an old state: the mirror re-checks
# public_url = "https://hooks.example.org/webhook/{own}"   # its own, beside a bucket of the same name
# tags = "auto"                              # auto | always | never: whether to ask for objects' tags
# storage_classes = ["COLD"]                 # that it has beside Amazon's: for storage_class below
# ca_bundle = "/etc/ssl/mcs.pem"             # whom to trust beside the system's authorities

[stores.aws]
region = "eu-central-1"
# access_key_id = "..."
# secret_access_key = "..."

[[routes]]
source = "mcs:my-bucket"
target = "aws:my-bucket-backup"
# prefix = "photos/"                         # only keys that begin so
# suffix = ".jpg"                            # only keys that end so
# target_prefix = "from-mcs/"                # put before every key on the target
deletes = "mirror"                           # mirror | owned (only what hookmirror wrote) | keep
# name = "photos"                            # what logs, tasks and metrics call it
# storage_class = "STANDARD_IA"              # of the copies
# sse = "aws:kms"                            # of the copies: AES256 | aws:kms
# kms_key = "arn:aws:kms:..."
# max_bytes_per_second = 50000000            # of each worker
# takes_over = ["https://old.example.org/my-bucket"]  # where the source was before it moved
# [routes.brake]
# deletes = 1000                             # more than so many deletes
# window = 300                               # within so many seconds are held for you

# Instead of a target a route may run a program, or pass the event on: docs/actions.md
# [[routes]]
# source = "mcs:my-bucket"
# exec = "scripts/backup.sh"                 # called as: backup.sh BUCKET KEY copy|delete
# timeout = 300                              # seconds, 540 at most; then it is killed
# on_failure = "retry"                       # retry | bury (a dead letter): exit codes but 0 and 75

# [[routes]]
# source = "mcs:my-bucket"
# forward = "https://example.org/hooks"      # where each event is sent, as a signed CloudEvent
# secret = "{secret}"
# timeout = 30                               # seconds
# ca_bundle = "/etc/ssl/hooks.pem"           # whom to trust instead of the system's authorities

# Notifications of Alibaba Cloud ROS stacks, which come to receiver.stack_url: docs/stacks.md
# [[stack_routes]]
# stack = "prod-*"                           # names of stacks that fit
# status = ["*_FAILED"]                      # statuses that fit
# name = "alarms"
# log = true                                 # or exec = "...", called as: program STACK STATUS; or forward
# window = 300                               # seconds in which the same notification runs it once
"""


def signing_secret() -> str:
    """Return a new secret as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def filled() -> str:
    """Return the template with secrets of its own."""
    paths = {name: secrets.token_hex(16) for name in ("token", "stacks", "own")}
    return TEMPLATE.format(**paths, secret=signing_secret())


@click.command()
@click.option("--output", "-o", default="hookmirror.toml", show_default=True, type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
def init(output: str, force: bool) -> None:
    """Write a commented hookmirror.toml to fill in.

    The URL to register has a secret path of its own in it.
    """
    path = Path(output)
    if path.exists() and not force:
        raise click.ClickException(f"{path} is there already. Name another with --output, or give --force")
    try:
        path.touch(mode=0o600)  # secrets go into it: nobody else reads it, not even while it is written
        path.chmod(0o600)
        path.write_text(filled())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}. Name another with --output") from error
    click.echo(
        f"Wrote {path}. Fill in the stores and the route, then:  hookmirror up --config {path}", err=True
    )
