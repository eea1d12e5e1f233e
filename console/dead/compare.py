"""Whether a dead letter's key is in sync by now: both sides are read, and nothing is written."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.errors import HookmirrorError, RouteDown
from common.store.port import State
from worker.job import Route
from worker.mirror import target_of
from worker.plan import Foreign, Settle, Skip, Step, Why, plan

AT_ONCE = 16

PATIENCE = 16
"""So many failures of a route in a row, and it is asked no more: each may have taken many seconds."""

Key = tuple[str, str]


class Standing(StrEnum):
    """How the target stands to the source, for one key."""

    IN_SYNC = "in sync"
    DIFFERS = "differs"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """The standing, and what it rests on."""

    standing: Standing
    why: str


class Comparison:
    """Compares keys over opened `routes`; gives up on a route that answers for nothing."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._failures: Counter[str] = Counter()
        self._given_up: dict[str, str] = {}

    async def each(self, keys: Iterable[Key], done: Callable[[Key, Finding], None]) -> None:
        """Compare `keys`, AT_ONCE at a time, and tell each finding."""
        todo = iter(keys)

        async def work() -> None:
            for route, key in todo:
                done((route, key), await self.one(route, key))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    async def one(self, name: str, key: str) -> Finding:
        """Compare source and target now, as a re-check would."""
        route = self._routes.get(name)
        if route is None:
            return Finding(Standing.CANNOT_TELL, f'no route is called "{name}" in this configuration')
        if route.destination is None:
            return Finding(Standing.CANNOT_TELL, "the route has an action, and no target to compare with")
        if name in self._given_up:
            return Finding(Standing.CANNOT_TELL, self._given_up[name])
        try:
            source = await route.source.head(key)
            target = await target_of(route, key, source)
        except HookmirrorError as error:
            return self._failed(name, error)
        self._failures[name] = 0
        return _found(source, target, plan(source, target, route.rules))

    def _failed(self, name: str, error: HookmirrorError) -> Finding:
        why = f"{error.reason}: {error}"
        self._failures[name] += 1
        if isinstance(error, RouteDown) or self._failures[name] >= PATIENCE:
            self._given_up.setdefault(name, f"not asked any more, after {why}")
        return Finding(Standing.CANNOT_TELL, why)


def _found(source: State | None, target: State | None, step: Step) -> Finding:
    if isinstance(step, Foreign):
        return Finding(Standing.DIFFERS, "the target's object is a copy from another bucket")
    if isinstance(step, Settle) or step == Skip(Why.LATER_THERE):
        return Finding(Standing.DIFFERS, "the target's object is the later one: the route back brings it")
    if isinstance(step, Skip) and step.why is not Why.OWN_COPY:
        return Finding(Standing.IN_SYNC, step.why)
    if source is None:
        return Finding(Standing.DIFFERS, "the source has no such key, the target still has")
    absent = "the target has no such key" if target is None else "the target has another state"
    return Finding(Standing.DIFFERS, absent)


def by_key(letters: Iterable[tuple[str, Key]]) -> dict[Key, list[str]]:
    """Return the ids of the dead letters of each key: several may be about the same."""
    keys: defaultdict[Key, list[str]] = defaultdict(list)
    for id_, key in letters:
        keys[key].append(id_)
    return dict(keys)
