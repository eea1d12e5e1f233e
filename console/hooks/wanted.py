"""Which hooks the routes need, and what a bucket has of them: pure."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from common.routes import RouteSettings
from common.settings import Settings
from common.store.notifications import SIMPLE, TOPIC, Hook

CHANGES = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")
"""Asked for by every route. By one with deletes = "keep" too: whoever changes that to "mirror" need not
remember the bucket, and until then a removal finds nothing to do."""

BY_TOPIC = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
"""What a topic that calls us must send: of the rest each version of Ceph has its own names."""

TAGGED = "s3:ObjectTagging:*"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a bucket has against what the routes need. `serving` and `surplus` are ours, `others` are not.
    `by_topic` says that the store calls no URL itself: its topics do."""

    serving: tuple[Hook, ...]
    missing: tuple[Hook, ...]
    surplus: tuple[Hook, ...]
    others: tuple[Hook, ...]
    by_topic: bool = False

    @property
    def as_needed(self) -> bool:
        """Whether there is nothing to change."""
        return not (self.missing or self.surplus)


def hook_id(route: RouteSettings) -> str:
    """Return the Id of a route's hook: the same for ever, whatever the URL."""
    return f"hookmirror-{hashlib.sha256(route.id.encode()).hexdigest()[:12]}"


def needed(settings: Settings, source: str) -> list[Hook]:
    """Return a hook for each route from the bucket `source`, but for those that another route's hook serves
    as well: an event would be sent twice. The bucket may have several stores' names, each with a URL of its
    own. A route without any URL has no hook."""
    where = _place(settings, source)
    all_ = [
        Hook(SIMPLE, hook_id(route), url, _events(settings, route), route.prefix, route.suffix)
        for route in settings.routes
        if _place(settings, route.source) == where and (url := settings.hook_url(route.source))
    ]
    # The wider ones first: each of the rest is served by one before it, or by none.
    all_.sort(key=lambda hook: len(hook.prefix) + len(hook.suffix))
    kept: list[Hook] = []
    for hook in all_:
        if not any(covers(other, hook) for other in kept):
            kept.append(hook)
    return kept


def covers(have: Hook, need: Hook) -> bool:
    """Whether `have` sends to the URL of `need` all that `need` would."""
    return (
        have.kind == need.kind
        and have.target == need.target
        and need.prefix.startswith(have.prefix)
        and need.suffix.endswith(have.suffix)
        and all(any(_includes(event, wanted) for event in have.events) for wanted in need.events)
    )


def compare(
    hooks: Iterable[Hook],
    needs: list[Hook],
    *,
    settings: Settings,
    topics: Mapping[str, str] | None = None,
) -> Comparison:
    """Return how `hooks` differ from `needs`. Ours are those with the Id of a route, and those to a URL of
    ours. `topics` are the URLs that the store's topics call: where it keeps some, these serve us, and are
    none that we change."""
    ids = {hook_id(route) for route in settings.routes}
    urls = {inlet.url for inlet in settings.inlets}
    if topics is not None:
        told = [replace(hook, target=topics.get(hook.target, hook.target)) for hook in hooks]
        return _by_topic(told, needs, urls)
    ours: list[Hook] = []
    others: list[Hook] = []
    for hook in hooks:
        ours_ = hook.kind == SIMPLE and (hook.id in ids or hook.target in urls)
        (ours if ours_ else others).append(hook)
    ours.sort(key=lambda hook: hook.id not in ids)  # of two that serve the same, the one by hand goes
    serving, missing = list[Hook](), list[Hook]()
    for need in needs:
        found = next((hook for hook in ours if covers(hook, need)), None)
        if found is None:
            missing.append(need)
        elif found not in serving:
            serving.append(found)
    surplus = tuple(hook for hook in ours if hook not in serving)
    return Comparison(tuple(serving), tuple(missing), surplus, tuple(others))


def _by_topic(hooks: list[Hook], needs: list[Hook], urls: Collection[str | None]) -> Comparison:
    serving = tuple(hook for hook in hooks if hook.target in urls)
    others = tuple(hook for hook in hooks if hook.target not in urls)
    wanted = (replace(need, kind=TOPIC, events=BY_TOPIC) for need in needs)
    missing = tuple(need for need in wanted if not all(_sent(event, need, serving) for event in need.events))
    return Comparison(serving, missing, (), others, by_topic=True)


def _sent(event: str, need: Hook, serving: tuple[Hook, ...]) -> bool:
    return any(covers(hook, replace(need, kind=hook.kind, events=(event,))) for hook in serving)


def _place(settings: Settings, source: str) -> str:
    store, _, bucket = source.partition(":")
    return settings.stores[store].place(bucket)


def _events(settings: Settings, route: RouteSettings) -> tuple[str, ...]:
    store = settings.stores[route.source.partition(":")[0]]
    return CHANGES if store.tags == "never" else (*CHANGES, TAGGED)


def _includes(event: str, wanted: str) -> bool:
    return event == wanted or (event.endswith("*") and wanted.startswith(event[:-1]))
