"""Keys that a store takes for one: SeaweedFS, which keeps objects as files, takes "a//b" for "a/b"."""

from common.errors import Refused
from common.store.port import State
from worker.job import Job


def plain(key: str) -> str:
    """Return the key as a file system would have it: without empty parts and dots."""
    parts: list[str] = []
    for part in key.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts) + "/" * (key.endswith("/") and bool(parts))


async def refuse_alias(job: Job, target: State | None) -> None:
    """Raise `Refused` when what the target shows for the key is its object of another key: what is done to
    the one is done to both."""
    key = job.target_key
    if target is None or (other := plain(key)) in {"", key}:
        return
    there = await job.route.target.head(other, proof=False, tags=False)
    if there is not None and _shown(there) == _shown(target):
        raise Refused(f'the target takes the key "{key}" for "{other}", and cannot hold both', own=True)


def _shown(state: State) -> tuple[object, ...]:
    return state.etag, state.size, state.last_modified, state.version, state.metadata
