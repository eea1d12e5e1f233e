"""Legal keys that something on the way likes to mangle, and the ways in which senders write them."""

from urllib.parse import quote_plus

LONG = ["max-" + "x" * 1020, "ы" * 512, "😀" * 256]
"""1024 bytes of UTF-8 each: no key is longer."""

_PATHS = [
    "plain.txt",
    "a//b",
    "a/b",
    "/leading",
    "trailing/",
    "trailing//",
    "//",
    "a/./b",
    "a/../b",
    "../../etc/passwd",
    "..",
    ".",
    ".hidden",
    "back\\slash",
    "soap",
    "source/plain.txt",
]
"""Looks like a path, and is none."""

_SPACES = [
    " ",
    "space and  spaces",
    " leading and trailing ",
    "trailing ",
    "trailing",
    "tab\ttab",
    "new\nline",
    "carriage\rreturn",
    "both\r\nends",
    "ends with a line\n",
    "ideographic\u3000space",
    "line\u2028separator",
    "next\u0085line",
]
"""What strip, split and a line-wise reader take for nothing."""

_ESCAPES = [
    "+",
    "plus+plus",
    "plus plus",
    "%",
    "100%",
    "%zz",
    "%2F",
    "a%2Fb",
    "%00",
    "%0A",
    "percent%20encoded",
    "percent encoded",
    "%2B",
    "%FF%FE",
    "%C3%A9",
    "\u00e9",
    "%u0041",
    "chain%252B",
    "chain%2B",
    "chain+",
    "chain ",
]
"""Escaped already, or so it seems; many of them are another of these keys once decoded."""

_SYNTAX = [
    "question?mark=1&b=2",
    "k?versionId=x",
    "k",
    "?delete",
    "?uploads",
    "X-Amz-Signature=0&X-Amz-Expires=1",
    "hash#fragment",
    "semi;colon,comma=equals",
    "quote'\"`quote",
    "angle<>&amp;",
    "<Key>k</Key><!-- ]]>",
    "<?xml version='1.0'?>&xxe;",
    '{"key": "k", "n": [1]}\\u0041\\n',
    "curly{}[]()^|",
    "tilde~!$@*",
    "$(reboot)`id`;${HOME} && rm -rf *",
    "--help",
    "http://example.org/k",
    "//example.org:80/k",
    "a:b@c",
    "' OR 1=1; DROP TABLE message; --",
]
"""Looks like an address, a query, markup, a command, a value."""

_CONTROLS = [
    "nul\x00inside",
    "\x01",
    "bell\x07escape\x1b[31m",
    "delete\x7f",
    "c1\x80\x9b",
]
"""What no terminal should be shown, and XML cannot hold."""

_LETTERS = [
    "nfc-\u00e9",
    "nfd-e\u0301",
    "\uff26\uff35\uff2c\uff2c-width",
    "İ-ı-ß",
    "кириллица/имя файла.jpg",
    "中文/文件",
    "\ud55c\uae00",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "עברית",
    "العربية",
    "rtl-\u202eabc",
    "zero\u200bwidth",
    "\ufeffbyte order mark",
    "private-\ue000\uf8ff",
    "nonchar-\ufdd0\ufffe\uffff",
    "emoji-😀-👩‍👩‍👧",
    "astral-𝕏-𠀀",
    "private-plane-\U000f0000\U0010fffd",
    "last-\U0010ffff",
    "a" + "\u0301" * 40,
]
"""Every corner of Unicode."""

AWKWARD = [*_PATHS, *_SPACES, *_ESCAPES, *_SYNTAX, *_CONTROLS, *_LETTERS, *LONG]
"""No two are the same bytes."""


def as_it_is(key: str) -> str:
    """Return `key` as Ceph writes it into an event."""
    return key


def as_aws(key: str) -> str:
    """Return `key` as AWS does: a form's encoding, slashes left."""
    return quote_plus(key, safe="/")


def as_minio(key: str) -> str:
    """Return `key` as MinIO does, with Go's QueryEscape: slashes too."""
    return quote_plus(key, safe="")
