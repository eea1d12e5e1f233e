"""Which routes may not be in one configuration, since they meet on the same keys: pure.

A mirror takes the keys of its source that begin with `prefix` and end with `suffix`, and writes them to its
target behind `target_prefix`. Buckets are compared by place, not by the names of stores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, permutations

from common.routes import RouteSettings
from common.tables import StoreSettings

Stores = Mapping[str, StoreSettings]


@dataclass(frozen=True, slots=True)
class Space:
    """The keys at `place` that begin with `prefix` and end with `suffix`."""

    place: str
    prefix: str
    suffix: str

    def overlaps(self, other: "Space") -> bool:
        """Whether there can be a key in both."""
        return (
            self.place == other.place
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
            and (self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix))
        )


@dataclass(frozen=True, slots=True)
class Mirror:
    """A route with a target: what it reads and what it writes. `into` is the target as configured."""

    id: str
    into: str
    source: Space
    target: Space

    def inverts(self, other: "Mirror") -> bool:
        """Whether the two keep two buckets equal both ways. A target_prefix on either rules it out: keys
        would grow."""
        return (self.source, self.target) == (other.target, other.source)

    def feeds(self, other: "Mirror") -> bool:
        """Whether `other` copies on what this one writes."""
        return self.target.overlaps(other.source)


def mirrors(routes: Iterable[RouteSettings], stores: Stores) -> list[Mirror]:
    """Return those of `routes` that have a target, in their order."""
    return [
        Mirror(
            route.id,
            route.target,
            Space(_place(route.source, stores), route.prefix, route.suffix),
            Space(_place(route.target, stores), route.target_prefix + route.prefix, route.suffix),
        )
        for route in routes
        if route.target is not None
    ]


def two_ways(routes: Iterable[RouteSettings], stores: Stores) -> dict[str, str]:
    """Return the id of each route's inverse, for those that have one."""
    return {one.id: other.id for one, other in permutations(mirrors(routes, stores), 2) if one.inverts(other)}


def check(routes: Iterable[RouteSettings], stores: Stores) -> None:
    """Raise `ValueError` for a route onto its own source, two that write the same keys, and a circle that is
    not one of two ways."""
    all_ = mirrors(routes, stores)
    for mirror in all_:
        if mirror.source.place == mirror.target.place:
            raise ValueError(
                f'route "{mirror.id}": source and target are the same bucket, {mirror.into}. '
                "Name another target"
            )
    for one, other in combinations(all_, 2):
        if one.target.overlaps(other.target):
            raise ValueError(
                f'routes "{one.id}" and "{other.id}" write the same keys of {one.into}: what one puts there '
                "the other may delete. Take one out, or let each write where the other does not:  "
                'target_prefix = "from-.../"'
            )
    _check_circles(all_)


def _check_circles(all_: list[Mirror]) -> None:
    feeders = {
        other.id: [one.id for one in all_ if one.feeds(other) and not one.inverts(other)] for other in all_
    }
    try:
        TopologicalSorter(feeders).prepare()
    except CycleError as error:
        *most, last = error.args[1][:-1]  # the first one once more
        named = ", ".join(f'"{name}"' for name in most)
        raise ValueError(
            f'routes {named} and "{last}" go round in a circle: each copies on what the one before it wrote. '
            "Take one out, or give it a prefix that the others do not write. (Two routes may be each other's "
            "inverse: the same two buckets, prefix and suffix, and no target_prefix.)"
        ) from None


def check_hooks(routes: Iterable[RouteSettings], stores: Stores) -> None:
    """Raise `ValueError` when hooks at one URL may be of either of two source buckets: they name the bucket,
    and not its store."""
    first: dict[tuple[str | None, str], RouteSettings] = {}
    for route in routes:
        store, _, bucket = route.source.partition(":")
        known = first.setdefault((stores[store].public_url, bucket), route)
        if _place(known.source, stores) != _place(route.source, stores):
            raise ValueError(
                f'routes "{known.id}" and "{route.id}" start from two buckets called "{bucket}", '
                "and a hook does not tell which of them it is about. Give one store a URL of its own. "
                f'Add to [stores.{store}]:  public_url = "https://hooks.example.org/webhook/{store}-..."'
            )


def _place(address: str, stores: Stores) -> str:
    store, _, bucket = address.partition(":")
    return stores[store].place(bucket)
