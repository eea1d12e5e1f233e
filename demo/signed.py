"""Signed S3 requests that the store port has no verb for: copies, parts, a bucket's notifications."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from common.errors import StoreAway
from common.store.aws import Account
from common.store.failures import error_code, translate
from common.tables import StoreSettings

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: the ETag without quotes, if there is one, and the body."""

    etag: str
    body: bytes


class SignedRequests:
    """Calls one store; an async context manager."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> "SignedRequests":
        self._account = await Account.open("demo", self._settings)
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._account.close()

    async def __call__(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Return the answer. Raises the error of `common.errors` that an error means, in a 200 too."""
        path = (
            f"{self._account.address(bucket)}/{quote(key, safe='/~')}"
            if key
            else self._account.address(bucket)
        )
        url = f"{path}?{query}" if query else path
        parts = urlsplit(url)
        signed = await self._account.sign(method, parts.netloc, parts.path, query, headers or {})
        try:
            async with self._session.request(
                method, URL(url, encoded=True), headers=signed, data=body, skip_auto_headers=("Content-Type",)
            ) as response:
                said = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StoreAway(f"{method} {bucket}: no answer: {error!r}") from error
        if response.status not in {200, 204} or error_code(said):
            raise translate(response.status, said, doing=f"{method} {bucket} {query.partition('=')[0]}")
        return Answer(response.headers.get("ETag", "").strip('"'), said)
