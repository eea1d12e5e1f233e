"""What senders send, as files: tests/samples/<sender>/<what>.json."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "samples"


def names() -> list[str]:
    """Every sample there is, as "sender/what"."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json"))


def raw(name: str) -> bytes:
    """The bytes of a sample."""
    return (FOLDER / f"{name}.json").read_bytes()


def sample(name: str) -> Any:
    """The JSON value of a sample."""
    return json.loads(raw(name))
