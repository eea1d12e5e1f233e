"""The topics of a store that keeps its own (Ceph RGW): which URL each of them calls.

They are told by a call of SNS at the store's own endpoint, signed as every other request is.
"""

import hashlib
import re
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from common.errors import StoreAway
from common.proxies import proxy_for
from common.store.answer import Broken
from common.store.aws import Account
from common.store.http import Client, Unreached, Way

MAX_ANSWER = 2**22
"""Bytes of one page of the answer."""

MAX_PAGES = 100

NOT_IMPLEMENTED = 501

_MEMBER = re.compile(r"<member>(.*?)</member>", re.DOTALL)
_ARN = re.compile(r"<TopicArn>([^<]+)</TopicArn>")
_URL = re.compile(r"<EndpointAddress>([^<]*)</EndpointAddress>")
_NEXT = re.compile(r"<NextToken>([^<]+)</NextToken>")


async def topics_of(account: Account, client: Client) -> dict[str, str] | None:
    """Return the URL that each topic calls, by the topic's ARN; None when the store keeps no topics, or may
    not tell. Raises `StoreAway` when it does not answer now."""
    found: dict[str, str] = {}
    asked = "Action=ListTopics&Version=2010-03-31"
    body = asked
    for _ in range(MAX_PAGES):
        answer = await _ask(account, client, body.encode())
        if "<ListTopicsResult" not in answer:
            return None
        found |= read(answer)
        token = _NEXT.search(answer)
        if token is None:
            break
        body = f"{asked}&NextToken={quote(unescape(token[1]), safe='')}"
    return found


def read(answer: str) -> dict[str, str]:
    """Return the URLs of the topics in one page of an answer, by their ARNs."""
    found: dict[str, str] = {}
    for member in _MEMBER.findall(answer):
        arn, url = _ARN.search(member), _URL.search(member)
        if arn and url:
            found[unescape(arn[1])] = unescape(url[1])
    return found


async def _ask(account: Account, client: Client, body: bytes) -> str:
    """Return the answer to one question, "" when the store does not understand it, or refuses."""
    parts = urlsplit(account.endpoint)
    way, path = Way.to(account.endpoint, proxy_for(account.endpoint)), f"{parts.path.rstrip('/')}/"
    sent = {
        "content-type": "application/x-www-form-urlencoded",
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
    }
    headers = await account.sign("POST", way.netloc, path, "", sent)
    headers["content-length"] = str(len(body))
    try:
        response = await client.request(way, "POST", path, headers, body)
        try:
            whole = await response.read(MAX_ANSWER)
        finally:
            response.release()
    except (Unreached, Broken) as error:
        raise StoreAway(f"its topics could not be asked for: {error}") from error
    if response.status >= 500 and response.status != NOT_IMPLEMENTED:
        raise StoreAway(f"its topics could not be asked for: it answers {response.status}")
    return whole.decode(errors="replace") if response.status == 200 else ""
