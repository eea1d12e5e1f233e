"""Who may call: the secret path, allowed networks behind trusted proxies, requests a second by address."""

import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote

from common.errors import NoSuchPath, NotAllowed, TooMany
from common.tables import ReceiverSettings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_ADDRESSES = 10_000
"""Addresses that are remembered; then those that have been quiet for longest are forgotten."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a request before its body: `peer` is the other end of the connection, `forwarded`
    the values of X-Forwarded-For, in their order, `path` decoded."""

    peer: str
    forwarded: list[str]
    method: str
    path: str


class Door(Enum):
    """Where a call is let in: hooks, notifications of stacks, and who only looks whether somebody is there,
    at the address of the notifications or at `/`."""

    HOOKS = auto()
    STACKS = auto()
    STACKS_SEEN = auto()
    FRONT = auto()


LOOKING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Visit:
    """Who is let in, and where: `caller` is his address, and `account` what it is counted under."""

    door: Door
    caller: str
    account: str


class Admission:
    """Says whether a call is let in. `clock` gives seconds that never go back, `paths` are those of hooks."""

    def __init__(self, settings: ReceiverSettings, clock: Callable[[], float], paths: Iterable[str]) -> None:
        self._paths = tuple(map(unquote, paths))
        self._stack_path = unquote(settings.stack_path) if settings.stack_path else None
        self._allowed = settings.allowed_networks
        self._proxies = settings.trusted_proxies
        self._rate = Rate(settings.requests_per_second, settings.burst, clock)

    def admit(self, call: Call) -> Visit:
        """Return who calls, and by which door he may go on. Raises `NotAllowed`, `TooMany` or `NoSuchPath`.

        The path comes last: to whom it is not open it shall not tell whether it was the right one.
        """
        caller = find_caller(call.peer, call.forwarded, self._proxies)
        if self._allowed and not (caller and _within(caller, self._allowed)):
            raise NotAllowed(f"{caller or call.peer} is in none of receiver.allowed_networks")
        account = bucket(caller)
        if not self._rate.take(account):
            raise TooMany(f"{caller or call.peer} has sent more than receiver.requests_per_second")
        door = self._find(call)
        if door is None:
            raise NoSuchPath(f"{caller or call.peer} called what is no path of the receiver's")
        return Visit(door, str(caller or call.peer), account)

    def _find(self, call: Call) -> Door | None:
        # All are compared, whatever the first one says: the time shall not tell how far it came.
        hooks = sum(same(call.path, path) for path in self._paths) > 0
        stacks = same(call.path, self._stack_path or "/") and self._stack_path is not None
        if call.method == "POST":
            return Door.HOOKS if hooks else Door.STACKS if stacks else None
        if call.method not in LOOKING or hooks:
            return None
        return Door.STACKS_SEEN if stacks else Door.FRONT if call.path == "/" else None


class Rate:
    """A bucket of tokens for each name: `per_second` flow in, `burst` fit. In bounded memory."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, name: str, count: int = 1) -> bool:
        """Take `count` tokens of `name`; return whether there were so many."""
        now = self._clock()
        tokens, then = self._left.pop(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        taken = tokens >= count
        self._left[name] = (tokens - count if taken else tokens, now)
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return taken

    def give(self, name: str, count: int = 1) -> None:
        """Give back tokens that were taken in vain."""
        if name in self._left:
            tokens, then = self._left[name]
            self._left[name] = (tokens + count, then)


def same(path: str, secret: str) -> bool:
    """Whether both are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(path.encode("utf-8", "surrogatepass"), secret.encode())


def find_caller(peer: str, forwarded: Iterable[str], proxies: Iterable[Network]) -> Address | None:
    """Return who called: the first address, from the right, that is no trusted proxy.

    Each trusted proxy vouches for what it has added at the right end of X-Forwarded-For, and for nothing
    else: what stands further left may be the caller's own invention. What is no address ends the walk at
    the proxy that passed it on. None when not even the peer has an address.
    """
    networks = tuple(proxies)
    caller = parse_address(peer)
    hops = ",".join(forwarded).split(",") if networks else []
    while caller and hops and _within(caller, networks):
        before = parse_address(hops.pop())
        if before is None:
            break
        caller = before
    return caller


def parse_address(text: str) -> Address | None:
    """Return the address in `text`, which may have a port, as some proxies write it; None for no address.
    An IPv4 address inside an IPv6 one is the IPv4 address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def bucket(caller: Address | None) -> str:
    """Return under what name a caller's requests are counted: his address, of IPv6 his network, for one
    caller has 2^64 of those."""
    if isinstance(caller, IPv6Address):
        return str(ip_network((caller.packed[:8] + bytes(8), 64)))
    return str(caller)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
