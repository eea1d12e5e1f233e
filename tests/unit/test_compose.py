"""What docker-compose is given: its variables, its configurations, and the gate before the services."""

import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import BaseModel

from common.errors import ConfigError
from common.settings import PREFIX, Settings
from common.settings import load as load_settings
from common.tables import MetricsSettings, StoreSettings
from demo.gate import (
    DEMO_HOSTS,
    DEMO_PASSWORD,
    refuse_absent_demo,
    refuse_buckets,
    refuse_demo_password,
    refuse_empty,
    refuse_password,
    refuse_unrouted,
)

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
DEMO, PRODUCTION = (ROOT / "deploy/compose" / f"{name}.toml" for name in ("demo", "production"))


def variables(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}[A-Z_]+", text)) - {"HOOKMIRROR_CONFIG", "HOOKMIRROR_LOG"}


def known() -> Iterator[str]:
    """The variables that the settings know, with the two stores of docker-compose.yml."""
    for name, field in Settings.model_fields.items():
        table = field.annotation
        if name == "stores":
            for store in ("MCS", "AWS"):
                yield from (f"{PREFIX}STORES__{store}__{key.upper()}" for key in StoreSettings.model_fields)
        elif isinstance(table, type) and issubclass(table, BaseModel):
            yield from (f"{PREFIX}{name.upper()}__{key.upper()}" for key in table.model_fields)
        else:
            yield f"{PREFIX}{name.upper()}"


def parsed(path: Path) -> Settings:
    return Settings(**tomllib.loads(path.read_text()))


@pytest.fixture(autouse=True)
def _an_environment_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("text", [COMPOSE, EXAMPLE, DOCKERFILE], ids=["compose", "example", "Dockerfile"])
def test_every_variable_named_is_one_that_the_settings_know(text: str) -> None:
    assert variables(text)
    assert variables(text) <= set(known())


def test_every_variable_of_the_example_reaches_the_containers() -> None:
    assert variables(EXAMPLE) <= variables(COMPOSE)
    ours = set(re.findall(r"^#? ?([A-Z][A-Z_]+)=", EXAMPLE, re.M)) - variables(EXAMPLE) - {"COMPOSE_PROFILES"}
    assert ours <= set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))


def test_the_ports_of_the_image_are_those_that_compose_and_prometheus_use() -> None:
    port = re.search(rf"{PREFIX}METRICS__PORT=(\d+)", DOCKERFILE)
    assert port
    assert "port" in MetricsSettings.model_fields
    prometheus = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    assert set(re.findall(r"names: \[(?:receiver|worker)\], type: A, port: (\d+)", prometheus)) == {port[1]}
    assert f'"${{RECEIVER_PORT:-127.0.0.1:8080}}:{Settings().receiver.port}"' in COMPOSE


def test_the_demo_needs_nothing_filled_in() -> None:
    settings = parsed(DEMO)
    refuse_unrouted(settings)
    refuse_absent_demo(settings, known=DEMO_HOSTS.__contains__, wait=never)
    services = set(re.findall(r"^  ([a-z-]+):", COMPOSE, re.M))
    assert services >= DEMO_HOSTS
    assert settings.receiver.public_url == f"http://receiver:{settings.receiver.port}/webhook/of-the-demo"


def test_the_example_filled_in_is_a_whole_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    required = re.findall(rf"^({PREFIX}[A-Z_]+)=$", EXAMPLE, re.M)
    values = {
        "HOOKMIRROR_ROUTES": '[{"source": "mcs:my-bucket", "target": "aws:my-bucket-backup"}]',
        "HOOKMIRROR_RECEIVER__PUBLIC_URL": "https://hooks.example.org/webhook/0123456789abcdef",
    }
    for name in required:
        monkeypatch.setenv(name, values.get(name, "filled-in"))
    settings = load_settings(PRODUCTION)
    refuse_empty(os.environ)
    refuse_unrouted(settings)
    refuse_absent_demo(settings, known=never, wait=never)
    assert settings.stores["mcs"].access_key_id == settings.stores["aws"].access_key_id == "filled-in"


def test_every_line_left_empty_is_named_at_once() -> None:
    required = re.findall(rf"^({PREFIX}[A-Z_]+)=$", EXAMPLE, re.M)
    with pytest.raises(ConfigError) as caught:
        refuse_empty(dict.fromkeys(required, "") | {"PATH": "", "HOOKMIRROR_LOG": "json"})
    assert [line.split()[0] for line in str(caught.value).splitlines()] == sorted(required)


def test_the_demos_stores_without_the_demo_are_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigError, match=r"(?s)\.env\.example.*--profile demo"):
        refuse_absent_demo(parsed(DEMO), known=lambda _: False, wait=patience(3))


def test_a_demo_that_is_still_starting_is_waited_for() -> None:
    asked: list[str] = []

    def appears(host: str) -> bool:
        asked.append(host)
        return len(asked) > 3

    refuse_absent_demo(parsed(DEMO), known=appears, wait=patience(3))
    assert set(asked) == DEMO_HOSTS


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "HOOKMIRROR_ROUTES="),
        ('[[routes]]\nsource = "a:b"\ntarget = "a:c"\n[stores.a]\n', "HOOKMIRROR_RECEIVER__PUBLIC_URL="),
    ],
)
def test_what_is_missing_is_told_with_the_line_to_write(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        refuse_unrouted(Settings(**tomllib.loads(text)))


def test_an_empty_password_of_rabbitmq_is_named_and_is_not_replaced_by_the_demos() -> None:
    with pytest.raises(ConfigError, match=r"RABBITMQ_PASSWORD is empty\. Make one"):
        refuse_empty({"RABBITMQ_PASSWORD": ""})
    uses = re.findall(r"\$\{RABBITMQ_PASSWORD([^}]*)\}", COMPOSE)
    assert set(uses) == {f"-{DEMO_PASSWORD}"}, "`:-` would take the demo's for an empty one"


@pytest.mark.parametrize("password", ["with#hash", "with@at", "pa%41ss", "with blank", "ж"])
def test_a_password_that_cannot_stand_in_a_url_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(ConfigError, match=r"RABBITMQ_PASSWORD: write letters and digits") as caught:
        refuse_password({"RABBITMQ_PASSWORD": password})
    assert password not in str(caught.value)
    refuse_password({"RABBITMQ_PASSWORD": "0123456789abcdef"})


def test_the_demos_password_is_the_demos_alone() -> None:
    environ = {"RABBITMQ_PASSWORD": DEMO_PASSWORD}
    refuse_demo_password(environ, parsed(DEMO))
    with pytest.raises(ConfigError, match="RABBITMQ_PASSWORD is missing"):
        refuse_demo_password(environ, parsed(PRODUCTION))
    refuse_demo_password({"RABBITMQ_PASSWORD": "another"}, parsed(PRODUCTION))


def test_the_broker_starts_after_the_check_as_everything_of_ours_does() -> None:
    broker = COMPOSE[COMPOSE.index("\n  rabbitmq:") :]
    assert re.match(r".*?depends_on:\s+check: \{condition: service_completed_successfully\}", broker, re.S)


def test_the_demos_user_never_works_on_buckets_of_ours() -> None:
    refuse_buckets(parsed(DEMO))
    with pytest.raises(ConfigError, match=r"\.env names buckets of yours.*--env-file /dev/null"):
        refuse_buckets(parsed(PRODUCTION))


def never(*_: object) -> NoReturn:
    raise AssertionError("nobody is to be asked or waited for")


def patience(times: int) -> Callable[[], None]:
    left = iter(range(times))

    def wait() -> None:
        if next(left, None) is None:
            raise TimeoutError

    return wait
