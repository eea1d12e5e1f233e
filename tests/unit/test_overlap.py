"""Which routes may be in one configuration: by the places of buckets and the keys, not by names."""

from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from common.overlap import Space
from common.settings import Settings

STORES: dict[str, Any] = {
    "mcs": {"endpoint": "https://hb.ru-msk.vkcloud-storage.ru"},
    "old": {"endpoint": "http://HB.bizmrg.com:80/"},  # the same cloud
    "aws": {},
    "ceph": {"endpoint": "http://localhost:8000"},
    "rgw": {"endpoint": "http://[::1]:8000/"},  # the same gateway
}


def route(arrow: str, **keys: str) -> dict[str, str]:
    """A route "store:bucket -> store:bucket", with the arrow as its name."""
    source, target = arrow.split(" -> ")
    return {"name": arrow, "source": source, "target": target, **keys}


def settings(*routes: dict[str, str], stores: dict[str, Any] = STORES) -> Settings:
    return Settings.model_validate({"stores": stores, "routes": routes})


def complaint(*routes: dict[str, str], stores: dict[str, Any] = STORES) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(*routes, stores=stores)
    [error] = caught.value.errors()
    return str(error["msg"]).removeprefix("Value error, ")


WORDS = ["", "a", "b", "aa", "ab", "ba"]
KEYS = ["".join(letters) for length in range(6) for letters in product("ab", repeat=length)]


def test_two_spaces_overlap_exactly_when_there_is_a_key_in_both() -> None:
    spaces = [Space("p", prefix, suffix) for prefix in WORDS for suffix in WORDS]
    keys = {
        space: {key for key in KEYS if key.startswith(space.prefix) and key.endswith(space.suffix)}
        for space in spaces
    }
    for one, other in product(spaces, spaces):
        assert one.overlaps(other) is bool(keys[one] & keys[other]), (one, other)
    assert not Space("p", "", "").overlaps(Space("q", "", ""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (route("mcs:a -> aws:t"), route("mcs:c -> aws:t")),
        (route("mcs:a -> aws:t"), route("aws:c -> aws:t", prefix="in/")),
        (route("mcs:a -> aws:t", suffix=".jpg"), route("mcs:c -> aws:t", suffix="g")),
        (route("mcs:a -> aws:t", suffix=".jpg"), route("mcs:c -> aws:t", prefix="in/")),
        (route("mcs:a -> aws:t", target_prefix="x/"), route("mcs:c -> aws:t", prefix="x/y")),
        (
            route("mcs:a -> aws:t", target_prefix="x/", prefix="y"),
            route("mcs:c -> aws:t", target_prefix="x/"),
        ),
        (route("aws:a -> mcs:t"), route("aws:c -> old:t")),
        (route("mcs:a -> ceph:t"), route("mcs:c -> rgw:t")),
        ({**route("mcs:a -> aws:t"), "name": "one"}, {**route("mcs:a -> aws:t"), "name": "two"}),
        (route("mcs:a -> aws:t", deletes="keep"), route("mcs:c -> aws:t", deletes="keep")),
    ],
)
def test_two_routes_that_write_the_same_keys_are_refused_by_name(
    one: dict[str, str], other: dict[str, str]
) -> None:
    said = complaint(one, other)
    assert said.startswith(f'routes "{one["name"]}" and "{other["name"]}" write the same keys')
    assert "target_prefix =" in said


@pytest.mark.parametrize(
    "routes",
    [
        [route("mcs:a -> aws:t"), route("mcs:b -> aws:u")],
        [route("mcs:a -> aws:t"), route("mcs:b -> mcs:t")],
        [route("mcs:a -> aws:t", target_prefix="a/"), route("mcs:b -> aws:t", target_prefix="b/")],
        [route("mcs:a -> aws:t", suffix=".jpg"), route("mcs:b -> aws:t", suffix=".png")],
        [route("mcs:a -> aws:t", prefix="x/"), route("mcs:b -> aws:t", target_prefix="z/", prefix="x/")],
        [route("mcs:a -> aws:t"), {"source": "mcs:a", "exec": "x.sh"}, {"source": "aws:t", "exec": "x.sh"}],
        [route("mcs:a -> aws:b"), route("aws:b -> ceph:c"), route("aws:b -> ceph:d")],
        [route("mcs:a -> aws:b"), route("aws:b -> mcs:a2"), route("mcs:a2 -> ceph:c")],
        [route("mcs:a -> aws:b", prefix="x/"), route("aws:b -> mcs:a", prefix="y/")],
        [route("mcs:a -> aws:b", prefix="x/"), route("aws:b -> mcs:a", target_prefix="y/")],
        [route("mcs:a -> aws:b", suffix=".jpg"), route("aws:b -> mcs:a", suffix=".png")],
    ],
)
def test_routes_that_meet_on_no_key_and_chains_are_fine(routes: list[dict[str, str]]) -> None:
    assert settings(*routes).two_ways() == {}


@pytest.mark.parametrize(
    "one",
    [
        route("mcs:a -> mcs:a"),
        route("mcs:a -> mcs:a", target_prefix="copy/"),
        route("mcs:a -> old:a", target_prefix="copy/"),
        route("rgw:a -> ceph:a", prefix="in/", target_prefix="out/"),
    ],
)
def test_a_route_onto_its_own_source_is_refused_under_whatever_name(one: dict[str, str]) -> None:
    said = complaint(one)
    assert said.startswith(f'route "{one["name"]}": source and target are the same bucket')
    assert "Name another target" in said


CIRCLES = [
    [route("mcs:a -> aws:b", target_prefix="x/"), route("aws:b -> mcs:a")],
    [route("mcs:a -> aws:b"), route("aws:b -> mcs:a", target_prefix="x/")],
    [route("mcs:a -> aws:b", target_prefix="x/"), route("aws:b -> mcs:a", prefix="x/")],
    [route("mcs:a -> aws:b"), route("aws:b -> mcs:a", prefix="in/")],
    [route("mcs:a -> aws:b", suffix=".jpg"), route("aws:b -> mcs:a")],
    [route("mcs:a -> aws:b", suffix=".jpg"), route("aws:b -> mcs:a", prefix="in/")],
    [route("mcs:a -> aws:b"), route("aws:b -> ceph:c"), route("ceph:c -> mcs:a")],
    [route("mcs:a -> aws:b"), route("aws:b -> ceph:c"), route("rgw:c -> old:a")],
    [
        route("mcs:a -> aws:b", prefix="x/"),
        route("aws:b -> ceph:c"),
        route("ceph:c -> aws:d", suffix="g"),
        route("aws:d -> old:a", prefix="x/y/"),
    ],
]


@pytest.mark.parametrize("circle", CIRCLES)
def test_a_circle_is_refused_and_its_routes_are_named_in_order(circle: list[dict[str, str]]) -> None:
    names = [one["name"] for one in circle]
    aside = route("ceph:in -> ceph:out")
    for routes in (circle, [*reversed(circle), aside], [aside, *circle]):
        said = complaint(*routes)
        turns = [names[start:] + names[:start] for start in range(len(names))]
        orders = [", ".join(f'"{name}"' for name in turn[:-1]) + f' and "{turn[-1]}"' for turn in turns]
        assert any(said.startswith(f"routes {order} go round in a circle") for order in orders), said
        assert "Take one out" in said


@pytest.mark.parametrize("filters", [{}, {"prefix": "in/", "suffix": ".jpg"}])
@pytest.mark.parametrize("back", ["aws:b -> mcs:a", "aws:b -> old:a"])
def test_two_routes_that_are_inverse_to_each_other_are_two_ways(back: str, filters: dict[str, str]) -> None:
    there, again = route("mcs:a -> aws:b", **filters), route(back, **filters)
    more = [route("aws:b -> ceph:c"), {"source": "mcs:a", "exec": "x.sh"}]
    found = settings(there, *more, again).two_ways()
    assert found == {there["name"]: again["name"], again["name"]: there["name"]}


def test_a_circle_beside_two_ways_is_found() -> None:
    two_ways = [route("mcs:a -> aws:b", prefix="x/"), route("aws:b -> mcs:a", prefix="x/")]
    said = complaint(
        *two_ways,
        route("aws:b -> ceph:c", target_prefix="y/"),
        route("ceph:c -> aws:b", target_prefix="z/"),
    )
    assert "go round in a circle" in said
    assert "mcs:a" not in said


def test_a_third_side_of_two_ways_is_refused() -> None:
    said = complaint(
        route("mcs:a -> aws:b"), route("aws:b -> mcs:a"), route("aws:b -> ceph:c"), route("ceph:c -> aws:b")
    )
    assert said.startswith('routes "mcs:a -> aws:b" and "ceph:c -> aws:b" write the same keys of aws:b')


ACTION = {"name": "runs", "source": "ceph:a", "exec": "x.sh"}


@pytest.mark.parametrize("other", [route("ceph:a -> aws:u", prefix="q/"), ACTION])
def test_buckets_of_one_name_in_two_stores_need_a_url_each(other: dict[str, str]) -> None:
    said = complaint(route("mcs:a -> aws:t", prefix="p/"), other)
    assert said.startswith(f'routes "mcs:a -> aws:t" and "{other["name"]}" start from two buckets called "a"')
    assert 'Add to [stores.ceph]:  public_url = "https://' in said
    url = {"public_url": "https://hooks.example.org/webhook/of-ceph"}
    for store in ("mcs", "ceph"):
        own = STORES | {store: STORES[store] | url}
        assert len(settings(route("mcs:a -> aws:t", prefix="p/"), other, stores=own).routes) == 2


def test_two_names_of_one_bucket_share_a_url() -> None:
    assert len(settings(route("mcs:a -> aws:t"), route("old:a -> aws:u")).routes) == 2


def test_a_third_bucket_of_the_name_is_refused_beside_one_with_a_url() -> None:
    own = STORES | {"ceph": STORES["ceph"] | {"public_url": "https://hooks.example.org/webhook/of-ceph"}}
    said = complaint(route("mcs:a -> aws:t"), route("ceph:a -> aws:u"), route("rgw:a -> aws:v"), stores=own)
    assert 'routes "mcs:a -> aws:t" and "rgw:a -> aws:v" start from' in said
