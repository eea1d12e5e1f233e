"""Log lines: one an event, no secret, an action of the closed list."""

import ast
import io
import json
import logging
import re
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import telemetry
from common.telemetry import Action, configure, log, one_line

ROOT = Path(__file__).parents[2]
SECRET = 'p"a\\ss/w+rd=&é%'
FORMATS = ["json", "human"]


class Lines:
    """What is written to a log of the format `fmt`."""

    def __init__(self, fmt: str, *secrets: str) -> None:
        self.stream = io.StringIO()
        configure(fmt=fmt, secrets=secrets, stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


AWKWARD = "a\nb\rc\x00d\x1b[2J\x7f\x85\x9b\u2028e\u2029f\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_event_is_one_line_whatever_the_key_holds(fmt: str) -> None:
    lines = Lines(fmt)
    log(Action.COPIED, f"copied {AWKWARD}", key=AWKWARD, why=AWKWARD)
    assert len(lines.text.splitlines()) == 1
    assert lines.text.endswith("\n")


@pytest.mark.parametrize("fmt", FORMATS)
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_is_one_line_that_steers_no_terminal(fmt: str, text: str) -> None:
    lines = Lines(fmt)
    log(Action.SKIPPED, text, key=text)
    assert lines.text.count("\n") == 1
    assert len(lines.text.splitlines()) == 1
    assert not {"\x1b", "\x9b", "\x00", "\r"} & set(lines.text)


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_text_of_an_exception_steers_no_terminal_either(fmt: str) -> None:
    lines = Lines(fmt)
    try:
        raise ValueError("key \x1b[2J\x1b]0;title\x07 \r hidden")
    except ValueError:
        logging.getLogger("hookmirror").exception("an observer failed")
    assert "ValueError" in lines.text
    assert not {"\x1b", "\x07", "\r"} & set(lines.text)


def test_a_traceback_is_one_line_for_a_machine() -> None:
    lines = Lines("json")
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("hookmirror").exception("failed")
    [line] = lines.text.splitlines()
    assert "ValueError: x" in json.loads(line)["traceback"]


def test_a_json_line_carries_the_sentence_the_action_and_the_fields() -> None:
    lines = Lines("json")
    log(Action.COPIED, "copied", task="id", attempt=2, key="é\n", size=10)
    entry = json.loads(lines.text)
    at = datetime.fromisoformat(entry.pop("at"))
    assert at.tzinfo is not None
    assert at.timestamp() == pytest.approx(entry.pop("time"), abs=0.001)
    assert entry == {
        "level": "info",
        "action": "copied",
        "message": "copied",
        "task": "id",
        "attempt": 2,
        "key": "é\n",
        "size": 10,
    }


def test_a_human_line_carries_them_too() -> None:
    lines = Lines("human")
    log(Action.BURIED, "Refused: too large", level=logging.ERROR, key="a b", attempt=3)
    assert "ERROR" in lines.text
    for part in ("buried", "Refused: too large", "key=a b", "attempt=3"):
        assert part in lines.text


def test_a_human_line_has_date_and_zone() -> None:
    lines = Lines("human")
    log(Action.STARTED, "started")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} INFO ", lines.text)


def test_auto_is_json_where_there_is_no_terminal() -> None:
    lines = Lines("auto")
    log(Action.STARTED, "started")
    assert json.loads(lines.text)["action"] == "started"


def test_auto_is_for_people_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure(fmt="auto", stream=stream)
    log(Action.STARTED, "worker started")
    assert stream.getvalue().rstrip().endswith("worker started")


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_line_of_a_library_takes_the_same_form_from_warnings_up(fmt: str) -> None:
    lines = Lines(fmt)
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("uvicorn.error").warning("two\nlines %s", "\x1b[1m")
    [line] = lines.text.splitlines()
    assert "library" in line
    assert "\x1b" not in line
    assert "chatter" not in line


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    lines = Lines("json")
    log(Action.STARTED, "started", path=Path("/tmp"), names={"a"})  # noqa: S108
    assert json.loads(lines.text)["path"] == "/tmp"  # noqa: S108


WAYS_TO_WRITE = {
    "as it is": SECRET,
    "as JSON": json.dumps(SECRET),
    "as JSON in UTF-8": json.dumps(SECRET, ensure_ascii=False),
    "as repr": repr(SECRET),
    "in a list": str([SECRET]),
    "in a URL": f"amqp://user:{quote(SECRET, safe='')}@host/",
    "in a URL with slashes": f"https://host/{quote(SECRET)}",
    "in a form": f"token={quote_plus(SECRET)}",
}


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_secret_is_hidden_in_whichever_way_it_is_written(fmt: str, way: str) -> None:
    lines = Lines(fmt, SECRET)
    log(Action.FAILED, f"refused: {WAYS_TO_WRITE[way]}.", why=f"because of {WAYS_TO_WRITE[way]}.")
    assert lines.text.count("***") == 2
    assert "ss/w" not in lines.text
    assert "ss%2Fw" not in lines.text


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_secret_is_hidden_in_a_traceback(fmt: str) -> None:
    lines = Lines(fmt, SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("aiohttp").exception("failed")
    assert "***" in lines.text
    assert "ss/w" not in lines.text


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_secret_in_another_value_or_in_the_name_of_a_library_line_is_hidden(fmt: str) -> None:
    lines = Lines(fmt, "hush-hush")
    logging.getLogger("uvicorn").error("POST /webhook/%s HTTP/1.1", "hush-hush")
    log(Action.FAILED, "x", nested={"deep": ["hush-hush"]})
    assert lines.text.count("***") == 2
    assert "hush" not in lines.text


def test_a_secret_that_contains_another_is_hidden_whole() -> None:
    lines = Lines("human", "abcd", "abcdefgh")
    log(Action.FAILED, "it was abcdefgh")
    assert "efgh" not in lines.text


def test_an_empty_secret_hides_nothing() -> None:
    lines = Lines("json", "")
    log(Action.STARTED, "started")
    assert "***" not in lines.text


def test_a_secret_leaves_a_json_line_json() -> None:
    lines = Lines("json", SECRET, "message")
    log(Action.FAILED, f"a {SECRET} b", key="\n")
    assert isinstance(json.loads(lines.text), dict)


@given(st.text())
def test_one_line_changes_only_control_characters(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    if text.isprintable():
        assert shown == text


def test_control_characters_are_written_out_so_that_a_person_can_tell_them() -> None:
    assert one_line("a\nb\x1b\u2028") == "a\\nb\\x1b\\u2028"


def test_every_log_call_names_an_action_of_the_closed_list() -> None:
    for package in ("common", "receiver", "worker", "console"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log":
                    first = ast.unparse(node.args[0])
                    # a name of the enum, or the action of an outcome, whose type mypy has checked
                    named = first.removeprefix("Action.") in Action.__members__ or first == "result.action"
                    assert named, f"{path}:{node.lineno}: log({first}, ...)"


def test_the_actions_are_names_that_a_query_can_use() -> None:
    values = [action.value for action in Action]
    assert len(set(values)) == len(values)
    assert all(value.replace("_", "").isalpha() and value.islower() for value in values)
    assert telemetry.__doc__


def test_who_renews_often_makes_nobody_elses_secret_visible() -> None:
    lines = Lines("json", "a")
    telemetry.hide("rare", "rare-secret", "rare-token")
    for number in range(100):
        telemetry.hide(f"store {number % 20}", f"secret-{number}", f"token-{number}")
    log(Action.STARTED, "rare-secret, rare-token, secret-99, token-80")
    assert "***, ***, ***, ***" in lines.text


def test_a_text_too_short_to_be_a_secret_is_never_hidden() -> None:
    lines = Lines("json", "a", "seven77", "eight888")
    telemetry.hide("a", "b")
    log(Action.STARTED, "a banana, seven77, eight888")
    assert "a banana, seven77, ***" in lines.text
