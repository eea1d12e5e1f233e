"""Signatures of our own are those of botocore, to the character."""

import re
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from common.store.sign import UNSIGNED, Keys, Signer
from tests.lab.keys import AWKWARD

NOW = 1_700_000_000.0
HOST = "b.s3.example.org:8333"
KEYS = Keys("AKID", "se/cret+key")
TOKEN = Keys("ASIA", "another", "token==/+")


class _Botocore(S3SigV4Auth):  # type: ignore[misc,unused-ignore]
    def payload(self, request: AWSRequest) -> str:
        return str(request.context.get("digest", UNSIGNED))


def theirs(
    method: str, path: str, query: str, headers: dict[str, str], keys: Keys, now: float, region: str
) -> str:
    """The Authorization that botocore gives a request."""
    url = f"https://{HOST}{path}{'?' if query else ''}{query}"
    request = AWSRequest(method, url, headers=dict(headers))
    request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    if digest := headers.get("x-amz-content-sha256"):
        request.context["digest"] = digest
    signer = _Botocore(ReadOnlyCredentials(keys.id, keys.secret, keys.token or None), "s3", region)
    with pytest.MonkeyPatch.context() as patch:
        moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        patch.setattr("botocore.auth.get_current_datetime", lambda: moment, raising=False)
        signer.add_auth(request)
    return str(request.headers["Authorization"])


def assert_same(
    method: str, path: str, query: str = "", *, keys: Keys = KEYS, headers: dict[str, str] | None = None
) -> None:
    sent = {"host": HOST, **(headers or {})}
    ours = Signer("eu-west-1").sign(method, path, query, sent, keys=keys, now=NOW)
    assert ours["authorization"] == theirs(method, path, query, sent, keys, NOW, "eu-west-1")
    assert {name: ours[name] for name in sent} == sent
    assert ours.get("x-amz-security-token", "") == keys.token


@pytest.mark.parametrize("keys", [KEYS, TOKEN], ids=["for ever", "expiring"])
@pytest.mark.parametrize("key", AWKWARD, ids=repr)
def test_every_key_is_signed_as_botocore_signs_it(key: str, keys: Keys) -> None:
    assert_same("GET", f"/bucket/{quote(key, safe='/~')}", keys=keys)


@pytest.mark.parametrize(
    "query",
    [
        "uploads=",
        "tagging=",
        "partNumber=2&uploadId=a%2Fb%3D",
        "max-parts=1000&part-number-marker=0&uploadId=x",
        "list-type=2&prefix=a%20b&max-keys=0",
        "a-b=1&a=2&a=1",
    ],
)
def test_every_query_is_signed_as_botocore_signs_it(query: str) -> None:
    assert_same("POST", "/bucket/key", query)


headers = st.dictionaries(
    st.from_regex(r"\Ax-amz-meta-[a-z0-9-]{1,20}\Z"),
    st.text(st.characters(min_codepoint=32, exclude_categories=("Z", "Cc", "Cs"), include_characters=" ")),
    max_size=6,
)


@given(st.sampled_from(["GET", "PUT", "DELETE", "HEAD"]), headers)
def test_headers_of_any_kind_are_signed_as_botocore_signs_them(method: str, headers: dict[str, str]) -> None:
    assert_same(method, "/b/k", keys=TOKEN, headers=headers | {"content-md5": "abc==", "range": "bytes=0-1"})


def test_a_digest_of_the_body_is_signed_in_place_of_none() -> None:
    assert_same("PUT", "/b/", "notification=", headers={"x-amz-content-sha256": "0" * 64})


def test_the_key_of_the_day_changes_with_the_day_and_with_the_secret() -> None:
    signer = Signer("eu-west-1")
    for keys, now in [(KEYS, NOW), (KEYS, NOW + 86_400), (TOKEN, NOW + 86_400), (KEYS, NOW)]:
        ours = signer.sign("GET", "/b/k", "", {"host": HOST}, keys=keys, now=now)["authorization"]
        assert ours == theirs("GET", "/b/k", "", {"host": HOST}, keys, now, "eu-west-1")
        assert re.search(r"Signature=[0-9a-f]{64}$", ours)
