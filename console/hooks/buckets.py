"""The hooks of the source buckets, read and changed: one bucket after the other, whatever fails at one."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from common.errors import ConfigError, HookmirrorError, StoreAway
from common.settings import Settings
from common.store.notifications import Hook
from common.store.s3 import S3Bucket, S3Store
from console.hooks.wanted import Comparison, compare, needed

NOTHING = Comparison((), (), (), ())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one bucket, "store:bucket"; `error` is why nothing is."""

    source: str
    found: Comparison
    error: str = ""


Act = Callable[[str, S3Bucket], Awaitable[Comparison]]


async def each(settings: Settings, sources: list[str], act: Act) -> list[Outcome]:
    """Return what `act` found in each bucket. Raises `ConfigError` when a store cannot be used at all."""
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        stores: dict[str, S3Store] = {}
        for source in sources:
            name, _, bucket = source.partition(":")
            if name not in stores:
                stores[name] = await S3Store.open(name, settings.stores[name])
                stack.push_async_callback(stores[name].close)
            try:
                outcomes.append(Outcome(source, await act(source, stores[name].bucket(bucket))))
            except ConfigError:
                raise
            except HookmirrorError as error:
                outcomes.append(Outcome(source, NOTHING, str(error)))
    return outcomes


def look(settings: Settings) -> Act:
    """Compare, and change nothing."""

    async def act(source: str, bucket: S3Bucket) -> Comparison:
        return compare((await bucket.notifications()).hooks, needed(settings, source), settings=settings)

    return act


def add(settings: Settings, *, dry_run: bool) -> Act:
    """Make a bucket's hooks those that the routes need."""

    async def act(source: str, bucket: S3Bucket) -> Comparison:
        return await _change(settings, source, bucket, add=True, dry_run=dry_run)

    return act


def remove(settings: Settings, *, dry_run: bool) -> Act:
    """Take every hook of ours out of a bucket's."""

    async def act(source: str, bucket: S3Bucket) -> Comparison:
        return await _change(settings, source, bucket, add=False, dry_run=dry_run)

    return act


async def _change(
    settings: Settings, source: str, bucket: S3Bucket, *, add: bool, dry_run: bool
) -> Comparison:
    """Read, change what is ours, write, and read again: what was to be changed is `missing` (now added) and
    `surplus` (now gone). Between the read and the write another's change would be lost, S3 knows no
    condition here; so they follow each other at once."""
    needs = needed(settings, source) if add else []
    configuration = await bucket.notifications()
    found = compare(configuration.hooks, needs, settings=settings)
    if dry_run or found.as_needed:
        return found
    try:
        body = configuration.changed(without=found.surplus, added=found.missing)
    except ValueError as error:
        raise ConfigError(f"routes from {source}: {error}. Shorten the prefix or the suffix") from error
    await bucket.notify(body)
    now = compare((await bucket.notifications()).hooks, needs, settings=settings)
    if not now.as_needed:
        raise StoreAway(
            f"{source}: the store has taken the hooks and does not show them as they were sent. "
            "It may know no SimpleTopicConfiguration: then register the public_url in its own way"
        )
    if lost := sorted({_same(hook) for hook in found.others} - {_same(hook) for hook in now.others}):
        raise StoreAway(f"{source}: hooks of others are gone or changed. See to them at once: {lost}")
    return replace(found, serving=now.serving)


def _same(hook: Hook) -> tuple[str, ...]:
    """What stays when a store writes a hook in its own way: all but the order of the events."""
    return (hook.kind, hook.id, hook.target, hook.prefix, hook.suffix, *sorted(hook.events))
