"""A bucket's notification configuration (`?notification`): read, and written with only some of it changed.

Pure. A PUT replaces the whole list, and what others have in it may be of kinds that nobody here knows. So
it is never built anew: what is not changed keeps its bytes, which are cut out of the document as it came.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

SIMPLE = "SimpleTopicConfiguration"
"""The kind that calls a URL: an element of MCS's (VK Cloud's) own."""

TOPIC = "TopicConfiguration"
"""The kind that tells a topic, which may call a URL."""

EMPTY = f'<?xml version="1.0" encoding="UTF-8"?><NotificationConfiguration xmlns="{NAMESPACE}"/>'.encode()

_TARGETS = ("Url", "Topic", "Queue", "CloudFunction", "LambdaFunction")
"""Where each kind names who is told."""

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to say."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry: `target` (a URL, or the name of a topic, a queue, a function) is told of these events."""

    kind: str
    id: str
    target: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration as it came. `hooks` in its order; `spans` is where each stands in `body`."""

    body: bytes
    hooks: tuple[Hook, ...]
    spans: tuple[tuple[int, int], ...]
    root: tuple[str, int, int, int]
    """The root's name as it is written, and where it begins, its end tag begins, and it ends."""

    @classmethod
    def read(cls, body: bytes) -> "Configuration":
        """Return the configuration in `body`; none at all is an empty one. Raises ValueError with a
        sentence for what is none."""
        body = body if body.strip() else EMPTY
        if b"\0" in body:  # UTF-16, which expat would take; entries of ours are UTF-8
            raise ValueError("a notification configuration is UTF-8, this is not")
        try:
            layout = _Layout(body)
            elements = list(ElementTree.fromstring(body))  # noqa: S314 - `_Layout` refuses a DOCTYPE
        except (expat.ExpatError, ElementTree.ParseError) as error:
            raise ValueError(f"the notification configuration is not XML: {error}") from error
        if layout.root[0].rpartition(":")[2] != "NotificationConfiguration":
            raise ValueError(f"<{layout.root[0]}> is no NotificationConfiguration")
        return cls(body, tuple(map(_hook, elements)), tuple(layout.spans), layout.root)

    def changed(self, *, without: Collection[Hook], added: Sequence[Hook]) -> bytes:
        """Return the document without some of its hooks and with others at its end, else byte for byte."""
        name, start, close, end = self.root
        inside = not name.partition(":")[2]  # without a prefix, children share the root's namespace
        new = "".join(_written(hook, inherits=inside) for hook in added).encode()
        if not self.body.startswith(b"</", close):  # <NotificationConfiguration/>
            opened = self.body[start:end].removesuffix(b"/>").rstrip()
            return self.body[:start] + opened + b">" + new + f"</{name}>".encode() + self.body[end:]
        kept, at = b"", 0
        for hook, (first, last) in zip(self.hooks, self.spans, strict=True):
            if hook in without:
                kept, at = kept + self.body[at:first], last
        return kept + self.body[at:close] + new + self.body[close:]


class _Layout:
    """Finds where the root and its children begin and end, in bytes. An element ends where the next event
    of the parser is, whatever that is: so an empty one needs no rule of its own."""

    def __init__(self, body: bytes) -> None:
        self.spans: list[tuple[int, int]] = []
        self.root = ("", 0, 0, 0)
        self._depth = 0
        self._begun = 0
        self._ended = False
        self._parser = parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = parser.DefaultHandler = self._other
        parser.XmlDeclHandler = self._declared
        parser.StartDoctypeDeclHandler = self._refused
        parser.Parse(body, True)
        self._settle(len(body))

    def _settle(self, at: int) -> None:
        if self._ended and self._depth == 1:
            self.spans.append((self._begun, at))
        elif self._ended:
            self.root = (*self.root[:3], at)
        self._ended = False

    def _start(self, name: str, _: object) -> None:
        at = self._parser.CurrentByteIndex
        self._settle(at)
        if self._depth == 0:
            self.root = (name, at, 0, 0)
        elif self._depth == 1:
            self._begun = at
        self._depth += 1

    def _end(self, _: str) -> None:
        at = self._parser.CurrentByteIndex
        self._settle(at)
        self._depth -= 1
        self._ended = self._depth < 2
        if self._depth == 0:
            self.root = (*self.root[:2], at, 0)

    def _other(self, _: str) -> None:
        self._settle(self._parser.CurrentByteIndex)

    def _declared(self, _: str, encoding: str | None, __: int) -> None:
        if encoding is not None and encoding.upper() not in {"UTF-8", "US-ASCII"}:
            raise ValueError(f"a notification configuration is UTF-8, this is {encoding}")

    def _refused(self, *_: object) -> None:
        raise ValueError("a notification configuration has no DOCTYPE, this has one")


def _hook(element: ElementTree.Element) -> Hook:
    rules: dict[str, str] = {}
    for rule in element.iter():
        if _name(rule) == "FilterRule":
            rules["".join(_texts(rule, "Name")).strip().lower()] = "".join(_texts(rule, "Value"))
    return Hook(
        kind=_name(element),
        id="".join(_texts(element, "Id")).strip(),
        target="".join(text for name in _TARGETS for text in _texts(element, name)).strip(),
        events=tuple(event.strip() for event in _texts(element, "Event")),
        prefix=rules.get("prefix", ""),
        suffix=rules.get("suffix", ""),
    )


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _texts(element: ElementTree.Element, name: str) -> list[str]:
    return [child.text or "" for child in element if _name(child) == name]


def _written(hook: Hook, *, inherits: bool) -> str:
    """Return a hook that calls a URL as XML."""
    rules = "".join(
        f"<FilterRule><Name>{name}</Name><Value>{_text(value)}</Value></FilterRule>"
        for name, value in (("Prefix", hook.prefix), ("Suffix", hook.suffix))
        if value
    )
    return (f"<{SIMPLE}>" if inherits else f'<{SIMPLE} xmlns="{NAMESPACE}">') + (
        f"<Id>{_text(hook.id)}</Id>"
        + "".join(f"<Event>{_text(event)}</Event>" for event in hook.events)
        + f"<Url>{_text(hook.target)}</Url>"
        + (f"<Filter><S3Key>{rules}</S3Key></Filter>" if rules else "")
        + f"</{SIMPLE}>"
    )


def _text(value: str) -> str:
    """Return `value` as it stands in XML. Raises ValueError for what cannot."""
    if _UNWRITABLE.search(value):
        raise ValueError(f"{value!r} has a character that XML cannot hold, and a hook is registered in XML")
    return escape(value, {"\r": "&#13;"})
