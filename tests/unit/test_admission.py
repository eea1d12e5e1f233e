"""Who is let in: the walk through X-Forwarded-For, networks, tokens, the path; with a clock of our own."""

import random
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest, NoSuchPath, NotAllowed, TooMany
from common.tables import ReceiverSettings
from receiver import admission
from receiver.admission import Admission, Call, Door, Rate, bucket, find_caller, parse_address, same

PROXIES = tuple(ip_network(text) for text in ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8"))
URL = "https://hooks.example.org/webhook/3f9c0a7b5d1e42"
ADDRESSES = st.ip_addresses().map(str)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def call(peer: str = "203.0.113.9", *forwarded: str, path: str = "/webhook/3f9c0a7b5d1e42") -> Call:
    return Call(peer, list(forwarded), "POST", path)


def admitting(clock: Clock | None = None, *, more: Iterable[str] = (), **settings: object) -> Admission:
    receiver = ReceiverSettings.model_validate({"public_url": URL} | settings)
    return Admission(receiver, clock or Clock(), [receiver.path, *more])


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # whoever is no proxy of ours is not believed
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # what stands left of it is the caller's
        ("10.1.2.3", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["198.51.100.1", "192.0.2.7"], "198.51.100.1"),
        ("10.1.2.3", ["1.1.1.1, 198.51.100.1, 192.0.2.7, 10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["10.4.4.4, 10.5.5.5"], "10.4.4.4"),
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("::ffff:10.1.2.3", ["2001:db8::5"], "2001:db8::5"),
        ("10.1.2.3", ["198.51.100.1, unknown"], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("", ["198.51.100.1"], None),
        ("a socket's path", [], None),
    ],
)
def test_the_caller_is_the_first_from_the_right_who_is_no_trusted_proxy(
    peer: str, forwarded: list[str], caller: str | None
) -> None:
    assert find_caller(peer, forwarded, PROXIES) == (ip_address(caller) if caller else None)


@given(claimed=st.lists(ADDRESSES | st.text()), caller=ADDRESSES, hops=st.integers(0, 3))
def test_no_invention_of_a_caller_changes_who_he_is(claimed: list[str], caller: str, hops: int) -> None:
    address = parse_address(caller)
    assert address is not None
    if any(address in network for network in PROXIES):
        return
    behind = ["10.0.0.1"] * hops
    assert find_caller("10.1.2.3", [*claimed, ", ".join([caller, *behind])], PROXIES) == address


@given(st.text())
def test_no_text_breaks_the_reading_of_an_address(text: str) -> None:
    address = parse_address(text)
    assert address is None or parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [("185.6.245.1", 1), ("185.6.246.1", 0), ("2001:db8::1", 1), ("2001:db9::1", 0), ("?", 0)],
)
def test_only_the_allowed_networks_may_call(caller: str, allowed: int) -> None:
    door = admitting(allowed_networks=["185.6.245.0/24", "2001:db8::/32"], trusted_proxies=["127.0.0.1"])
    for one in (call(caller), call("127.0.0.1", caller)):
        if allowed:
            door.admit(one)
        else:
            with pytest.raises(NotAllowed):
                door.admit(one)
    with pytest.raises(NotAllowed):
        door.admit(call("203.0.113.9", "185.6.245.1"))


@pytest.mark.parametrize(
    "path",
    ["/", "", "/webhook", "/webhook/", "/webhook/3f9c0a7b5d1e4", "/webhook/3f9c0a7b5d1e42/",
     "/webhook/3F9C0A7B5D1E42", "/webhook/3f9c0a7b5d1e42\0", "/é", "/\udcff"],
)  # fmt: skip
def test_another_path_is_not_found_and_a_stranger_does_not_learn_which_was_right(path: str) -> None:
    with pytest.raises(NoSuchPath):
        admitting().admit(call(path=path))
    with pytest.raises(NotAllowed):
        admitting(allowed_networks=["10.0.0.0/8"]).admit(call(path=path))


def test_another_method_gets_what_another_path_gets() -> None:
    with pytest.raises(NoSuchPath):
        admitting().admit(Call("203.0.113.9", [], "GET", "/webhook/3f9c0a7b5d1e42"))


STACKS: dict[str, Any] = {"stack_url": "https://x.org/stacks/77d1b0a9c3e8f642"}


@pytest.mark.parametrize(
    ("method", "path", "door"),
    [
        ("POST", "/webhook/3f9c0a7b5d1e42", Door.HOOKS),
        ("POST", "/stacks/77d1b0a9c3e8f642", Door.STACKS),
        ("GET", "/stacks/77d1b0a9c3e8f642", Door.STACKS_SEEN),
        ("HEAD", "/stacks/77d1b0a9c3e8f642", Door.STACKS_SEEN),
        ("GET", "/", Door.FRONT),
        ("HEAD", "/", Door.FRONT),
        ("POST", "/", None),
        ("PUT", "/stacks/77d1b0a9c3e8f642", None),
        ("OPTIONS", "/", None),
        ("GET", "/webhook/3f9c0a7b5d1e42", None),
        ("GET", "/stacks/77d1b0a9c3e8f643", None),
        ("POST", "/stacks/", None),
    ],
)
def test_each_path_and_method_has_its_door(method: str, path: str, door: Door | None) -> None:
    one = Call("203.0.113.9", [], method, path)
    if door:
        assert admitting(**STACKS).admit(one).door is door
    else:
        with pytest.raises(NoSuchPath):
            admitting(**STACKS).admit(one)
    with pytest.raises(NotAllowed):
        admitting(allowed_networks=["10.0.0.0/8"], **STACKS).admit(one)


def test_a_path_that_is_a_slash_is_no_front_door() -> None:
    asked = Call("203.0.113.9", [], "GET", "/")
    with pytest.raises(NoSuchPath):
        admitting(public_url="https://x.org").admit(asked)
    assert admitting(stack_url="https://x.org").admit(asked).door is Door.STACKS_SEEN


OWN = "/webhook/caf%C3%A9-of-a-store"


def test_a_path_of_a_stores_own_is_a_door_for_hooks() -> None:
    own = "/webhook/café-of-a-store"
    assert admitting(more=[OWN]).admit(call(path=own)).door is Door.HOOKS
    for door, method in ((admitting(), "POST"), (admitting(more=[OWN]), "GET")):
        with pytest.raises(NoSuchPath):
            door.admit(Call("203.0.113.9", [], method, own))
    with pytest.raises(NoSuchPath):
        admitting(more=["/"]).admit(Call("203.0.113.9", [], "GET", "/"))


def test_all_paths_are_compared_whichever_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def noted(path: str, secret: str) -> bool:
        compared.append(secret)
        return same(path, secret)

    monkeypatch.setattr(admission, "same", noted)
    for about, more in ((STACKS, ()), ({}, ()), (STACKS, (OWN, "/"))):
        door = admitting(more=more, **about)
        for path in ("/webhook/3f9c0a7b5d1e42", "/stacks/77d1b0a9c3e8f642", "/"):
            with suppress(NoSuchPath):
                door.admit(call(path=path))
            assert len(compared) == 2 + len(more)
            compared.clear()


def test_the_path_is_compared_as_it_is_decoded() -> None:
    admitting(public_url="https://x.org/caf%C3%A9%20x").admit(call(path="/café x"))
    assert not same("/caf%C3%A9%20x", "/café x")


def test_an_address_that_asks_too_much_is_refused_and_the_others_are_not() -> None:
    clock = Clock()
    door = admitting(clock, requests_per_second=2, burst=3)
    for _ in range(3):
        door.admit(call("198.51.100.1"))
    with pytest.raises(TooMany):
        door.admit(call("198.51.100.1"))
    door.admit(call("198.51.100.2"))
    clock.now += 0.5
    door.admit(call("198.51.100.1"))
    with pytest.raises(TooMany):
        door.admit(call("198.51.100.1"))
    clock.now += 3600
    for _ in range(3):
        door.admit(call("198.51.100.1"))
    with pytest.raises(TooMany):
        door.admit(call("198.51.100.1"))


def test_who_guesses_paths_uses_up_his_requests() -> None:
    door = admitting(requests_per_second=1, burst=2)
    for _ in range(2):
        with pytest.raises(NoSuchPath):
            door.admit(call(path="/guess"))
    with pytest.raises(TooMany):
        door.admit(call(path="/guess"))


def test_over_a_long_time_an_address_gets_its_rate_and_one_burst() -> None:
    clock, rng = Clock(), random.Random(1)
    rate = Rate(50, 20, clock)
    taken = 0
    for _ in range(20_000):
        taken += rate.take("a")
        clock.now += rng.random() * 0.005
    assert taken == pytest.approx(20 + (clock.now - 100) * 50, abs=2)


def test_the_memory_for_addresses_is_bounded_and_the_busy_are_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MAX_ADDRESSES", 10)
    rate = Rate(1, 2, Clock())
    assert [rate.take("busy"), rate.take("busy"), rate.take("busy")] == [True, True, False]
    for number in range(1000):
        assert rate.take(f"{number}")
        assert not rate.take("busy")
    assert len(rate) == 10


def test_an_ipv6_caller_is_counted_by_his_network() -> None:
    names = [
        bucket(parse_address(text)) for text in ("2001:db8:1:2::1", "2001:db8:1:2:f::", "2001:db8:1:3::1")
    ]
    assert names == ["2001:db8:1:2::/64", "2001:db8:1:2::/64", "2001:db8:1:3::/64"]
    assert bucket(parse_address("::ffff:198.51.100.1")) == "198.51.100.1"


def test_every_refusal_has_a_short_constant_answer() -> None:
    kinds = BadRequest.__subclasses__()
    assert len({kind.answer for kind in kinds}) == len(kinds)
    assert all(0 < len(kind.answer) < 40 and 400 <= kind.status < 500 for kind in kinds)
