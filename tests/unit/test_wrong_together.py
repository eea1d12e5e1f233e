"""Values of the configuration that are right one by one, and wrong together."""

import json
from pathlib import Path

import pytest

from common.settings import load
from tests.unit.test_wrong_values import SECRET, WHOLE, place, said_of, toml, with_value  # noqa: F401

pytestmark = pytest.mark.usefixtures("place")


def forwarding(folder: Path, url: str, kind: str = "routes") -> Path:
    """A configuration that sends events to `url`, and has a URL of its own for each kind of hook."""
    whole = json.loads(json.dumps(WHOLE))
    whole["receiver"] |= {"public_url": "https://hooks.example.org/webhook/0123456789abcdef"}
    whole["stores"]["mcs"]["public_url"] = "https://hooks.example.org/mcs/0123456789abcdef"
    del whole["routes"][0]["target"], whole["stack_routes"][0]["log"]
    whole["routes"][0]["exec"] = whole["stack_routes"][0]["exec"] = "x.sh"
    del whole[kind][0]["exec"]
    whole[kind][0] |= {"forward": url, "secret": SECRET}
    file = folder / "hookmirror.toml"
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in whole.items()))
    return file


@pytest.mark.parametrize("kind", ["routes", "stack_routes"])
@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://hooks.example.org/webhook/0123456789abcdef", "receiver.public_url"),
        ("http://HOOKS.example.org:80/webhook/0123456789%61bcdef?x=1", "receiver.public_url"),
        ("https://hooks.example.org:443/stacks/0123456789abcdef", "receiver.stack_url"),
        ("https://hooks.example.org/mcs/0123456789abcdef", "stores.mcs.public_url"),
        ("http://localhost:8080/webhook/0123456789abcdef", "receiver.public_url"),
        ("http://[::1]:8080/mcs/0123456789abcdef", "stores.mcs.public_url"),
    ],
)
def test_events_are_not_sent_to_our_own_urls(
    url: str, key: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(forwarding(tmp_path, url, kind), capsys)
    which = "the first route" if kind == "routes" else "the first stack route"
    assert (
        f"{which}: forward: it leads to {key}, so that each event would come back: write the URL of" in said
    )
    assert "0123456789abcdef" not in said


@pytest.mark.parametrize(
    "url", ["https://hooks.example.org/webhook/other", "https://hooks.example.org:8443/"]
)
def test_events_may_be_sent_to_others_on_our_host(url: str, tmp_path: Path) -> None:
    assert load(forwarding(tmp_path, url)).routes[0].forward == url


def test_a_server_of_ones_own_may_have_a_region_in_capitals(tmp_path: Path) -> None:
    text = with_value("stores.mcs", '{endpoint = "http://127.0.0.1:9000", region = "RegionOne"}')
    (tmp_path / "hookmirror.toml").write_text(text)
    assert load(tmp_path / "hookmirror.toml").stores["mcs"].region == "RegionOne"


def test_prefixes_that_leave_no_room_for_a_key_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each may be as long as this, and the two together may not."""
    route = {"source": "mcs:photos", "target": "aws:backup", "prefix": "p" * 600}
    (tmp_path / "hookmirror.toml").write_text(
        with_value("routes", toml([route | {"target_prefix": "t" * 424}]))
    )
    assert load(tmp_path / "hookmirror.toml").routes
    (tmp_path / "hookmirror.toml").write_text(
        with_value("routes", toml([route | {"target_prefix": "t" * 425}]))
    )
    said = said_of(tmp_path / "hookmirror.toml", capsys)
    assert "the first route: target_prefix and prefix have 1025 bytes together" in said
    assert "write a shorter target_prefix" in said


@pytest.mark.parametrize("key", ["trusted_proxies", "allowed_networks"])
@pytest.mark.parametrize(
    ("networks", "everybody"),
    [
        (["0.0.0.0/0"], "0.0.0.0/0 is everybody"),
        (["10.0.0.0/8", "::/0"], "::/0 is everybody"),
        (["::/0", "0.0.0.0/0"], "0.0.0.0/0 and ::/0 is everybody"),
        (["0.0.0.0/1", "128.0.0.0/1"], "0.0.0.0/0 is everybody"),
        (["10.0.0.0/8", "fd00::/8"], ""),
    ],
)
def test_a_list_of_networks_that_holds_everybody_is_told_at_the_start(
    key: str, networks: list[str], everybody: str, tmp_path: Path
) -> None:
    (tmp_path / "hookmirror.toml").write_text(with_value(f"receiver.{key}", json.dumps(networks)))
    said = [
        line for line in load(tmp_path / "hookmirror.toml").exposed() if line.startswith(f"receiver.{key}")
    ]
    assert bool(said) == bool(everybody)
    assert all(f"receiver.{key}: {everybody}" in line for line in said)
