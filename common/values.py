"""What single values of the configuration must be: each check says what to write. Pure.

A check raises `ValueError` with what stands after `KEY = VALUE: `, and repeats nothing that may be secret.
"""

import re
import string
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from common.hosts import fault, is_host
from common.telemetry import SHORTEST_SECRET
from common.urls import PAGES, path_of

GUEST = "guest"
"""RabbitMQ's own first user and password: no secret, and good for connections from the same machine only."""

QUEUES = 'write "sqlite:///hookmirror.db", or "amqp://user:password@host/vhost"'

ESCAPES = "write # as %23, / as %2F, ? as %3F, @ as %40, [ as %5B and % as %25 in its user and password"

STORAGE_CLASSES = frozenset(
    {
        *("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "GLACIER_IR"),
        *("DEEP_ARCHIVE", "REDUCED_REDUNDANCY", "EXPRESS_ONEZONE", "OUTPOSTS", "SNOW"),
    }
)
"""What S3 knows; MCS calls two of its own by these names (docs/senders.md)."""

LONGEST_KEY = 1024
"""Bytes that S3 takes of a key, in UTF-8."""

LONGEST_PART = 1000
"""What of these a prefix or a suffix may take: some have to be left for the rest of the key."""

_REGION = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)")  # as botocore takes one
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_STORE = re.compile(r"[A-Za-z0-9_.-]+")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+")


def text(value: str) -> str:
    """Check any text: no characters that are not to be seen, and no blanks around it."""
    if any(ord(char) < 32 or ord(char) == 127 or char in "\u2028\u2029\ufeff" for char in value):
        raise ValueError("there is a line break or another control character in it: take it out")
    if value != value.strip():
        raise ValueError("there is a blank at its beginning or end: take it out")
    return value


def printable(value: str) -> str:
    """Check what goes into a header: ASCII, without blanks, and not in quotes, as some tools leave it."""
    if not value.isascii() or any(char.isspace() for char in value):
        raise ValueError("it has a blank or a letter that is no ASCII in it: copy it anew")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        raise ValueError("there are quotes around it, which would be sent as a part of it: take them out")
    return value


def host(value: str) -> str:
    """Check an address to listen on."""
    if value.startswith("[") or "/" in value or re.search(r"^[^:]+:\d+$", value):
        raise ValueError('write the address alone, like "0.0.0.0" or "::"; the port goes into port')
    try:
        ip_address(value)
    except ValueError:
        if not is_host(value) or re.fullmatch(r"[\d.]+", value):
            raise ValueError(
                'write an address of this machine, like "127.0.0.1" or "0.0.0.0" or "::"'
            ) from None
    return value


def network(value: object) -> object:
    """Check an address or a network, like 10.0.0.0/8."""
    example = 'write an address or a network, like "203.0.113.7" or "10.0.0.0/8"'
    if not isinstance(value, str):
        raise ValueError(f"{example}, in quotes")
    try:
        ip_network(value)
    except ValueError:
        try:
            whole = ip_network(value, strict=False)
        except ValueError:
            raise ValueError(example) from None
        raise ValueError(f'write "{whole}" for the network, or "{value.partition("/")[0]}" alone') from None
    return value


def topic(value: str) -> str:
    """Check the ARN of an SNS topic."""
    if not _TOPIC.fullmatch(value):
        raise ValueError('write the ARN of a topic, like "arn:aws:sns:eu-central-1:123456789012:my-topic"')
    return value


def _split(value: str, otherwise: str) -> SplitResult:
    """Return the parts of a URL whose host and port can be; when it has no parts say `otherwise`."""
    if said := fault(value):
        raise ValueError(said)
    try:
        return urlsplit(value)
    except ValueError:
        raise ValueError(f"the URL does not parse: {otherwise}") from None


def _http(value: str, example: str) -> SplitResult:
    if any(char.isspace() for char in value):
        raise ValueError(f"there is a blank in it: write it like {example}")
    parts = _split(value, f"write it like {example}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"write it with https:// or http:// in front, like {example}")
    return parts


def served(value: str) -> str:
    """Check a URL of ours, that senders call."""
    example = '"https://hooks.example.org/webhook/3f9c..."'
    if _http(value, example).username is not None or {"?", "#"} & set(value):
        raise ValueError(
            "it has a user, a query (?) or a fragment (#), for which nobody who calls is asked, so that it "
            f"guards nothing: write the secret into the path, like {example}"
        )
    if set("{}") & set(unquote(path_of(value))):
        raise ValueError("it has a brace in its path, which cannot be served: leave it out")
    if (path := unquote(path_of(value))) in PAGES:
        raise ValueError(f"{path} is a page of the receiver's own: write another path, like {example}")
    return value


def forwarded(value: str) -> str:
    """Check a URL that events are sent to."""
    example = '"https://example.org/hooks"'
    parts = _http(value, example)
    if parts.username is not None or parts.fragment:
        raise ValueError(
            f"it takes neither a user nor a fragment, for the secret proves us: write it like {example}"
        )
    return value


def endpoint(value: str) -> str:
    """Check the URL of an S3 cloud."""
    example = '"https://hb.ru-msk.vkcloud-storage.ru"'
    parts = _http(value, example)
    if parts.username is not None:
        raise ValueError(f"keys go into access_key_id and secret_access_key: write it like {example}")
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError(f"it takes no ? and no #: write it like {example}")
    return value


def former(value: str) -> str:
    """Check the URL of a bucket, from which a target was filled before."""
    example = '"https://old.example.org/my-bucket"'
    parts = _http(value, example)
    if not _BUCKET.fullmatch(parts.path.rpartition("/")[2]) or parts.query or parts.fragment:
        raise ValueError(f"it ends in the name of the bucket: write it like {example}")
    return value


def region(value: str) -> str:
    """Check a region."""
    if not _REGION.fullmatch(value):
        raise ValueError('write the name of one region, like "ru-msk" or "eu-central-1"')
    return value


def address(value: str) -> str:
    """Check "store:bucket"."""
    store, colon, bucket = value.partition(":")
    if not colon or not _STORE.fullmatch(store) or not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise ValueError('write STORE:BUCKET, like "mcs:photos"; a folder goes into prefix')
    return value


def store_name(value: str) -> str:
    """Check the name of a store."""
    if not _STORE.fullmatch(value):
        shown = "".join(char if char.isprintable() else "?" for char in value)
        raise ValueError(f'"{shown}" is no name: write one of letters, digits, - and _, like  [stores.mcs]')
    return value


def key_part(value: str) -> str:
    """Check what keys begin or end with."""
    if set("\0\t\r\n") & set(value) or value != value.strip():
        raise ValueError("there is a blank or a line break at its end or beginning, or in it: take it out")
    if "*" in value:
        raise ValueError(
            '* stands for nothing here: write only what the keys begin or end with, like "photos/"'
        )
    if (size := len(value.encode())) > LONGEST_PART:
        raise ValueError(
            f"it has {size} bytes in UTF-8, and a whole key has at most {LONGEST_KEY}: write one of "
            f"{LONGEST_PART} bytes or fewer"
        )
    return value


def key_start(value: str) -> str:
    """Check what keys begin with."""
    if value.startswith("/"):
        raise ValueError(f'keys begin with no "/": write "{value.lstrip("/")}"')
    return key_part(value)


def route_name(value: str) -> str:
    """Check the name of a route."""
    if len(value) > 200:
        raise ValueError("it has more than 200 characters: write a shorter one")
    return text(value)


def queue(value: str) -> str:
    """Check the URL of the queue. What is said of it never holds any of it."""
    if any(char.isspace() for char in value):
        raise ValueError(f"there is a blank in it, which is %20 in a password: {QUEUES}")
    scheme = value.partition(":")[0].lower()
    if scheme == "sqlite":
        _check_file(value)
    elif scheme in {"amqp", "amqps"}:
        _check_broker(value)
    else:
        forgets = "that queue would die with its process" if scheme == "memory" else "that is no queue"
        raise ValueError(f"{forgets}: {QUEUES}")
    return value


def _check_file(value: str) -> None:
    file = value.partition(":")[2].removeprefix("///")
    if not value.startswith("sqlite:///") or not file or file.endswith("/") or file == ":memory:":
        raise ValueError('write three slashes and the name of a file: "sqlite:///hookmirror.db"')


def management(value: str) -> str:
    """Check the URL of RabbitMQ's management API. What is said of it never holds any of it."""
    _check_escapes(value)
    parts = _split(value, ESCAPES)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError('write the URL of the management API, like "http://rabbitmq:15672"')
    return value


def _check_broker(value: str) -> None:
    _check_escapes(value)
    parts = _split(value, ESCAPES)
    if parts.fragment or value.endswith("#"):
        raise ValueError(f"there is a # in it that ends the URL early: {ESCAPES}")
    if not parts.hostname:
        raise ValueError('it names no host: write "amqp://user:password@host/vhost"')
    if re.search(r"%(?![0-9A-Fa-f]{2})", f"{parts.username}{parts.password}{parts.path}"):
        raise ValueError(f"there is a % in it that says nothing: {ESCAPES}")
    if parts.password is not None and (password := unquote(parts.password)) != GUEST:
        long_enough("its password", password)
    _check_options(parts.query)


def _check_escapes(value: str) -> None:
    """Check that no password ends the part of the URL that names the host."""
    authority = re.split("[/?#]", value.partition("//")[2], maxsplit=1)[0]
    if "@" in value.partition("//")[2][len(authority) :]:
        raise ValueError(f"there is a # / or ? in it that ends the URL early: {ESCAPES}")
    if set("[]") & set(authority.rpartition("@")[0]):
        raise ValueError(f"there is a bracket in its password: {ESCAPES}")


def _check_options(query: str) -> None:
    for name, number in re.findall(r"(?:^|&)(heartbeat|timeout)=([^&]*)", query):
        if not number.isdecimal():
            raise ValueError(f"its {name} is no whole number of seconds: write {name}=10")


def long_enough(name: str, secret: str) -> None:
    """Check the length of a secret."""
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"{name} has fewer than {SHORTEST_SECRET} characters, too few to hide in logs: take a longer one"
        )


def storage_class(value: str) -> str:
    """Check the name of a storage class."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise ValueError('write the name of a storage class, like "COLD"')
    return value


def some(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Check that there is one at all."""
    if not patterns:
        raise ValueError('nothing fits it: write one at least, like ["*_FAILED"], or leave it out for all')
    return patterns


def status_pattern(value: str) -> str:
    """Check a pattern for the status of a stack."""
    if not value or set(value) - set(string.ascii_uppercase + "_*?![]-"):
        raise ValueError('it fits no status: write one like "CREATE_COMPLETE" or "*_FAILED"')
    return value
