"""What was found out about buckets that tell of one state of an object in several ways.

As with all that is found out here, it is lost with the process, and found out once more."""

from collections.abc import Iterable

from common.remembered import Remembered
from common.store.port import State

OFTEN = 3
"""So often described anew with the same bytes and tags, a copy is of a source that changes its words."""


class Faces:
    """Buckets by their `place`."""

    def __init__(self) -> None:
        self._by_head: set[str] = set()
        self._loose: set[str] = set()
        self._restated: Remembered[tuple[tuple[str, ...], int]] = Remembered()
        """Of which bytes and tags a copy was described anew last, and how often."""

    def heads_first(self, place: str) -> bool:
        """Whether GET describes an object otherwise than HEAD does: there HEAD is believed."""
        return place in self._by_head

    def is_loose(self, places: Iterable[str]) -> bool:
        """Whether one of them describes one state otherwise from one HEAD to the next, as several gateways
        may: there a copy is known by its bytes and their date."""
        return not self._loose.isdisjoint(places)

    def differs(self, place: str, *, again: bool) -> None:
        """HEAD told of what was just read otherwise, or did so `again` after HEAD was asked first."""
        (self._loose if again else self._by_head).add(place)

    def restated(self, place: str, source: State) -> None:
        """A copy of `source` was described anew. No store changes headers or metadata without the date: who
        seems to do it again and again describes one state in several ways."""
        key, seen = (place, source.key), (source.etag, source.last_modified, source.tags)
        before, count = self._restated.get(key) or (seen, 0)
        count = count + 1 if before == seen else 1
        self._restated.put(key, (seen, count))
        if count >= OFTEN:
            self._loose.add(place)
