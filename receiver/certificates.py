"""The certificates that SNS signs with: fetched once, kept while they are valid."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from common.errors import SenderAway
from receiver.dialects.sns import Digest

MAX_CERTIFICATES = 100
"""Certificates that are kept; then those that were not needed for longest are forgotten."""

PATIENCE = 1.0
"""Seconds that a hook waits for a certificate. The fetch goes on, so that the sender's next try finds it."""

HASHES: dict[Digest, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - what SNS signs with unless a topic's SignatureVersion is 2
    "sha256": hashes.SHA256(),
}

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns what is at a URL. Raises `SenderAway`."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is needed of a certificate: its key, and from when until when it may be used."""

    key: RSAPublicKey
    begins: datetime
    ends: datetime

    def vouches(self, signature: bytes, signed: bytes, digest: Digest) -> bool:
        """Whether `signature` of `signed` was made with its key."""
        try:
            self.key.verify(signature, signed, PKCS1v15(), HASHES[digest])
        except InvalidSignature:
            return False
        return True


def read(pem: bytes) -> Certificate:
    """Return the certificate in `pem`. Raises `SenderAway` for anything else."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise SenderAway("what came from Amazon's SNS host is no certificate") from error
    if not isinstance(key, RSAPublicKey):
        raise SenderAway("the certificate from Amazon's SNS host has no RSA key")
    return Certificate(key, found.not_valid_before_utc, found.not_valid_after_utc)


class Certificates:
    """The certificates by their URLs, of which `fetch` gets those that are not known yet.

    `now` tells the time of day. Only certificates that are valid are kept. Of two who want the same one at
    the same time the second waits for that of the first.
    """

    def __init__(self, fetch: Fetch, now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._now = now
        self._known: OrderedDict[str, Certificate] = OrderedDict()
        self._coming: dict[str, asyncio.Task[Certificate]] = {}

    async def find(self, url: str) -> Certificate:
        """Return the certificate at `url`. Raises `SenderAway` when it cannot be had in time, or is not valid
        today."""
        certificate = self._known.get(url) or await self._wait_for(url)
        self._check(url, certificate)
        if url in self._known:
            self._known.move_to_end(url)
        return certificate

    async def close(self) -> None:
        """Give up what is still being fetched."""
        coming = list(self._coming.values())
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)

    def _check(self, url: str, certificate: Certificate) -> None:
        if not certificate.begins <= self._now() <= certificate.ends:
            self._known.pop(url, None)
            raise SenderAway(f"the certificate {url} is not valid today: is this machine's clock right?")

    async def _wait_for(self, url: str) -> Certificate:
        if url not in self._coming:
            self._coming[url] = task = asyncio.create_task(self._get(url))
            task.add_done_callback(_noticed)
        task = self._coming[url]
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        if not done:
            raise SenderAway(f"{url} has not come within {PATIENCE:g} s")
        return task.result()

    async def _get(self, url: str) -> Certificate:
        try:
            certificate = read(await self._fetch(url))
            self._check(url, certificate)
        finally:
            del self._coming[url]
        self._known[url] = certificate
        if len(self._known) > MAX_CERTIFICATES:
            self._known.popitem(last=False)
        return certificate


def _noticed(task: asyncio.Task[Certificate]) -> None:
    """Look at how `task` ended: asyncio complains of errors that nobody waited for, and all may be gone."""
    if not task.cancelled():
        task.exception()
