"""How a request travels: signed, paced, perhaps by a proxy, tried for seconds; and how its answer is read."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from common.errors import ConfigError, Corrupt, NotSupported, Refused, RouteDown, StoreAway, TryAgain
from common.proxies import proxy_for
from common.retry_after import wait_asked
from common.store.answer import Broken, Response
from common.store.aws import Account
from common.store.failures import UNREACHABLE, elsewhere, translate, wrong_region
from common.store.headers import condition
from common.store.http import SILENCE, Client, Unreached, Way
from common.store.mark import written_at
from common.store.pace import Pace
from common.store.place import place
from common.store.port import State, Stream
from common.store.topics import topics_of
from common.tables import StoreSettings

PAUSES = (0.2, 1.0)
"""Seconds between the tries of one request; a task that still fails waits for its next attempt."""

WORKS_WITHIN = 240.0
"""Seconds for a store to join the parts of an object, or to copy one onto itself."""

MAX_ANSWER = 2**20
"""Bytes of an answer that is no object: more is not read."""

_NONE: Mapping[str, str] = MappingProxyType({})


def open_client(name: str, settings: StoreSettings) -> Client:
    """Return a client for the store `name`. Raises `ConfigError` for a `ca_bundle` that is none."""
    if settings.ca_bundle is None:
        return Client()
    try:
        return Client(ssl.create_default_context(cafile=settings.ca_bundle))
    except OSError as error:
        raise ConfigError(
            f"stores.{name}.ca_bundle: {settings.ca_bundle}: {error}. Name a file of PEM certificates."
        ) from error


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; of a long one the beginning. `unsure`: should it be a failure, what was asked for may
    happen all the same."""

    method: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    unsure: bool = False


class Wire:
    """One bucket's way to send requests."""

    def __init__(self, name: str, account: Account, client: Client, pace: Pace) -> None:
        self.name = name
        self._account = account
        self._client = client
        self._pace = pace
        base = account.address(name)
        self._way = Way.to(base, proxy_for(base))
        self._prefix = urlsplit(base).path
        self.place = place(account.endpoint, name)
        self._quotes = True  # around the ETag in a condition of a write
        self._dated = ("", 0.0)  # the Date of the last answer, and when it came
        self._hand: str | None = None
        """The header that every answer of this store has, once one is known to be the store's."""

    def now(self) -> float:
        """See the port."""
        date, came = self._dated
        at = written_at(date)
        return at + time.time() - came if at else 0.0

    async def topics(self) -> dict[str, str] | None:
        """Return the URL that each topic of the store calls; None where it keeps none itself."""
        return await topics_of(self._account, self._client)

    def _failure(self, answer: Answer, what: str = "") -> TryAgain | Refused:
        """Return the error that an answer means which is no success."""
        status, headers, body = answer.status, answer.headers, answer.body
        error: TryAgain | Refused = translate(
            status,
            body,
            doing=f"{answer.method} {what}{self.name}",
            retry_after=wait_asked(headers.get("retry-after"), time.time()),
            reads=answer.method in {"GET", "HEAD"},
        )
        where, here = wrong_region(status, body, headers), self._account.region
        if where and where != here:
            error = elsewhere(self.name, where, self._account.name, here)
        if isinstance(error, RouteDown):
            self._account.refused()
        if isinstance(error, TryAgain):
            error.unsure = answer.unsure
        return error

    async def _ask(
        self,
        method: str,
        key: str,
        *,
        query: str = "",
        headers: Mapping[str, str] = _NONE,
        body: bytes | Stream | None = None,
        once: bool = False,
        most: int = MAX_ANSWER,
    ) -> Answer:
        """Return the answer to one signed request, and of its body about `most` bytes. See `_open`."""
        response = await self._open(method, key, query=query, headers=headers, body=body, once=once)
        return await self._whole(response, once=once, most=most)

    async def _replace(
        self,
        method: str,
        key: str,
        over: str | None,
        *,
        query: str = "",
        headers: Mapping[str, str] = _NONE,
        body: bytes | None = None,
    ) -> Answer:
        """Send a write once, which replaces only `over`: see `Bucket.write`. Ceph up to 18 compares an ETag
        with the quotes around it, and so finds it nowhere: there it is sent without."""

        async def send() -> Answer:
            sent = {**headers, **condition(over, quoted=self._quotes)}
            return await self._ask(method, key, query=query, headers=sent, body=body, once=True)

        answer = await send()
        if answer.status == 412 and over and self._quotes:
            there = (await self._ask("HEAD", key)).headers.get("etag", "")
            if there.strip('"') == over:
                self._quotes = False
                answer = await send()
        if over is not None and answer.status == 501:
            raise NotSupported(f"{method} {self.name}: conditional writes are not known there")
        return answer

    async def _whole(self, response: Response, *, once: bool = False, most: int = MAX_ANSWER) -> Answer:
        """Read an answer and let go of it."""
        status = response.status
        unsure = once and status not in {301, 307} and not 400 <= status < 500
        try:
            body = await response.read(most)
        except Broken as error:
            raise StoreAway(f"{response.method} {self.name}: {error}", unsure=once) from None
        finally:
            response.release()
        return Answer(response.method, status, response.headers, body, unsure)

    async def _open(
        self,
        method: str,
        key: str,
        *,
        query: str = "",
        headers: Mapping[str, str] = _NONE,
        body: bytes | Stream | None = None,
        once: bool = False,
        at_once: bool = False,
    ) -> Response:
        """Return the open answer to one signed request, to be released.

        No answer, or a 5xx, is tried again at once or twice; but what changes an object is sent `once`, for
        whoever asks for it must know whether its end is known, and a body that only passes through can be
        sent no more often. What was not sent at all is tried again in any case. `at_once`: before all that
        wait for their turn.
        """
        path = f"{self._prefix}/{quote(key, safe='/~')}"
        about = path if key else None  # a refused bucket says something of the store
        only = once or isinstance(body, Stream)
        for pause in PAUSES:
            try:
                response = await self._send(method, path, query, headers, body, once, at_once, about)
            except RouteDown:
                await asyncio.sleep(pause)
                continue
            except StoreAway:
                if only:
                    raise
                await asyncio.sleep(pause)
                continue
            if only or response.status not in {500, 502, 504}:
                return response
            response.release()
            await asyncio.sleep(pause)
        return await self._send(method, path, query, headers, body, once, at_once, about)

    async def _send(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes | Stream | None,
        once: bool,
        at_once: bool,
        about: str | None,
    ) -> Response:
        sent = self._pace.overtake() if at_once else await self._pace.turn()
        signed = await self._account.sign(method, self._way.netloc, path, query, headers)
        signed["accept-encoding"] = "identity"  # not signed: proxies change it
        if method in {"PUT", "POST"}:
            size = body.size if isinstance(body, Stream) else len(body or b"")
            signed["content-length"] = str(size)
        target = f"{path}?{query}" if query else path
        try:
            response = await self._client.request(
                self._way, method, target, signed, body, silence=_silence(method, body, once)
            )
        except Unreached as error:
            down = RouteDown(f"{method} {self.name}: unreachable: {error}")  # nothing was sent
            down.code = UNREACHABLE
            raise down from None
        except Broken as error:
            raise StoreAway(f"{method} {self.name}: {error}", unsure=once) from None
        self._dated = (response.headers.get("date", ""), time.time())
        if response.status < 300 and self._hand is not None and self._hand not in response.headers:
            response.release()
            raise StoreAway(foreign(method, self.name, self._hand), unsure=once)
        if response.status in {429, 503}:
            asked = wait_asked(response.headers.get("retry-after"), time.time())
            self._pace.slowed(sent, asked, about=about)
        elif response.status < 500:
            self._pace.went_well(sent)
        return response


def foreign(method: str, name: str, hand: str) -> str:
    """Return what to say of a success that has not the store's `hand`."""
    return (
        f"{method} {name}: a success without {hand} comes from something else than the store, such as the "
        "maintenance page of a proxy"
    )


def _silence(method: str, body: bytes | Stream | None, once: bool) -> float:
    """Return the seconds that a store may keep silent: to join parts or to copy an object takes its time."""
    works = once and (method == "POST" or (method == "PUT" and body is None))
    return WORKS_WITHIN if works else SILENCE


class S3Reading:
    """An open GET."""

    def __init__(self, state: State, response: Response) -> None:
        self.state = state
        self._response = response

    async def body(self) -> bytes:
        """See the port."""
        try:
            body = await self._response.read(self.state.size)
        except Broken as error:
            raise Corrupt(f"{self.state.size} bytes: {error}") from None
        self._check(len(body))
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """See the port."""
        came = 0
        try:
            async for chunk in self._response.chunks():
                came += len(chunk)
                yield chunk
        except Broken as error:
            raise Corrupt(f"{self.state.size} bytes: {error}") from None
        self._check(came)

    def _check(self, came: int) -> None:
        if came != self.state.size:
            raise Corrupt(f"{came} bytes came instead of {self.state.size}")
