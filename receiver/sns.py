"""The SNS topics that may deliver: envelopes opened, signatures verified, subscriptions confirmed.

A caller can make us speak to one host, that of a topic which is configured, and only so often.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from common.errors import BadSignature, NotOurs, SenderAway
from common.proxies import proxy_for
from common.telemetry import Action, log
from receiver.admission import Rate
from receiver.certificates import Certificates
from receiver.dialects import s3
from receiver.dialects.sns import Envelope
from receiver.intake import parse_json

TIMEOUT = aiohttp.ClientTimeout(total=5)
"""Seconds for a certificate to arrive; the hook that wants it waits for less."""

CONFIRM_TIMEOUT = aiohttp.ClientTimeout(total=1.5)
"""Seconds for Amazon to take a confirmation: with the wait for a certificate less than 3."""

MAX_ANSWER = 64 * 1024
"""Bytes of an answer of Amazon's; a certificate has some 2 KiB."""

REQUESTS_PER_SECOND, BURST = 1.0, 20
"""How often Amazon is asked, for certificates and confirmations each, whatever envelopes say."""

UNSUBSCRIBED = (
    "a subscription to this topic has ended: its events no longer come. "
    "If that was not meant, subscribe again (docs/senders.md)"
)


def _today() -> datetime:
    return datetime.now(UTC)


class SnsTopics:
    """Opens the envelopes of `topics`: `async with SnsTopics(arns) as topics`.

    `trusted` says who may vouch for Amazon's host, by default whom the system trusts; `resolver` finds it.
    `clock` gives seconds that never go back, `now` the time of day.
    """

    def __init__(
        self,
        topics: Iterable[str],
        *,
        resolver: AbstractResolver | None = None,
        trusted: ssl.SSLContext | bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _today,
    ) -> None:
        self._topics = frozenset(topics)
        self._resolver = resolver
        self._trusted = trusted
        self._rate = Rate(REQUESTS_PER_SECOND, BURST, clock)
        self._certificates = Certificates(self._fetch, now)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connections' pool, if there are topics."""
        if self._topics:
            connector = aiohttp.TCPConnector(resolver=self._resolver, ssl=self._trusted)
            # No decompression: 64 KiB are to be 64 KiB.
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=TIMEOUT,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what is under way and close the connections."""
        await self._certificates.close()
        if self._session:
            await self._session.close()

    async def open(self, envelope: Envelope) -> list[object] | None:
        """Return the records in a notification, see `s3.records`; None for an envelope that is about a
        subscription, once what it asks for is done.

        Raises `NotOurs` for a topic that is not configured, `BadSignature`, `Unreadable` for a message that
        is no S3 event, `SenderAway` when Amazon does not answer.
        """
        self._check_topic(envelope.topic)
        await self._check_signature(envelope)
        if envelope.kind == "Notification":
            return s3.records(parse_json(envelope.message.encode()))
        if envelope.kind == "SubscriptionConfirmation":
            await self._confirm(envelope)
        else:
            # Nor undone, which its SubscribeURL would do: somebody may have meant it.
            log(Action.SUBSCRIPTION, UNSUBSCRIBED, level=logging.WARNING, topic=envelope.topic)
        return None

    def _check_topic(self, topic: str) -> None:
        if topic not in self._topics:
            raise NotOurs(f'{topic} may not deliver. If it shall, add it: receiver.sns_topics = ["{topic}"]')

    async def _check_signature(self, envelope: Envelope) -> None:
        certificate = await self._certificates.find(envelope.certificate_url)
        if not certificate.vouches(envelope.signature, envelope.signed, envelope.digest):
            raise BadSignature(f"an envelope in the name of {envelope.topic} is not signed by Amazon SNS")

    async def _confirm(self, envelope: Envelope) -> None:
        await self._get("the confirmation", envelope.subscribe_url, CONFIRM_TIMEOUT)
        log(Action.SUBSCRIPTION, "subscription confirmed", topic=envelope.topic)

    async def _fetch(self, url: str) -> bytes:
        return await self._get("a certificate", url, TIMEOUT)

    async def _get(self, what: str, url: str, timeout: aiohttp.ClientTimeout) -> bytes:
        """Return what is at `url`. Raises `SenderAway`, whose message does not hold the URL: its query is the
        token that confirms."""
        if not self._rate.take(what):
            raise SenderAway(f"Amazon SNS has been asked for {what} too often of late")
        assert self._session is not None, "there is a topic, so it is open"  # noqa: S101
        try:
            # A redirect would lead away from the one host that may be asked.
            async with self._session.get(
                URL(url, encoded=True), allow_redirects=False, timeout=timeout, proxy=proxy_for(url)
            ) as response:
                if response.status != 200:
                    raise SenderAway(f"Amazon SNS, asked for {what}, answered {response.status}")
                return await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SenderAway(f"Amazon SNS, asked for {what}: {type(error).__name__}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise SenderAway(f"Amazon SNS answered with more than {MAX_ANSWER} bytes")
    return bytes(body)
