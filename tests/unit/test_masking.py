"""What looks like a credential is hidden, and what does not is shown."""

import json
import time
from typing import Any

import pytest

from common.masking import HIDDEN, masked
from tests.lab.samples import sample

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key",
    [
        "Password", "DbPassword", "db_passwd", "MYSQL-PWD", "PassPhrase", "Pass", "DbPass", "ClientSecret",
        "token", "AccessToken", "Credential", "credentials", "PrivateKey", "private_key", "Private Key",
        "AccessKeyId", "access-key",
        "ApiKey", "API_KEY", "SshKey", "Signature", "AuthCode", "authorization", "Cookie",
        "KubeConfig", "ConnectionString", "CurlCli", "Pin", "JWT", "Ak_SK",
    ],
)  # fmt: skip
def test_a_value_is_hidden_by_its_name_whatever_it_is(key: str) -> None:
    assert masked(key, "hunter2") == HIDDEN
    assert masked(key, 1234) == HIDDEN
    assert masked(key, {"a": ["b"]}) == HIDDEN


@pytest.mark.parametrize(
    "value",
    [
        PEM,
        "https://user:hunter2@example.org/",
        "redis://:hunter2@10.0.0.1:6379/0",
        "mysql -u root --password=hunter2",
        "Authorization: whatever",
        "curl -H 'authorization: Bearer abcdef' https://example.org",
        "Bearer abcdef.ghijkl",
        "Basic dXNlcjpodW50ZXIy",
        "https://example.org/x?signature=abc",
        "https://example.org/x?a=1&X-Amz-Signature=abc",
        "https://bucket.oss-cn-hangzhou.aliyuncs.com/x?OSSAccessKeyId=a&Expires=1&Signature=b",
        "https://example.org/x?token=1",
        "https://example.org/x?sig=1",
        '{"Password": "hunter2"}',
        '{\\"password\\": \\"hunter2\\"}',
        "user: bob, password : hunter2",
        "AKIAIOSFODNN7EXAMPLE",
        "the key is LTAI5tFakeFakeFakeFake12",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "9e107d9d372bb6826bd81d3542a419d6",
        "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==",
        "x7Gh2kLp9Qw3Er5Ty8Ui",
        "prefix x7Gh2kLp9Qw3Er5Ty8Ui suffix",
        "abc%2Bdef%2Fghi%3Djkl1",
        "ghp_abcdefghijkl",
        "sk-proj-abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "abcdefghijklmnopqrstuvwxyzabcdefghijk",
    ],
)
def test_a_value_that_gives_itself_away_is_hidden_under_any_name(value: str) -> None:
    assert masked("Value", value) == HIDDEN
    assert json.loads(masked("Value", {"a": [value], "b": 1})) == {"a": [HIDDEN], "b": 1}
    assert value not in masked("Value", {value: 1})


@pytest.mark.parametrize(
    "value",
    [
        "47.96.12.34", "10.0.0.0/16", "2001:db8::1", "i-bp1gtjxuuvwj17zr7q2k", "vpc-bp1opxu1zkhn00gzv26cn",
        "i-0abc1234def567890", "rm-bp1x2345abcdefghi.mysql.rds.aliyuncs.com:3306", "cn-hangzhou",
        "eu-central-1a",
        "https://example.org/", "http://47.96.12.34:8080/health?verbose=1",
        "https://ros.console.aliyun.com/cn-hangzhou/stacks/80bd6b6c-e888-4573-ae3b-93d29144911d",
        "80bd6b6c-e888-4573-ae3b-93d29144911d", "80BD6B6C-E888-4573-AE3B-93D29144911D",
        "42", "3.14", "1712345678901", "2026-01-05T09:30:00Z", "2026-01-05T09-30-00Z", "20260105T093000",
        "/var/www/my-application/releases/2026/index-v2.html",
        "arn:aws:iam::123456789012:role/AWSServiceRoleForX",
        "acs:ram::123456789012:role/ecs-role", "The stack is ready, have a look at it in the console.",
        "Basic settings were applied to all instances.", "No description given",
        "my-very-long-bucket-name-for-logs-01",
        "ElasticLoadBalancerListenerGroup", "Готово: стек создан", "a@example.org", "true", "running", "",
    ],
)  # fmt: skip
def test_what_is_no_credential_is_shown(value: str) -> None:
    assert masked("Value", value) == value


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("Count", 3, "3"),
        ("Password", None, "null"),
        ("Password", "", ""),
        ("Zones", ["cn-hangzhou-b", "cn-hangzhou-g"], '["cn-hangzhou-b", "cn-hangzhou-g"]'),
        ("Database", {"Host": "10.0.0.1", "Password": "x", "Port": 3306},
         '{"Host": "10.0.0.1", "Password": "***", "Port": 3306}'),
        ("Ok", True, "true"),
        ("Bypass", "no", "no"),
        ("KeyPairName", "my-key-pair", "my-key-pair"),
        ("MonkeyName", "bob", "bob"),
    ],
)  # fmt: skip
def test_values_of_every_kind_are_told_as_text(key: str, value: Any, shown: str) -> None:
    assert masked(key, value) == shown


def test_the_wait_condition_of_ros_is_hidden_under_any_name() -> None:
    command = sample("ros/create_complete")["Outputs"][0]["OutputValue"]
    assert command.startswith("curl -i -X POST ")
    assert masked("Value", command) == HIDDEN


UNITS = [
    "a",
    "token",
    "auth",
    "eyJ",
    "a1",
    "Ab",
    "://",
    "password ",
    "aB1-",
    "bearer ",
    "AbcDef-",
    "sk-",
    "%",
]


@pytest.mark.parametrize("unit", UNITS)
def test_a_long_value_takes_no_long_time(unit: str) -> None:
    start = time.process_time()
    masked("Value", unit * (256 * 1024 // len(unit)))
    assert time.process_time() - start < 5
