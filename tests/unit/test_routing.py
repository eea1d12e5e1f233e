"""From event and routes to tasks."""

import pytest

from common.routes import RouteSettings
from common.tables import StoreSettings
from common.task import Claim, Task
from receiver.dialects.s3 import Event
from receiver.routing import Routing

STORES = {
    "raw": StoreSettings(key_encoding="raw"),
    "url": StoreSettings(key_encoding="url"),
    "auto": StoreSettings(),
    "aws": StoreSettings(),
}


def route(source: str = "raw:photos", **more: str) -> RouteSettings:
    return RouteSettings.model_validate({"source": source, "target": "aws:backup", **more})


def created(key: str, bucket: str = "photos") -> Event:
    return Event("s3:ObjectCreated:Put", bucket, key, Claim.CREATED, "etag")


def routed(event: Event, *routes: RouteSettings) -> list[tuple[str, str]]:
    return [(task.route, task.key) for task in Routing(routes, STORES).tasks(event, 0.0)]


def test_a_task_carries_what_the_event_said_and_when_it_came() -> None:
    [task] = Routing([route(name="photos")], STORES).tasks(created("a.jpg"), 1700000000.5)
    assert task == Task(
        id=task.id,
        route="photos",
        key="a.jpg",
        claim=Claim.CREATED,
        etag="etag",
        event="s3:ObjectCreated:Put",
        received=1700000000.5,
    )


def test_two_tasks_never_share_an_id() -> None:
    routing = Routing([route(name="one"), route(name="two")], STORES)
    ids = [task.id for _ in range(3) for task in routing.tasks(created("k"), 0.0)]
    assert len(set(ids)) == 6


def test_every_route_of_the_bucket_gets_its_own_task() -> None:
    routes = [route(name="one"), route(name="two"), route("raw:other", name="three")]
    assert routed(created("k"), *routes) == [("one", "k"), ("two", "k")]


def test_a_bucket_that_no_route_names_gets_nothing_and_is_not_known() -> None:
    routing = Routing([route()], STORES)
    assert routing.knows("photos")
    assert not routing.knows("Photos")
    assert not routing.knows("")
    assert routing.tasks(created("k", "strangers"), 0.0) == []


@pytest.mark.parametrize(
    ("prefix", "suffix", "key", "fits"),
    [
        ("", "", "anything", True),
        ("in/", "", "in/a", True),
        ("in/", "", "in/", True),
        ("in/", "", "in", False),
        ("in/", "", "IN/a", False),
        ("in/", "", "/in/a", False),
        ("", ".jpg", "a.jpg", True),
        ("", ".jpg", "a.JPG", False),
        ("", ".jpg", "a.jpg/", False),
        ("in/", ".jpg", "in/a.jpg", True),
        ("in/", ".jpg", "out/a.jpg", False),
        ("in/", ".jpg", "in/a.png", False),
        ("é", "", "e\u0301", False),  # NFC and NFD are different keys
        ("[a-z]", "", "a", False),  # a prefix is text, no pattern
    ],
)
def test_prefix_and_suffix_are_compared_as_text(prefix: str, suffix: str, key: str, fits: bool) -> None:
    assert bool(routed(created(key), route(prefix=prefix, suffix=suffix))) is fits


@pytest.mark.parametrize(
    ("store", "keys"), [("raw", ["a+%2B"]), ("url", ["a +"]), ("auto", ["a+%2B", "a +"])]
)
def test_the_key_is_read_as_its_store_writes_it(store: str, keys: list[str]) -> None:
    found = routed(created("a+%2B"), route(f"{store}:photos", name="r"))
    assert found == [("r", key) for key in keys]


def test_prefix_and_suffix_apply_to_each_reading_of_the_key() -> None:
    assert routed(created("in%2Fa"), route("auto:photos", name="r", prefix="in/")) == [("r", "in/a")]


def test_one_bucket_name_in_two_stores_is_read_as_each_of_them_writes_it() -> None:
    routes = [route("raw:photos", name="one"), route("url:photos", name="two")]
    assert routed(created("a+b"), *routes) == [("one", "a+b"), ("two", "a b")]
