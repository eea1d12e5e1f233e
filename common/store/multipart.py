"""The verbs of a copy in parts: create, upload a part, list the parts, complete, abort."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote
from xml.sax.saxutils import escape

from common.errors import StoreAway, UploadGone
from common.store.failures import error_code
from common.store.headers import is_opaque, object_headers
from common.store.port import Begun, Part, Stream
from common.store.wire import Answer, Wire

_PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)


class MultipartVerbs(Wire):
    """What an S3 bucket can do with parts, over its one way to send a request."""

    async def create_upload(
        self, key: str, *, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Begun:
        """See the port. What a lost answer to this leaves behind is among `uploads`."""
        sent = object_headers(headers, metadata)
        answer = await self._ask("POST", key, query="uploads=", headers=sent, once=True)
        return Begun(self._told(answer, "UploadId"), is_opaque(answer.headers))

    async def upload_part(self, key: str, upload: str, number: int, body: bytes | Stream) -> str:
        """See the port."""
        md5 = body.md5 if isinstance(body, Stream) else hashlib.md5(body, usedforsecurity=False).digest()
        digest = base64.b64encode(md5).decode()
        query = f"partNumber={number}&uploadId={quote(upload, safe='')}"
        answer = await self._ask("PUT", key, query=query, headers={"content-md5": digest}, body=body)
        self._check(answer)
        if "etag" not in answer.headers:
            raise StoreAway(f"PUT {self.name}: a success without ETag is not the store's")
        return answer.headers["etag"].strip('"')

    async def parts(self, key: str, upload: str) -> dict[int, Part]:
        """See the port."""
        found: dict[int, Part] = {}
        marker = 0
        while True:
            query = f"max-parts=1000&part-number-marker={marker}&uploadId={quote(upload, safe='')}"
            answer = await self._ask("GET", key, query=query)
            self._check(answer)
            text = answer.body.decode(errors="replace")
            if not _find(text, "UploadId"):
                raise StoreAway(f"GET {self.name}: what answers does not list the parts of an upload")
            for xml in _PART.findall(text):
                found[_number(xml, "PartNumber")] = Part(_unquoted(_find(xml, "ETag")), _number(xml, "Size"))
            if "<IsTruncated>true</IsTruncated>" not in text or max(found, default=0) == marker:
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
        answer = await self._replace("POST", key, over, query=query, body=body)
        self._check(answer)
        if b"CompleteMultipartUploadResult" not in answer.body:
            raise StoreAway(f"POST {self.name}: the answer is not the store's", unsure=answer.unsure)
        return etag_told(answer.body)  # Ceph tells none

    async def abort_upload(self, key: str, upload: str) -> None:
        """See the port."""
        answer = await self._ask("DELETE", key, query=f"uploadId={quote(upload, safe='')}")
        done = answer.status == 204 or (answer.status == 200 and not answer.body)
        if not done and error_code(answer.body) != "NoSuchUpload":
            raise self._failure(answer)

    def _check(self, answer: Answer) -> None:
        """Raise what an answer means that does not say it went well. Of an upload that is gone Ceph says that
        there is no such key."""
        code = error_code(answer.body)
        if code == "NoSuchKey":
            raise UploadGone(f"{answer.method} {self.name}: {code}")
        if answer.status != 200 or code:
            raise self._failure(answer)

    def _told(self, answer: Answer, name: str) -> str:
        """Return what a success says is `name`."""
        self._check(answer)
        found = _find(answer.body.decode(errors="replace"), name)
        if not found:
            raise StoreAway(f"{answer.method} {self.name}: the answer has no {name}", unsure=answer.unsure)
        return found


def _find(xml: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]*)</{name}>", xml)
    return found[1] if found else ""


def _number(xml: str, name: str) -> int:
    found = _find(xml, name)
    if not found.isdecimal():
        raise StoreAway(f"a part in a listing of parts has no {name}")
    return int(found)


def etag_told(body: bytes) -> str:
    """Return the ETag in the document of an answer, "" for none."""
    return _unquoted(_find(body.decode(errors="replace"), "ETag"))


def _unquoted(etag: str) -> str:
    return etag.replace("&quot;", "").replace("&#34;", "").strip('"')
