"""What botocore is good at: endpoints and listings. Nothing else knows it but `credentials`."""

import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, ConfigParseError, SSLError

from common.errors import ConfigError, RouteDown, StoreAway
from common.retry_after import wait_asked
from common.store.credentials import Credentials, Reread, lend, open_session, why
from common.store.failures import elsewhere, translate, wrong_region
from common.store.pace import Pace
from common.store.port import Entry, OpenUpload
from common.store.sign import Keys, Signer
from common.tables import StoreSettings
from common.telemetry import hide

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


class _Verifying(AIOHTTPSession):
    """Believes a certificate only with the store's name in it, on every way to it. aiobotocore 2.25 by itself
    takes anybody's that a trusted authority made, and through a proxy it checks nothing at all."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        verify: object = self._verify  # type: ignore[attr-defined] # the stubs leave it out
        return ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)

    def _setup_proxy_ssl_context(self, proxy_url: str) -> ssl.SSLContext:
        return self._get_ssl_context()


class _Paced:
    """Makes each request of a client wait for its turn: each page of a listing, each of botocore's tries."""

    _SENT = "hookmirror-sent"

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def attach(self, client: "S3Client") -> None:
        """From now on."""
        events: Any = client.meta.events  # aiobotocore's, which waits for a coroutine, whatever the type says
        events.register("before-sign.s3", self._wait)
        events.register("response-received.s3", self._heed)

    async def _wait(self, request: AWSRequest, **_: object) -> None:
        request.context[self._SENT] = await self._pace.turn()

    def _heed(self, response_dict: Mapping[str, Any] | None, context: Mapping[str, Any], **_: object) -> None:
        if response_dict is None:
            return
        status, sent = response_dict["status_code"], context[self._SENT]
        if status in {429, 503}:
            asked = wait_asked(response_dict["headers"].get("retry-after"), time.time())
            self._pace.slowed(sent, asked)
        elif status < 500:
            self._pace.went_well(sent)


class Account:
    """A store's credentials, endpoint and bucket calls. Make one with `open`."""

    def __init__(
        self, name: str, settings: StoreSettings, credentials: Credentials, client: "S3Client"
    ) -> None:
        self.name = name
        self.region = settings.region
        self.endpoint = client.meta.endpoint_url
        self._settings = settings
        self._credentials = credentials
        self._frozen: ReadOnlyCredentials | None = None
        self._keys = Keys("", "")
        self._signer = Signer(settings.region)
        self._client = client
        self._stack = AsyncExitStack()

    @classmethod
    async def open(
        cls, name: str, settings: StoreSettings, pace: Pace | None = None, reread: Reread | None = None
    ) -> "Account":
        """Return the account of store `name`, whose requests go at `pace`; credentials are looked for when
        they are needed. Raises `ConfigError` for a profile that is not there, or a broken file of AWS's."""
        credentials = Credentials(name, settings, reread)
        stack = AsyncExitStack()
        # "when_required": newer defaults add checksums and chunked bodies that other clouds refuse.
        config = AioConfig(
            http_session_cls=_Verifying,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 3, "mode": "standard"},
            connect_timeout=5,
            read_timeout=30,
            s3={"addressing_style": settings.addressing},
        )
        try:
            session = open_session(name, settings)
            lend(session, credentials)
            client: S3Client = await stack.enter_async_context(
                session.create_client(
                    "s3",
                    region_name=settings.region,
                    endpoint_url=settings.endpoint,
                    config=config,
                    verify=str(settings.ca_bundle) if settings.ca_bundle else None,
                )
            )
        except ConfigParseError as error:
            raise ConfigError(f"stores.{name}: {why(error)}") from None
        # An AttributeError is what  s3 = text  leads to, where a table belongs.
        except (BotoCoreError, AttributeError, ValueError, OSError) as error:
            raise ConfigError(
                f"stores.{name}: it cannot be set up from what ~/.aws and the AWS_ variables say "
                f"({type(error).__name__}): mend these"
            ) from None
        _Paced(pace or Pace(settings.max_requests_per_second, name=name)).attach(client)
        _stay_here(client)
        account = cls(name, settings, credentials, client)
        account._stack = stack
        return account

    def refused(self) -> None:
        """The store refused a request: its credentials may have been replaced."""
        self._credentials.refused()

    def address(self, bucket: str) -> str:
        """Return the URL of `bucket`, without a slash at its end."""
        style = self._settings.addressing
        parts = urlsplit(self.endpoint)
        if style == "virtual" or (style == "auto" and not self._settings.endpoint and "." not in bucket):
            return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path.rstrip('/')}"
        return f"{self.endpoint.rstrip('/')}/{bucket}"

    async def sign(
        self, method: str, host: str, path: str, query: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return `headers` (names in lower case) and the host, with a signature over them. Expiring
        credentials are renewed first. Raises `RouteDown` while there are none."""
        frozen = await self._credentials.get_frozen_credentials()
        if frozen is not self._frozen and frozen != self._frozen:
            self._keys = Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token or "")
            hide(self.name, self._keys.secret, self._keys.token)
        self._frozen = frozen
        sent = {"host": host, **headers}
        return self._signer.sign(method, path, query, sent, keys=self._keys, now=time.time())

    async def list(self, bucket: str, prefix: str) -> AsyncIterator[Entry]:
        """Yield what `bucket` lists below `prefix`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with self._translated(bucket, "list"):
            async for page in pages:
                if "Name" not in page:
                    raise StoreAway(f"list {bucket}: what answers is no listing")
                for item in page.get("Contents", []):
                    yield Entry(item["Key"], item["ETag"].strip('"'), item["Size"])

    async def uploads(self, bucket: str, prefix: str) -> AsyncIterator[OpenUpload]:
        """Yield the uploads that `bucket` holds open below `prefix`."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        with self._translated(bucket, "list uploads of"):
            async for page in pages:
                if "Bucket" not in page:
                    raise StoreAway(f"list uploads of {bucket}: what answers is no listing")
                for item in page.get("Uploads", []):
                    yield OpenUpload(item["Key"], item["UploadId"], item["Initiated"].timestamp())

    async def create(self, bucket: str) -> None:
        """Make `bucket`; one that is there already is fine."""
        with self._translated(bucket, "create"):
            try:
                await self._client.create_bucket(Bucket=bucket)
            except ClientError as error:
                code = error.response["Error"].get("Code")
                if code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    @contextmanager
    def _translated(self, bucket: str, doing: str) -> Iterator[None]:
        """Raise the error of ours for one of botocore's: in our words, which show no request."""
        try:
            yield
        except ClientError as error:
            answer, said = error.response["ResponseMetadata"], error.response["Error"]
            headers = answer.get("HTTPHeaders", {})
            body = f"<Code>{said.get('Code', '')}</Code><Region>{said.get('Region', '')}</Region>".encode()
            where = wrong_region(answer["HTTPStatusCode"], body, headers)
            if where and where != self.region:
                raise elsewhere(bucket, where, self.name, self.region) from None
            failure = translate(
                answer["HTTPStatusCode"],
                body,
                doing=f"{doing} {bucket}",
                retry_after=wait_asked(headers.get("retry-after"), time.time()),
            )
            if isinstance(failure, RouteDown):
                self.refused()
            raise failure from None
        except BotoCoreError as error:
            said_so = f": {error}" if isinstance(error, SSLError) else ""
            away = f"{doing} {bucket}: {type(error).__name__}{said_so} (stores.{self.name}, {self.endpoint})"
            raise StoreAway(away) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._stack.aclose()


def _stay_here(client: "S3Client") -> None:
    """Keep a client from asking another region when it is told to: the object verbs would not follow, and
    nobody would hear that the region is wrong."""

    def redirected(context: dict[str, Any], **_: object) -> None:
        context.setdefault("s3_redirect", {})["redirected"] = True

    client.meta.events.register_last("before-parameter-build.s3", redirected)
