"""The S3 store over TLS: whom it believes to be the store."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.errors import ConfigError, TryAgain
from common.store import wire
from common.store.s3 import S3Bucket, S3Store
from common.tables import StoreSettings
from tests.integration.test_s3_faults import LISTING, Answer, Server, found, settings_of
from tests.lab.proxy import Proxy, proxy


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    address: str = "127.0.0.1",
) -> x509.Certificate:
    """Return a certificate of `subject` at `address`, made by `issuer`; one of itself is an authority's."""
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.BasicConstraints(ca=subject == issuer, path_length=None)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(authority, critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .sign(by, hashes.SHA256())
    )


def pem(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """An authority of nobody's but ours: its certificate; beside it what a server of its needs, and what one
    at another address has."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem(certificate("our CA", keys[0], "our CA", keys[0])))
    secret = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, address in (("server.pem", "127.0.0.1"), ("other.pem", "192.0.2.1")):
        made = certificate("store", keys[1], "our CA", keys[0], address)
        (tmp_path / file).write_bytes(pem(made) + secret)
    return bundle


@asynccontextmanager
async def serving(chain: Path) -> AsyncIterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    server = Server([Answer(200, LISTING, found().headers)])
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
async def server(authority: Path) -> AsyncIterator[Server]:
    async with serving(authority.with_name("server.pem")) as server:
        yield server


@pytest.fixture(params=["direct", "through a proxy"])
async def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy | None]:
    """The way to the server: the proxy that the environment names, if it does."""
    for variable in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(wire, "PAUSES", ())
    if request.param == "direct":
        yield None
        return
    async with proxy() as passing:
        monkeypatch.setenv("https_proxy", passing.url)
        yield passing


def settings(server: Server, ca_bundle: Path | None) -> StoreSettings:
    endpoint = f"https://127.0.0.1:{server.port}"
    return settings_of(server).model_copy(update={"endpoint": endpoint, "ca_bundle": ca_bundle})


Call = Callable[[S3Bucket], Awaitable[object]]
calls = pytest.mark.parametrize(
    "call", [lambda b: b.head("k"), lambda b: b.check()], ids=["objects", "buckets"]
)


@calls
async def test_a_store_with_a_certificate_of_the_bundle_is_believed_and_no_other(
    server: Server, authority: Path, way: Proxy | None, call: Call
) -> None:
    believing = await S3Store.open("test", settings(server, authority))
    doubting = await S3Store.open("test", settings(server, None))
    try:
        await call(believing.bucket("b"))
        asked = server.asked
        assert asked in {"HEAD GET", "GET"}  # before it is believed of an object, the bucket lists itself
        with pytest.raises(TryAgain, match=r"(?i)certificate"):
            await call(doubting.bucket("b"))
        assert server.asked == asked
        assert way is None or set(way.seen) == {f"CONNECT 127.0.0.1:{server.port}"}
    finally:
        await believing.close()
        await doubting.close()


@calls
async def test_a_certificate_of_somebody_else_is_not_believed_whoever_made_it(
    authority: Path, way: Proxy | None, call: Call
) -> None:
    async with serving(authority.with_name("other.pem")) as server:
        store = await S3Store.open("test", settings(server, authority))
        try:
            with pytest.raises(TryAgain, match=r"(?i)certificate"):
                await call(store.bucket("b"))
        finally:
            await store.close()
        assert server.asked == "", "nothing was said to a stranger"


async def test_a_bundle_that_holds_no_certificate_is_an_error_that_names_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"stores\.mcs\.ca_bundle.*PEM"):
        await S3Store.open("mcs", settings(Server(port=1), bundle))
