"""Which values look like credentials: pure. When in doubt a value is hidden.

What cannot be seen is a secret of a few plain characters under a name that says nothing.
"""

import json
import re
from collections.abc import Mapping

HIDDEN = "***"

_TELLTALES = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|credential|signature|auth|cookie"
    r"|(?:private|access|api|ssh|signing|encryption|master)[_\-. ]?key"
    r"|kube[_\-. ]?config|connection[_\-. ]?string|curl[_\-. ]?cli"
)
_SECRET_KEY = re.compile(_TELLTALES, re.IGNORECASE)

_SECRET_WORDS = frozenset(["pass", "pw", "psk", "pin", "otp", "sig", "sas", "jwt", "cred", "creds", "sk"])
"""Words that say it only when they stand alone, as in DbPass or db_pass, and not in Bypass."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_TELLING = re.compile(
    r"-----BEGIN "
    r"|://[^\s/?#@]{0,256}@"
    r"|://[^\s/?#@:]{0,256}:[^\s@]{0,256}@"  # with a password that should have been escaped
    rf"|(?i:{_TELLTALES})[\w.-]{{0,40}}[\"'\\]{{0,3}}\s{{0,8}}[:=]"
    r"|(?i:\b(?:sig|pass|pw|psk|jwt|pin|otp))[\"'\\]{0,3}\s{0,8}[:=]"
    r"|(?i:\bbearer\s{1,8}[\w+/=.~-]{6}|\bbasic\s{1,8}[\w+/=-]{12})"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12}|LTAI[0-9A-Za-z]{8}|AIza[\w-]{20}"
    r"|\b(?:gh[opsru]|xox[abprs]|glpat|sk|rk|pk)[-_][\w-]{6}"
    r"|\beyJ[\w-]{6}"
)
"""What gives a secret away wherever it stands. Each repetition has its bound: a value may be long."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-fA-F])")

_RUN = re.compile(r"[A-Za-z0-9+/=_%~-]{20,}")

_PLAIN_PART = re.compile(
    r"[a-z]{1,5}-[a-z0-9]{15,22}"  # the id of a resource: i-bp1..., vpc-..., i-0abc...
    r"|\d{4}-\d\d-\d\dT\d\d(?:-?\d\d){0,2}\w{0,5}"  # a time, as far as its colon
)

_SEGMENTS = re.compile(r"[_=+~-]")

_PLAIN_SEGMENT = re.compile(
    r"(?:[A-Z]?[a-z]{1,18}(?:[A-Z][a-z]{1,18}){0,4}|[A-Z]{0,12})\d{0,4}|\d{1,13}|v?\d{1,4}[a-z]{0,3}|[A-Za-z]{0,31}"
)
"""A piece of a path or of a name that somebody chose: words, one with a small number, or a number."""


def masked(key: str, value: object) -> str:
    """Return `value`, any JSON, as text for a log or a table: `***` for what looks like a credential, by the
    name `key` or by itself; inside of lists and objects only that."""
    shown = _shown(key, value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def reads_as_words(text: str) -> bool:
    """Whether somebody may have thought of `text`: words and numbers, and no key, digest or random text."""
    return _is_plain_part(text)


def _shown(key: str, value: object) -> object:
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return value
    if _names_secret(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {HIDDEN if _is_secret(name) else name: _shown(name, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shown("", part) for part in value]
    return HIDDEN if _is_secret(str(value)) else value


def _names_secret(key: str) -> bool:
    words = {word.lower() for word in _WORD.findall(key)}
    return bool(_SECRET_KEY.search(key) or words & _SECRET_WORDS)


def _is_secret(text: str) -> bool:
    return bool(_TELLING.search(text)) or not all(map(_is_plain, _RUN.findall(_UUID.sub("uuid", text))))


def _is_plain(run: str) -> bool:
    """Whether so many characters without a blank are something else than a key, a digest or a signature."""
    return "%" not in run and all(map(_is_plain_part, run.split("/")))


def _is_plain_part(part: str) -> bool:
    return bool(_PLAIN_PART.fullmatch(part)) or all(map(_PLAIN_SEGMENT.fullmatch, _SEGMENTS.split(part)))
