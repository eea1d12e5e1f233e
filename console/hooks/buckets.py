"""The hooks of the source buckets, read and changed: one bucket after the other, whatever fails at one."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from common.errors import ConfigError, HookmirrorError, StoreAway
from common.settings import Settings
from common.store.notifications import TOPIC, Configuration, Hook
from common.store.s3 import S3Bucket, S3Store
from console.hooks.wanted import Comparison, compare, needed

OWN_TOPIC = re.compile(r"arn:aws:sns:[^:]*:(?!\d+:)[^:]*:")
"""The ARN of a topic that the store keeps itself: where Amazon's have the number of an account, those of Ceph
have the name of a tenant, or nothing."""

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


def look(settings: Settings, *, closely: bool = False) -> Act:
    """Compare, and change nothing. `closely`: when something is missing the store is asked for topics that it
    may keep, though the bucket tells none."""

    async def act(source: str, bucket: S3Bucket) -> Comparison:
        _, found = await _found(settings, source, bucket, needed(settings, source), closely=closely)
        return found

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


async def _found(
    settings: Settings, source: str, bucket: S3Bucket, needs: list[Hook], *, closely: bool = False
) -> tuple[Configuration, Comparison]:
    """Read what a bucket has, and compare it with `needs`. Where the store's own topics are told, it is asked
    which URLs these call."""
    configuration = await bucket.notifications()
    found = compare(configuration.hooks, needs, settings=settings)
    own = any(OWN_TOPIC.match(hook.target) for hook in configuration.hooks if hook.kind == TOPIC)
    topics = await bucket.topics() if own or (closely and found.missing) else None
    if topics is None:
        topics = _of_sns(settings, source, configuration)
    if topics is None:
        return configuration, found
    return configuration, compare(configuration.hooks, needs, settings=settings, topics=topics)


def _of_sns(settings: Settings, source: str, configuration: Configuration) -> dict[str, str] | None:
    """Return the topics of Amazon's that a bucket tells and that are ours by receiver.sns_topics, with the
    URL that they are to call: whom they do call is told elsewhere. None when there are none."""
    ours = {hook.target for hook in configuration.hooks} & set(settings.receiver.sns_topics)
    return dict.fromkeys(ours, settings.hook_url(source) or "") or None


async def _change(
    settings: Settings, source: str, bucket: S3Bucket, *, add: bool, dry_run: bool
) -> Comparison:
    """Read, change what is ours, write, and read again: what was to be changed is `missing` (now added) and
    `surplus` (now gone). Between the read and the write another's change would be lost, S3 knows no
    condition here; so they follow each other at once."""
    needs = needed(settings, source) if add else []
    configuration, found = await _found(settings, source, bucket, needs)
    if found.by_topic and add and not found.as_needed:
        raise StoreAway(
            "the store calls no URL itself, its topics do, and those of this bucket do not call "
            f"{found.missing[0].target} for all that is needed. See docs/senders.md"
        )
    if found.by_topic and not add and found.serving:
        raise StoreAway(
            f"the topic of {found.serving[0].id} calls {found.serving[0].target}, and is not changed from "
            "here. Take the entry away: docs/senders.md"
        )
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
            "the store has taken the hooks and does not show them as they were sent. "
            "It may know no SimpleTopicConfiguration: then register the URL in its own way, docs/senders.md"
        )
    if lost := sorted({_same(hook) for hook in found.others} - {_same(hook) for hook in now.others}):
        raise StoreAway(f"hooks of others are gone or changed. See to them at once: {lost}")
    return replace(found, serving=now.serving)


def _same(hook: Hook) -> tuple[str, ...]:
    """What stays when a store writes a hook in its own way: all but the order of the events."""
    return (hook.kind, hook.id, hook.target, hook.prefix, hook.suffix, *sorted(hook.events))
