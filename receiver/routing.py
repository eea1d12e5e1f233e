"""Which routes an event is for: pure, from event and routes to tasks."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from common.errors import Unreadable
from common.routes import RouteSettings, StackRouteSettings
from common.tables import StoreSettings
from common.task import Stack, Task
from receiver.dialects.s3 import MAX_KEY, Event, keys


class Routing:
    """The routes, by the bucket they start from."""

    def __init__(self, routes: Sequence[RouteSettings], stores: Mapping[str, StoreSettings]) -> None:
        self._by_bucket: dict[str, list[tuple[RouteSettings, str]]] = {}
        for route in routes:
            store, _, bucket = route.source.partition(":")
            self._by_bucket.setdefault(bucket, []).append((route, stores[store].key_encoding))

    def knows(self, bucket: str) -> bool:
        """Whether any route starts from `bucket`."""
        return bucket in self._by_bucket

    def tasks(self, event: Event, received: float) -> list[Task]:
        """Return a task for each route whose bucket, prefix and suffix fit, and each key it may mean. Raises
        `Unreadable` for what can be no key."""
        routes = self._by_bucket.get(event.bucket, ())
        readings = {encoding: keys(event.key, encoding) for _, encoding in routes}
        if not all(readings.values()):
            raise Unreadable(f"s3.object.key has a NUL, or more than {MAX_KEY} bytes: no store can hold it")
        return [
            Task(
                route=route.id,
                key=key,
                claim=event.claim,
                etag=event.etag,
                size=event.size,
                event=event.name,
                received=received,
            )
            for route, encoding in routes
            for key in readings[encoding]
            if key.startswith(route.prefix) and key.endswith(route.suffix)
        ]


class StackRouting:
    """The stack routes, by the patterns of names and statuses that they take."""

    def __init__(self, routes: Sequence[StackRouteSettings]) -> None:
        self._routes = tuple(routes)

    def knows(self, name: str) -> bool:
        """Whether a stack of this name fits any route, whatever its status."""
        return any(fnmatchcase(name, route.stack) for route in self._routes)

    def tasks(self, stack: Stack, received: float) -> list[Task]:
        """Return a task for each route that the stack's name and status fit."""
        return [
            Task(route=route.id, key=stack.name, event=stack.status, received=received, stack=stack)
            for route in self._routes
            if fnmatchcase(stack.name, route.stack)
            and any(fnmatchcase(stack.status, pattern) for pattern in route.status)
        ]
