"""Does the public URL answer as the handshake requires? Asked as MCS asks when a hook is registered."""

import hmac
import http.client
import json
import secrets
from datetime import UTC, datetime
from urllib.parse import SplitResult, quote, urlsplit

from common.errors import ConfigError
from common.urls import is_absolute, weakness
from receiver import handshake

WITHIN = 10.0
"""Seconds for each step of the answer."""

MAX_ANSWER = 64 * 1024

PORTS = {"http": 80, "https": 443}

HEADERS = {"Content-Type": "application/json", "X-Amz-Sns-Messages-Type": "SubscriptionConfirmation"}


def warnings(url: str, *, from_mcs: bool = True) -> list[str]:
    """Return what may keep the sender from calling `url`, which MCS is unless not `from_mcs`, or lead a
    stranger there. Raises `ConfigError` for one that nobody can call."""
    parts = _split(url)
    port = parts.port or PORTS[parts.scheme]
    found = []
    if from_mcs and port not in PORTS.values():
        found.append(
            f"the public_url is on port {port}, and MCS calls only 80 and 443: put a reverse proxy in front"
        )
    if weak := weakness(url):
        found.append(f"the public_url: {weak}")
    return found


def problem(url: str, bucket: str) -> str:
    """Post a SubscriptionConfirmation for `bucket` to `url`; return what is wrong with the answer, "" if
    nothing is. No redirect is followed."""
    topic, token = f"hookmirror-hooks-check|{bucket}|s3:ObjectCreated:*", secrets.token_urlsafe(36)
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    asked = {
        "Timestamp": stamp,
        "Type": "SubscriptionConfirmation",
        "Message": "hookmirror hooks check asks for the calculated signature",
        "TopicArn": topic,
        "SignatureVersion": 1,
        "Token": token,
    }
    try:
        status, kind, body = _post(url, json.dumps(asked).encode())
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return f"no answer: {str(error) or type(error).__name__}"
    if status != http.HTTPStatus.OK:
        return f"it answers {status}, not 200: {body[:200].decode(errors='replace')}"
    if kind != "application/json":
        return f"its content-type is {kind}, not application/json"
    try:
        signature = str(json.loads(body)["signature"])
    except (ValueError, KeyError, TypeError):
        return "its answer has no signature"
    expected = handshake.sign(url, topic, stamp, token)
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        return "its signature is wrong: the receiver there has another public_url, to the character"
    return ""


def _split(url: str) -> SplitResult:
    try:
        whole = is_absolute(url)
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        raise ConfigError(f'public_url: "{url}" cannot be called. Write it like https://host/path')
    return urlsplit(url)


def _post(url: str, body: bytes) -> tuple[int, str, bytes]:
    parts = _split(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=WITHIN)
    asked = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("POST", quote(asked, safe="/?%:@!$&'()*+,;=~"), body, HEADERS)
        response = connection.getresponse()
        return response.status, response.headers.get_content_type(), response.read(MAX_ANSWER)
    finally:
        connection.close()
