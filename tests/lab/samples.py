"""What senders send, as files: tests/samples/<sender>/<what>.json."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "samples"

PUBLISHED = [
    (
        "http://test.com",
        "mcs2883541269|bucketA|s3:ObjectCreated:Put",
        "2019-12-26T19:29:12+03:00",
        "RPE5UuG94rGgBH6kHXN9FUPugFxj1hs2aUQc99btJp3E49tA",
        "ea3fce4bb15c6de4fec365d36bcebbc34ccddf54616d5ca12e1972f82b6d37af",
    ),
    (
        "http://89.208.199.220/webhook",
        "mcs5259999770|myfiles-ash|s3:ObjectCreated:*,s3:ObjectRemoved:*",
        "2020-06-15T15:01:13+03:00",
        "E2itMqAMUVVZc51pUhFWSp13DoxezvRxkUh5P7LEuk1dEe9y",
        "3754ce36636f80dfd606c5254d64ecb2fd8d555c27962b70b4f759f32c76b66d",
    ),
]
"""The handshakes that MCS has published: url, topic, timestamp, token, and the signature of them."""


OTHER_PATHS = ("ros/",)
"""Senders that have a path of their own."""


def names(*, of: str = "") -> list[str]:
    """Every sample there is, as "sender/what": those of hooks, or `of` a sender."""
    found = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json"))
    return [name for name in found if (name.startswith(of) if of else not name.startswith(OTHER_PATHS))]


def raw(name: str) -> bytes:
    """The bytes of a sample."""
    return (FOLDER / f"{name}.json").read_bytes()


def sample(name: str) -> Any:
    """The JSON value of a sample."""
    return json.loads(raw(name))
