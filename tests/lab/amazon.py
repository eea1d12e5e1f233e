"""Amazon's SNS host of one region: an HTTPS server with an authority of its own, that signs envelopes."""

import asyncio
import base64
import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from tests.lab.samples import sample

HOST = "sns.eu-central-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:photos-events"
CERTIFICATE = "/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem"
CERTIFICATE_URL = f"https://{HOST}{CERTIFICATE}"

_LOOK_ALIKES = [
    f"https://{HOST}.evil.org{CERTIFICATE}",
    f"https://evil.org/{HOST}{CERTIFICATE}",
    f"https://sns.evil.amazonaws.com@evil.org{CERTIFICATE}",
    f"https://{HOST}@evil.org{CERTIFICATE}",
    f"https://user@{HOST}{CERTIFICATE}",
    f"https://user:secret@{HOST}{CERTIFICATE}",
    f"https://@{HOST}{CERTIFICATE}",
    f"https://evil.org#@{HOST}{CERTIFICATE}",
    f"https://evil.org\\@{HOST}{CERTIFICATE}",
    f"https://{HOST}\\.evil.org{CERTIFICATE}",
    f"https://evil{HOST}{CERTIFICATE}",
    f"https://evil.{HOST}{CERTIFICATE}",
    f"https://sns.us-east-1.amazonaws.com{CERTIFICATE}",
    f"https://s3.eu-central-1.amazonaws.com{CERTIFICATE}",
    f"https://{HOST}.cn{CERTIFICATE}",
    f"https://{HOST}.{CERTIFICATE}",
    f"http://{HOST}{CERTIFICATE}",
    f"ftp://{HOST}{CERTIFICATE}",
    f"//{HOST}{CERTIFICATE}",
    f"{HOST}{CERTIFICATE}",
    f"https:{HOST}{CERTIFICATE}",
    f"https:/{HOST}{CERTIFICATE}",
    f"https:///{HOST}{CERTIFICATE}",
    f"https://{HOST}:8443{CERTIFICATE}",
    f"https://{HOST}:80{CERTIFICATE}",
    f"https://{HOST}:{CERTIFICATE}",
    f"https://{HOST}:0443{CERTIFICATE}",
    f"https://{HOST}:443@evil.org{CERTIFICATE}",
    "https://127.0.0.1:PORT" + CERTIFICATE,
    "https://[::ffff:127.0.0.1]:PORT" + CERTIFICATE,
    "https://2130706433:PORT" + CERTIFICATE,
    f"https://sns。eu-central-1。amazonaws。com{CERTIFICATE}",
    f"https://ｓns.eu-central-1.amazonaws.com{CERTIFICATE}",
    f"https://snſ.eu-central-1.amazonaws.com{CERTIFICATE}",
    f"https://{HOST.upper()}{CERTIFICATE}",
    f" {CERTIFICATE_URL}",
    f"{CERTIFICATE_URL} ",
    f"{CERTIFICATE_URL}\n",
    f"https://{HOST[:5]}\t{HOST[5:]}{CERTIFICATE}",
    f"{CERTIFICATE_URL}?x",
    f"{CERTIFICATE_URL}#x",
    f"https://{HOST}/../SimpleNotificationService-1.pem",
    f"https://{HOST}/x/SimpleNotificationService-1.pem",
    f"https://{HOST}/SimpleNotificationService-.pem",
    f"https://{HOST}/SimpleNotificationService-1.pemx",
    f"https://{HOST}/SimpleNotificationService-%31.pem",
    f"https://{HOST}/SimpleNotificationService-{'1' * 300}.pem",
    f"https://{HOST}/?Action=ConfirmSubscription",
    f"https://{HOST}",
    "",
]
"""First what is not the host ("PORT" is that of a server which would like to be asked), then not the path."""

QUERY = f"Action=ConfirmSubscription&TopicArn={TOPIC}&Token=1"
_NO_CONFIRMATIONS = [
    f"https://{HOST}/?Action=DeleteTopic&TopicArn={TOPIC}",
    f"https://{HOST}/?{QUERY}&Action=DeleteTopic",
    f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}-2&Token=1",
    f"https://{HOST}/?{QUERY}&TopicArn={TOPIC}-2",
    f"https://{HOST}/?Action=ConfirmSubscription&Token=1",
    f"https://{HOST}/?action=ConfirmSubscription&topicarn={TOPIC}&Token=1",
    f"https://{HOST}/?{QUERY}#x",
    f"https://{HOST}/?{QUERY}&x={'y' * 3000}",
    f"https://{HOST}/?{QUERY}&é",
    f"https://{HOST}/x?{QUERY}",
    f"https://{HOST}//?{QUERY}",
    f"https://{HOST}?{QUERY}",
    f"https://{HOST}/{QUERY}",
]


def certificate_look_alikes(port: int = 1) -> list[str]:
    """Return URLs that are not those of a certificate of TOPIC, though some lead to who listens at `port`."""
    return [url.replace("PORT", str(port)) for url in _LOOK_ALIKES]


def subscribe_look_alikes(port: int = 1) -> list[str]:
    """Return URLs that confirm no subscription to TOPIC, though some lead to who listens at `port`."""
    moved = [
        url.replace(CERTIFICATE, f"/?{QUERY}")
        for url in _LOOK_ALIKES
        if CERTIFICATE in url and "?" not in url
    ]
    return [url.replace("PORT", str(port)) for url in moved] + _NO_CONFIRMATIONS


Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key; another for each number."""
    return rsa.generate_private_key(65537, 2048)


def certify(
    key: Key,
    *,
    subject: str = "sns.amazonaws.com",
    issuer: str = "",
    by: Key | None = None,
    begins: float = -1,
    ends: float = 1,
    alternatives: tuple[x509.GeneralName, ...] = (),
) -> bytes:
    """Return a certificate of `key` in PEM, by itself unless `by` somebody else, valid from `begins` to
    `ends` hours from now."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer or subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(hours=begins))
        .not_valid_after(now + datetime.timedelta(hours=ends))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(by or key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def string_to_sign(envelope: dict[str, Any]) -> str:
    """Return what SNS signs, spelled as its documentation has it."""
    said = envelope
    if said["Type"] == "Notification":
        subject = f"Subject\n{said['Subject']}\n" if "Subject" in said else ""
        return (
            f"Message\n{said['Message']}\nMessageId\n{said['MessageId']}\n{subject}"
            f"Timestamp\n{said['Timestamp']}\nTopicArn\n{said['TopicArn']}\nType\n{said['Type']}\n"
        )
    return (
        f"Message\n{said['Message']}\nMessageId\n{said['MessageId']}\nSubscribeURL\n{said['SubscribeURL']}\n"
        f"Timestamp\n{said['Timestamp']}\nToken\n{said['Token']}\nTopicArn\n{said['TopicArn']}\n"
        f"Type\n{said['Type']}\n"
    )


def signed(
    what: str | dict[str, Any],
    *,
    key: rsa.RSAPrivateKey | None = None,
    digest: hashes.HashAlgorithm | None = None,
    **changes: object,
) -> dict[str, Any]:
    """Return the sample `sns/<what>`, or an envelope, with `changes`, signed as its SignatureVersion says, or
    with `digest`."""
    envelope = {**(sample(f"sns/{what}") if isinstance(what, str) else what), **changes}
    version = {"1": hashes.SHA1(), "2": hashes.SHA256()}[envelope["SignatureVersion"]]  # noqa: S303 - SNS's
    text = string_to_sign(envelope).encode()
    signature = (key or rsa_key()).sign(text, padding.PKCS1v15(), digest or version)
    return envelope | {"Signature": base64.b64encode(signature).decode()}


def notification(message: object) -> dict[str, Any]:
    """Return a notification of `message`: a text as it is, else as JSON."""
    text = message if isinstance(message, str) else json.dumps(message)
    return signed("notification_v2", Message=text)


@dataclass(frozen=True)
class Page:
    """An answer without a body; `location` is where it redirects to."""

    status: int
    location: str = ""


@dataclass
class Amazon(AbstractResolver):
    """The server, and the resolver that finds every name in the world there; both write down what they are
    asked.

    `pages` has what is at a path; a path that is not there gets 404. A request waits for `answering`.
    """

    trusted: ssl.SSLContext
    port: int = 0
    seen: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    pages: dict[str, Page | bytes] = field(default_factory=dict)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.seen.append(f"{request.method} {request.host}{request.raw_path}")
        await self.answering.wait()
        page = self.pages.get(request.path, Page(404))
        if isinstance(page, bytes):
            return web.Response(body=page)
        return web.Response(status=page.status, headers={"Location": page.location} if page.location else {})

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Find `host` here, whatever it is."""
        self.asked.append(f"{host}:{port}")
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=self.port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def fetched(self) -> int:
        """How often the certificate was asked for."""
        return self.seen.count(f"GET {HOST}{CERTIFICATE}")

    @property
    def confirmed(self) -> list[str]:
        """The confirmations that came."""
        return [line for line in self.seen if "Action=ConfirmSubscription" in line]


def _identity() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what the server proves itself with, and what a client believes it with."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = (x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    chain = certify(own, subject=HOST, issuer="our CA", by=authority, alternatives=names)
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    trusted = ssl.create_default_context(cadata=certify(authority, subject="our CA").decode())
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with TemporaryDirectory() as folder:
        file = Path(folder, "server.pem")
        file.write_bytes(chain + secret)
        serving.load_cert_chain(file)
    return serving, trusted


@asynccontextmanager
async def amazon() -> AsyncIterator[Amazon]:
    """Run the server on a free port of loopback, with the certificate of `rsa_key()`."""
    serving, trusted = _identity()
    made = Amazon(trusted)
    made.pages |= {CERTIFICATE: certify(rsa_key()), "/": b"<ConfirmSubscriptionResponse/>"}
    made.answering.set()
    runner = web.ServerRunner(web.Server(made.answer, access_log=None), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        made.answering.set()
        await runner.cleanup()
