"""What is said of a file that is no TOML: the line, the key it is about, and what to write. Pure.

What stands in the file may be a secret, and is never shown.
"""

import re
import tomllib
from dataclasses import dataclass

_AT = re.compile(r"\(at line (\d+), column (\d+)\)")

_SAYS = {
    "Invalid value": 'text goes in quotes, as in  region = "ru-msk"; true and false do not',
    "Illegal character": "a character stands there that cannot be written so: take it out",
    "Unescaped": r"write \ as \\, or put the text in single quotes",
    "Cannot overwrite": "it is given twice: take one out (several routes are several [[routes]])",
    "Cannot declare": "this table is there twice: join the two",
    "Cannot mutate": "this table is closed already: write all of its keys in one place",
    "Expected newline": "there is more after the value: one line holds one key, a number has no leading zero",
    "Expected '='": 'write  key = "value"',
    "Expected ']'": "the bracket of the table is not closed: write  [table]  or  [[routes]]",
    "Invalid statement": 'write  key = "value",  or  [table]',
    "Unclosed": "a bracket is not closed, or a comma is missing",
    "Invalid initial character": 'write  key = "value"',
}

_QUOTE = ("Unterminated", "Illegal character '\\n'", "Found invalid character '\\n'", "Expected \"'")
"""How the library begins when a quote is not closed."""

_TYPOGRAPHIC = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"
_STRAIGHT = 'there are typographic quotes in it: write straight ones, as in  region = "ru-msk"'
_NO_VALUE = 'there is no value after the =: write one, as in  region = "ru-msk", or take the key out'
_OPEN = "its bracket is not closed: write ] or } after its last entry"

_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_TABLE = re.compile(r"""\s*\[\[?([\w."' -]+)\]?\]?\s*(#.*)?""")


@dataclass(frozen=True, slots=True)
class _Fault:
    """What the library `said` of `lines`, at line `number` from 1 and `column` from 0, which are the end when
    it is not `placed`; what is wrong begins at line `start`."""

    lines: list[str]
    said: str
    number: int
    column: int
    placed: bool
    start: int


def explain(text: str, said: str) -> str:
    """Return what to tell of `text`, in which `tomllib` found what it `said`."""
    lines = text.replace("\r\n", "\n").split("\n")
    at = _AT.search(said)
    number, column = (int(at[1]), int(at[2]) - 1) if at else (len(lines), len(lines[-1]))
    fault = _Fault(lines, said, number, column, at is not None, _start(lines, number))
    advice, line = _advice(fault)
    name = _name(lines, fault.start)
    where = f"line {line}" + (f", {name}" if name else "")
    return f"{where}: this is no TOML: {advice}"


def _start(lines: list[str], number: int) -> int:
    """Return the line at which the key or the table begins that is wrong at line `number`: all before it is
    TOML by itself."""
    for end in range(min(number, len(lines)) - 1, -1, -1):
        try:
            tomllib.loads("\n".join(lines[:end]))
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        blanks = (line for line in range(end, len(lines)) if _is_code(lines[line]))
        return min(next(blanks, end) + 1, number)
    return 1


def _is_code(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _name(lines: list[str], start: int) -> str:
    """Return the key that begins at line `start`, with its table."""
    heads = [found[1] for line in lines[:start] if (found := _TABLE.fullmatch(line))]
    key = _KEY.match(lines[start - 1])
    return ".".join(filter(None, [heads[-1].strip() if heads else "", key[1] if key else ""]))


def _advice(fault: _Fault) -> tuple[str, int]:
    """Return what to write, and in which line."""
    said, first, last = fault.said, fault.lines[fault.start - 1], fault.lines[fault.number - 1]
    key, rest = _KEY.match(first), last[fault.column :]
    if set(_TYPOGRAPHIC) & set(last if said.startswith(_QUOTE) else rest[:1]):
        return _STRAIGHT, fault.number
    if said.startswith(_QUOTE):
        return "a quote is not closed", fault.number if "character" in said else fault.start
    if said.startswith("Invalid value") and key and not _is_code(first[key.end() :]):
        return _NO_VALUE, fault.start
    if not fault.placed or (fault.number > fault.start and (_KEY.match(last) or _TABLE.fullmatch(last))):
        return _OPEN, fault.start
    known = next((advice for start, advice in _SAYS.items() if said.startswith(start)), None)
    return known or "see https://toml.io", fault.number
