"""The names of lanes, for any id of a route."""

from hypothesis import given
from hypothesis import strategies as st
from pamqp.constants import DOMAIN_REGEX

from common.queue.port import Kind, Lane
from common.queue.topology import LONGEST_ID, dead_queue, lane_of, lane_queue, register

kinds = st.sampled_from(list(Kind))
routes = st.text(st.characters(exclude_categories=["Cs"]))


@given(routes, kinds)
def test_any_id_makes_a_name_that_amqp_takes(route: str, kind: Kind) -> None:
    name = lane_queue(Lane(route, kind))
    assert DOMAIN_REGEX["queue-name"].fullmatch(name)
    assert len(name.encode()) <= 255
    assert name not in {dead_queue(), register()}


@given(routes, routes, kinds, kinds)
def test_no_two_lanes_have_one_name(one: str, other: str, kind: Kind, another: Kind) -> None:
    lanes = Lane(one, kind), Lane(other, another)
    assert (lane_queue(lanes[0]) == lane_queue(lanes[1])) == (lanes[0] == lanes[1])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_ID // 12), kinds)
def test_the_name_tells_the_lane(route: str, kind: Kind) -> None:
    assert lane_of(lane_queue(Lane(route, kind))) == Lane(route, kind)


def test_a_long_id_is_cut_and_its_route_not_guessed() -> None:
    one, other = Lane("x" * 1000), Lane("x" * 999 + "y")
    assert lane_queue(one) != lane_queue(other)
    assert lane_of(lane_queue(one)) == Lane("")


def test_ids_as_people_write_them_stay_readable() -> None:
    assert lane_queue(Lane("mcs:photos -> aws:backup")) == "hookmirror.live.mcs:photos -#3E aws:backup"
    assert lane_queue(Lane("")) == "hookmirror.live"


@given(routes, kinds)
def test_a_lane_is_read_back_from_its_name(route: str, kind: Kind) -> None:
    assert Lane.named(Lane(route, kind).name) == Lane(route, kind)


def test_what_is_no_name_is_nobodys() -> None:
    assert Lane.named("something") == Lane("")
