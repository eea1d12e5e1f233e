"""What aioboto3 is good at: the credential chain, regions, signatures, listings. Nothing else knows it."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

from common.errors import ConfigError, RouteDown, StoreAway, Throttled
from common.store.failures import translate
from common.store.pace import Pace
from common.store.port import Entry, OpenUpload
from common.tables import StoreSettings

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

UNSIGNED = "UNSIGNED-PAYLOAD"


class _PayloadUnsigned(S3SigV4Auth):
    """Signs the headers; the body is covered by its Content-MD5, which is one of them, or by the digest that
    the caller has put among them."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context.get("digest", UNSIGNED))


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

    async def _wait(self, request: AWSRequest, operation_name: str, **_: object) -> None:
        check = operation_name == "HeadBucket"
        request.context[self._SENT] = self._pace.overtake() if check else await self._pace.turn()

    def _heed(self, response_dict: Mapping[str, Any] | None, context: Mapping[str, Any], **_: object) -> None:
        if response_dict is None:
            return
        status, sent = response_dict["status_code"], context[self._SENT]
        if status in {429, 503}:
            asked = response_dict["headers"].get("retry-after")
            refusal = translate(status, b"", doing="", retry_after=asked)
            self._pace.slowed(sent, refusal.retry_after if isinstance(refusal, Throttled) else 0)
        elif status < 500:
            self._pace.went_well(sent)


class Account:
    """A store's credentials, endpoint and bucket calls. Make one with `open`."""

    def __init__(
        self, name: str, settings: StoreSettings, session: aioboto3.Session, client: "S3Client"
    ) -> None:
        self._name = name
        self._settings = settings
        self._session = session
        self._client = client
        self._stack = AsyncExitStack()
        self.endpoint = client.meta.endpoint_url

    @classmethod
    async def open(cls, name: str, settings: StoreSettings, pace: Pace | None = None) -> "Account":
        """Find the credentials and the endpoint of store `name`, whose requests go at `pace`. Raises
        `ConfigError` when there are none."""
        secret, token = settings.secret_access_key, settings.session_token
        try:
            session = aioboto3.Session(
                aws_access_key_id=settings.access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                aws_session_token=token.get_secret_value() if token else None,
                region_name=settings.region,
                profile_name=settings.profile,
            )
        except ProfileNotFound as error:
            raise ConfigError(
                f"stores.{name}.profile: {error}. Run:  aws configure --profile NAME"
            ) from error
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
        client = await stack.enter_async_context(
            session.client(
                "s3",
                endpoint_url=settings.endpoint,
                config=config,
                verify=str(settings.ca_bundle) if settings.ca_bundle else None,
            )
        )
        _Paced(pace or Pace(settings.max_requests_per_second, name=name)).attach(client)
        account = cls(name, settings, session, client)
        account._stack = stack
        if await _credentials(session) is None:
            await stack.aclose()
            raise ConfigError(
                f"stores.{name}: no credentials. Set:  access_key_id and secret_access_key, or profile"
            )
        return account

    def address(self, bucket: str) -> str:
        """Return the URL of `bucket`, without a slash at its end."""
        style = self._settings.addressing
        parts = urlsplit(self.endpoint)
        if style == "virtual" or (style == "auto" and not self._settings.endpoint and "." not in bucket):
            return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path.rstrip('/')}"
        return f"{self.endpoint.rstrip('/')}/{bucket}"

    async def sign(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with a signature (SigV4) over them. Expiring credentials are renewed first."""
        credentials = await _credentials(self._session)
        if credentials is None:
            raise RouteDown(f"stores.{self._name}: the credentials are gone")
        try:
            frozen = await credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise RouteDown(f"stores.{self._name}: the credentials cannot be renewed: {error}") from error
        # With the host given, botocore need not find it in the URL at every request.
        request = AWSRequest(method, url, headers={**headers, "host": urlsplit(url).netloc})
        if digest := headers.get("x-amz-content-sha256"):
            request.context["digest"] = digest  # botocore takes the header away and asks for the payload's
        _PayloadUnsigned(frozen, "s3", self._settings.region).add_auth(request)
        return dict(request.headers.items())

    async def list(self, bucket: str, prefix: str) -> AsyncIterator[Entry]:
        """Yield what `bucket` lists below `prefix`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            async for page in pages:
                for item in page.get("Contents", []):
                    yield Entry(item["Key"], item["ETag"].strip('"'), item["Size"])
        except ClientError as error:
            raise _translate(error, f"list {bucket}") from error
        except BotoCoreError as error:
            raise StoreAway(f"list {bucket}: {error}") from error

    async def uploads(self, bucket: str, prefix: str) -> AsyncIterator[OpenUpload]:
        """Yield the uploads that `bucket` holds open below `prefix`."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        try:
            async for page in pages:
                for item in page.get("Uploads", []):
                    yield OpenUpload(item["Key"], item["UploadId"], item["Initiated"].timestamp())
        except ClientError as error:
            raise _translate(error, f"list uploads of {bucket}") from error
        except BotoCoreError as error:
            raise StoreAway(f"list uploads of {bucket}: {error}") from error

    async def check(self, bucket: str) -> None:
        """Ask for `bucket` itself. Raises `RouteDown` when it is missing or shut."""
        try:
            await self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise RouteDown(f"NoSuchBucket: {bucket}") from error
            raise _translate(error, f"head {bucket}") from error
        except BotoCoreError as error:
            raise StoreAway(f"head {bucket}: {error}") from error

    async def create(self, bucket: str) -> None:
        """Make `bucket`; one that is there already is fine."""
        try:
            await self._client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"].get("Code") not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise _translate(error, f"create {bucket}") from error
        except BotoCoreError as error:
            raise StoreAway(f"create {bucket}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._stack.aclose()


async def _credentials(session: aioboto3.Session) -> AioCredentials | None:
    coroutine: Any = session.get_credentials()  # aiobotocore's, whatever the type says
    credentials: AioCredentials | None = await coroutine
    return credentials


def _translate(error: ClientError, doing: str) -> Exception:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = error.response["Error"].get("Code", "")
    asked = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after")
    return translate(status, f"<Code>{code}</Code>".encode(), doing=doing, retry_after=asked)
