"""An object's tags: from the document in which a store tells them to the header that sets them. Pure."""

import re
from html import unescape
from urllib.parse import parse_qsl, quote, urlencode
from xml.sax.saxutils import escape

_TAG = re.compile(r"<Tag>(.*?)</Tag>", re.DOTALL)
_KEY, _VALUE = re.compile(r"<Key>([^<]*)</Key>"), re.compile(r"<Value>([^<]*)</Value>")


def header(document: str) -> str:
    """Return the tags of an answer to ?tagging as x-amz-tagging has them, in order of their keys.

    A space is %20: not every store takes a + for one. Raises ValueError for a tag without a key, and
    for what is no such answer.
    """
    if "<TagSet" not in document:
        raise ValueError("what answers does not tell of tags")
    return urlencode(sorted(map(_pair, _TAG.findall(document))), quote_via=quote, safe="")


def document(tags: str) -> bytes:
    """Return the document that gives an object `tags`, which are in the form of a URL's query."""
    pairs = parse_qsl(tags, keep_blank_values=True)
    told = "".join(f"<Tag><Key>{escape(k)}</Key><Value>{escape(v)}</Value></Tag>" for k, v in pairs)
    return f"<Tagging><TagSet>{told}</TagSet></Tagging>".encode()


def _pair(tag: str) -> tuple[str, str]:
    key, value = _KEY.search(tag), _VALUE.search(tag)
    if key is None:
        raise ValueError(f"a tag without a key: {tag}")
    return unescape(key[1]), unescape(value[1]) if value else ""  # <Value/>, or none at all
