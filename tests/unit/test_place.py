"""Where a bucket is: one string for every name and address of it."""

from urllib.parse import urlsplit

import pytest

from common.store.place import CLOUDS, place
from common.tables import StoreSettings

SAME: dict[str, list[str | None]] = {
    "hb.vkcloud-storage.ru/b": [
        "https://hb.vkcloud-storage.ru",
        "https://hb.ru-msk.vkcloud-storage.ru",
        "https://hb.bizmrg.com",
        "https://hb.vkcs.cloud",
        "HTTPS://HB.BizMrg.com",
        "https://hb.bizmrg.com/",
        "https://hb.bizmrg.com.",
        "https://hb.bizmrg.com.:443//",
        "http://hb.bizmrg.com",
        "http://hb.bizmrg.com:80/",
        "http://hb.bizmrg.com:443",
        "https://user:pass@hb.vkcs.cloud",
    ],
    "hb.kz-ast.vkcloud-storage.ru/b": [
        "https://hb.kz-ast.vkcloud-storage.ru",
        "https://hb.kz-ast.bizmrg.com:443",
    ],
    "hb.vkcs.cloud:8443/b": ["https://hb.vkcs.cloud:8443", "http://HB.vkcs.cloud:8443/"],
    "xn--e1afmkfd.xn--p1ai/s3/b": [
        "https://xn--e1afmkfd.xn--p1ai/s3",
        "https://пример.рф/s3/",
        "https://ПРИМЕР.рф/./s3/.",
    ],
    "aws/b": [
        None,
        "",
        "https://s3.amazonaws.com",
        "https://s3.eu-central-1.amazonaws.com",
        "http://S3.EU-central-1.amazonaws.com:80/",
        "https://s3-us-west-2.amazonaws.com",
        "https://s3.us-west-2.api.aws",
        "https://s3.dualstack.eu-west-1.amazonaws.com",
        "https://s3-fips.us-east-2.amazonaws.com",
        "https://s3-fips.dualstack.us-east-2.amazonaws.com",
        "https://s3-accelerate.amazonaws.com",
        "https://s3-accelerate.dualstack.amazonaws.com",
        "https://bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
        "https://s3express-use1-az4.us-east-1.amazonaws.com",
    ],
    "aws-cn/b": [
        "https://s3.cn-north-1.amazonaws.com.cn",
        "https://s3.dualstack.cn-northwest-1.amazonaws.com.cn/",
    ],
    "aws-us-gov/b": [
        "https://s3.us-gov-west-1.amazonaws.com",
        "https://s3-fips.us-gov-east-1.amazonaws.com",
    ],
    "ec2-3-80-1-2.compute-1.amazonaws.com:9000/b": ["http://ec2-3-80-1-2.compute-1.amazonaws.com:9000"],
    "s3.example.org/b": ["https://s3.example.org", "http://s3.example.org"],
    "s3.example.org/gateway/b": ["https://s3.example.org/gateway", "https://S3.example.org/gateway//"],
    "s3.example.org/Gateway/b": ["https://s3.example.org/Gateway"],
    "127.0.0.1/b": [
        "http://localhost",
        "http://LocalHost./",
        "http://127.0.0.1:80",
        "https://[::1]:443",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://0177.0.0.01",
    ],
    "10.0.0.9/b": ["http://10.0.0.9", "http://10.9", "http://0xa000009"],
    "1.2.3.4.5/b": ["http://1.2.3.4.5"],
    "999999999999/b": ["http://999999999999"],
    "127.0.0.1:8333/b": [
        "http://localhost:8333",
        "https://127.0.0.1:8333/",
        "http://[::1]:8333",
        "http://[0:0:0:0:0:0:0:1]:8333",
        "http://0.0.0.0:8333",
        "http://[::ffff:127.0.0.1]:8333",
    ],
    "127.0.0.2:8333/b": ["http://127.0.0.2:8333"],
    "127.0.0.1:8334/b": ["http://127.0.0.1:8334"],
    "[2001:db8::1]:9000/b": ["http://[2001:DB8::1]:9000", "http://[2001:db8:0:0::1]:9000/"],
    "[2001:db8::1]/b": ["https://[2001:db8::1]"],
}

ADDRESSES = [(expected, endpoint) for expected, all_ in SAME.items() for endpoint in all_]


@pytest.mark.parametrize(("expected", "endpoint"), ADDRESSES)
def test_every_address_of_a_bucket_is_one_place(expected: str, endpoint: str | None) -> None:
    assert place(endpoint, "b") == expected


def test_the_name_of_a_bucket_counts_to_the_letter() -> None:
    assert place(None, "photos") != place(None, "Photos")


@pytest.mark.parametrize("name", sorted({*CLOUDS, *CLOUDS.values()}))
def test_a_name_of_a_cloud_leads_to_one_that_leads_nowhere_else(name: str) -> None:
    whole = place(f"https://{name}", "b").removesuffix("/b")
    assert urlsplit(f"//{whole}").hostname == whole
    assert place(f"https://{whole}", "b") == f"{whole}/b"


@pytest.mark.parametrize(
    ("region", "expected"),
    [("eu-central-1", "aws/b"), ("cn-north-1", "aws-cn/b"), ("us-gov-west-1", "aws-us-gov/b")],
)
def test_a_store_without_an_endpoint_is_the_cloud_of_amazon_that_its_region_is_in(
    region: str, expected: str
) -> None:
    assert StoreSettings(region=region).place("b") == expected
    assert (
        StoreSettings(endpoint="https://hb.bizmrg.com", region=region).place("b") == "hb.vkcloud-storage.ru/b"
    )
