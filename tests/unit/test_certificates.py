"""The certificates of SNS: which are kept, and how often they are fetched."""

import asyncio
import gc
import ssl
from datetime import UTC, datetime

import pytest

from common.errors import SenderAway
from receiver import certificates
from receiver.certificates import Certificates, read
from tests.lab.amazon import certify, rsa_key


class Shelf:
    """Has what is at a URL; waits for `answering`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.page = certify(rsa_key())
        self.answering = asyncio.Event()
        self.answering.set()

    async def fetch(self, url: str) -> bytes:
        self.seen.append(url)
        await self.answering.wait()
        if url == "away":
            raise SenderAway("no answer")
        return self.page


def now() -> datetime:
    return datetime.now(UTC)


async def test_who_was_not_needed_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_CERTIFICATES", 2)
    shelf = Shelf()
    known = Certificates(shelf.fetch, now)
    for url in ("a", "b", "a", "c", "a", "b"):
        await known.find(url)
    assert shelf.seen == ["a", "b", "c", "b"]


async def test_all_who_wait_for_one_that_cannot_be_had_are_told_and_the_next_asks_again() -> None:
    shelf = Shelf()
    known = Certificates(shelf.fetch, now)
    told = await asyncio.gather(*(known.find("away") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in told] == [SenderAway] * 3
    assert shelf.seen == ["away"]
    with pytest.raises(SenderAway):
        await known.find("away")
    assert shelf.seen == ["away"] * 2


async def test_who_goes_away_while_he_waits_takes_nothing_from_the_others() -> None:
    shelf = Shelf()
    shelf.answering.clear()
    known = Certificates(shelf.fetch, now)
    first, second = (asyncio.create_task(known.find("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    shelf.answering.set()
    assert (await second).ends > now()
    assert shelf.seen == ["a"]


async def test_one_that_is_not_valid_is_not_kept_in_the_place_of_a_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "MAX_CERTIFICATES", 1)
    shelf = Shelf()
    known = Certificates(shelf.fetch, now)
    await known.find("good")
    shelf.page = certify(rsa_key(), begins=-2, ends=-1)
    with pytest.raises(SenderAway, match="clock"):
        await known.find("expired")
    await known.find("good")
    assert shelf.seen == ["good", "expired"]


async def test_a_fetch_that_fails_when_nobody_waits_any_more_is_no_cause_for_complaint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "PATIENCE", 0)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    shelf = Shelf()
    shelf.answering.clear()
    known = Certificates(shelf.fetch, now)
    with pytest.raises(SenderAway, match="within"):
        await known.find("away")
    [fetching] = known._coming.values()
    shelf.answering.set()
    await asyncio.wait([fetching])
    del fetching
    gc.collect()
    assert complaints == []


async def test_what_is_still_coming_at_the_end_is_given_up() -> None:
    shelf = Shelf()
    shelf.answering.clear()
    known = Certificates(shelf.fetch, now)
    waiting = asyncio.create_task(known.find("a"))
    await asyncio.sleep(0)
    await known.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


def of_no_version(pem: bytes) -> bytes:
    """The certificate, said to be of a version that there is not."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)).encode()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"x",
        b"\xff",
        certify(rsa_key())[:-60],
        b"-----BEGIN CERTIFICATE-----",
        of_no_version(certify(rsa_key())),
    ],
)
def test_what_is_no_certificate_is_to_be_asked_for_again(pem: bytes) -> None:
    with pytest.raises(SenderAway):
        read(pem)
