"""Which hooks the routes need, and how what a bucket has compares with it."""

from dataclasses import replace
from typing import Any

import pytest

from common.settings import Settings
from common.store.notifications import SIMPLE, Hook
from console.hooks.answer import warnings
from console.hooks.wanted import CHANGES, TAGGED, compare, covers, hook_id, needed

URL = "https://hooks.example.org/webhook/3f9c"
ALL = (*CHANGES, TAGGED)


def site(*routes: dict[str, Any], tags: str = "auto", **own: str) -> Settings:
    """A configuration with these routes. Stores `a` and `c` are one cloud; `own` are their public_urls."""
    whole = [{"target": f"b:{number}", "source": "a:from", **route} for number, route in enumerate(routes)]
    stores = {name: {"tags": tags, "public_url": own.get(name)} for name in ("a", "b", "c")}
    return Settings.model_validate({"receiver": {"public_url": URL}, "stores": stores, "routes": whole})


def need(settings: Settings) -> list[Hook]:
    return needed(settings, "a:from")


def test_each_filter_of_a_bucket_gets_a_hook_of_its_own() -> None:
    settings = site({"prefix": "in/", "suffix": ".jpg"}, {"prefix": "out/"}, {"source": "a:elsewhere"})
    first, second, _ = settings.routes
    assert need(settings) == [
        Hook(SIMPLE, hook_id(second), URL, ALL, "out/", ""),
        Hook(SIMPLE, hook_id(first), URL, ALL, "in/", ".jpg"),
    ]


def test_routes_that_one_hook_serves_are_not_told_twice() -> None:
    settings = site({"prefix": "in/a/"}, {"prefix": "in/", "deletes": "keep"}, {"prefix": "in/"})
    assert [hook.id for hook in need(settings)] == [hook_id(settings.routes[1])]


def test_tags_are_asked_for_unless_nobody_reads_them() -> None:
    assert need(site({}))[0].events == ALL
    assert need(site({}, tags="never"))[0].events == CHANGES


def test_the_id_of_a_hook_is_the_routes_and_stays() -> None:
    settings = site({"name": "photos"})
    assert hook_id(settings.routes[0]) == "hookmirror-84a6dae49cf0"


OWN = "https://hooks.example.org/webhook/of-store-a"


def test_a_store_with_a_url_of_its_own_is_told_there() -> None:
    settings = site({}, {"source": "b:elsewhere"}, a=OWN)
    assert [hook.target for hook in needed(settings, "a:from")] == [OWN]
    assert [hook.target for hook in needed(settings, "b:elsewhere")] == [URL]


def test_a_bucket_with_two_names_gets_what_the_routes_of_both_need() -> None:
    routes = (
        {"prefix": "in/"},
        {"source": "c:from", "prefix": "in/x"},
        {"source": "c:from", "prefix": "out/"},
    )
    shared = site(*routes)
    assert needed(shared, "a:from") == needed(shared, "c:from")
    assert [hook.prefix for hook in need(shared)] == ["in/", "out/"]
    split = site(*routes, c=OWN)
    told = [(hook.prefix, hook.target) for hook in needed(split, "c:from")]
    assert told == [("in/", URL), ("in/x", OWN), ("out/", OWN)]


def test_a_hook_at_the_general_url_gives_way_to_one_at_the_stores_own() -> None:
    settings = site({}, a=OWN)
    (wanted,) = need(settings)
    before, by_hand = replace(wanted, target=URL), Hook(SIMPLE, "1", URL, ALL)
    found = compare([before, by_hand], [wanted], settings=settings)
    assert (found.missing, set(found.surplus), found.others) == ((wanted,), {before, by_hand}, ())


NEED = Hook(SIMPLE, "n", URL, ALL, "in/", ".jpg")


@pytest.mark.parametrize(
    ("have", "serves"),
    [
        (NEED, True),
        (replace(NEED, id="by hand", prefix="", suffix="g"), True),
        (replace(NEED, events=("s3:*",)), True),
        (replace(NEED, events=("s3:ObjectAcl:Put", *reversed(ALL))), True),
        (replace(NEED, events=("s3:ObjectCreated:Put", *ALL[1:])), False),
        (replace(NEED, events=CHANGES), False),
        (replace(NEED, prefix="in/a"), False),
        (replace(NEED, suffix="a.jpg"), False),
        (replace(NEED, target=URL + "/"), False),
        (replace(NEED, kind="TopicConfiguration"), False),
    ],
)
def test_a_hook_serves_when_all_that_is_needed_comes(have: Hook, serves: bool) -> None:
    assert covers(have, NEED) is serves


def test_a_bucket_as_needed_has_nothing_to_change() -> None:
    settings = site({})
    other = Hook(SIMPLE, "1", "http://other", ALL)
    found = compare([other, *need(settings)], need(settings), settings=settings)
    assert found.as_needed
    assert (found.serving, found.others) == (tuple(need(settings)), (other,))


def test_ours_are_those_with_the_id_and_those_to_the_url_and_no_others() -> None:
    settings = site({})
    (wanted,) = need(settings)
    moved = replace(wanted, target="https://old/hook")
    by_hand = Hook(SIMPLE, "1", URL, CHANGES)
    others = (
        Hook(SIMPLE, "hookmirror-0123456789ab", "https://another/installation", ALL),
        Hook("TopicConfiguration", wanted.id, URL, ALL),
    )
    found = compare([by_hand, *others, moved], [wanted], settings=settings)
    assert (found.missing, set(found.surplus), found.others) == ((wanted,), {by_hand, moved}, others)


def test_of_two_that_serve_the_same_the_one_by_hand_goes() -> None:
    settings = site({})
    (wanted,) = need(settings)
    by_hand = replace(wanted, id="1")
    found = compare([by_hand, wanted], [wanted], settings=settings)
    assert (found.serving, found.surplus) == ((wanted,), (by_hand,))
    assert compare([by_hand], [wanted], settings=settings).as_needed


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("https://h/x", False),
        ("http://h/x", False),
        ("https://h:80/x", False),
        ("http://h:8080/x", True),
        ("http://[::1]:443/x", False),
    ],
)
def test_a_port_that_mcs_does_not_call_is_warned_of(url: str, warned: bool) -> None:
    assert bool(warnings(url)) is warned
    assert warnings(url, from_mcs=False) == []
