"""The verbs of a copy in parts: create, upload a part, list the parts, complete, abort."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote
from xml.sax.saxutils import escape

import aiohttp

from common.errors import StoreAway
from common.store.failures import error_code
from common.store.headers import condition, is_opaque, object_headers
from common.store.port import Begun, Part, Stream
from common.store.wire import Wire, rest_of

_PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)


class MultipartVerbs(Wire):
    """What an S3 bucket can do with parts, over its one way to send a request."""

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        """See the port."""
        sent = object_headers(headers, metadata)
        async with self._request("POST", key, query="uploads=", headers=sent) as response:
            answer = await self._success(response)
            return Begun(_text(answer, "UploadId"), is_opaque(response.headers))

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        """See the port."""
        md5 = body.md5 if isinstance(body, Stream) else hashlib.md5(body, usedforsecurity=False).digest()
        digest = base64.b64encode(md5).decode()
        query = f"partNumber={number}&uploadId={quote(upload, safe='')}"
        async with self._request(
            "PUT", key, query=query, headers={"content-md5": digest}, body=body
        ) as response:
            await self._success(response)
            return response.headers.get("ETag", "").strip('"')

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        """See the port."""
        found: dict[int, Part] = {}
        marker = 0
        while True:
            query = f"max-parts=1000&part-number-marker={marker}&uploadId={quote(upload, safe='')}"
            async with self._request("GET", key, query=query) as response:
                answer = await self._success(response)
            for xml in _PART.findall(answer):
                number = int(_text(xml, "PartNumber"))
                etag = _text(xml, "ETag").replace("&quot;", "").replace("&#34;", "").strip('"')
                found[number] = Part(etag, int(_text(xml, "Size")))
            if "<IsTruncated>true</IsTruncated>" not in answer or max(found, default=0) == marker:
                return found
            marker = max(found)

    async def complete_upload(
        self, key: str, upload: str, etags: Sequence[str], *, over: str | None = None
    ) -> str:
        """See the port. A 200 may still carry an error: the store answers before it has finished."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{escape(etag)}&quot;</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = f"uploadId={quote(upload, safe='')}"
        async with self._request("POST", key, query=query, headers=condition(over), body=body) as response:
            answer = await self._success(response)
            return _text(answer, "ETag").replace("&quot;", "").replace("&#34;", "").strip('"')

    async def abort_upload(self, key: str, upload: str) -> None:
        """See the port."""
        async with self._request("DELETE", key, query=f"uploadId={quote(upload, safe='')}") as response:
            if response.status not in {200, 204, 404}:
                raise self._failure(response, await rest_of(response))

    async def _success(self, response: aiohttp.ClientResponse) -> str:
        """Return the text of an answer that says it went well."""
        body = await rest_of(response)
        if response.status != 200 or error_code(body):
            raise self._failure(response, body)
        return body.decode(errors="replace")


def _text(xml: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]*)</{name}>", xml)
    if found is None:
        raise StoreAway(f"the answer has no {name}")
    return found[1]
