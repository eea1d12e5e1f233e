"""Keys as users make them: ordinary ones, and the awkward ones that break naive code."""

import random

AWKWARD = (
    "a b",
    " leading and trailing ",
    "two  spaces",
    "plus+sign+.txt",
    "1+1=2",
    "50%",
    "100%25 sure",
    "%2F",
    "%41 is not A",
    "%E2%82%AC",
    "a=b&c=d",
    "what?.txt",
    "q?versionId=1&x=2",
    "?notification",
    "hash#1",
    "semi;colon:,comma",
    "quote'single",
    'quote"double"',
    "back`tick",
    "<xml>&amp;</xml>",
    "(paren)[bracket]{brace}",
    "caret^pipe|tilde~",
    "$dollar@at!bang*star",
    "tab\tinside",
    "caf\u00e9 NFC",
    "cafe\u0301 NFD",
    "\u1100\u1161 against \uac00",
    "снимки/Отчёт № 5.pdf",
    "日本語/写真 その1.jpg",
    "العربية.txt",
    "emoji/🚀🌍 to the moon.png",
    "family/👩‍👩‍👧‍👦.gif",
    "zero\u200bwidth",
    "non\u00a0breaking",
    ".hidden",
    "..two dots",
    "...",
    "trailing dot.",
    "trailing dots...",
    "a..b/..c",
    "-rf",
    "~",
    "=?UTF-8?Q?encoded=20word?=",
    "{{template}} ${VAR} $(cmd)",
    "null",
    "x" * 255,
    "/".join(["long" * 25] * 10),
    "/".join(["й" * 100] * 5),
    "deep/" * 40 + "leaf",
)
"""Legal keys that SeaweedFS keeps as they are: it folds `//`, drops a leading `/`, turns `\\` into `/`, and
takes no path part of more than 255 bytes."""

_ORDINARY = (
    ("photos/2024/{n:02d}", "IMG_{i:04d}.jpg", "image/jpeg"),
    ("reports", "q{n}-{i:03d}.pdf", "application/pdf"),
    ("logs/2024-05-{n:02d}", "app-{i:03d}.log", "text/plain; charset=utf-8"),
    ("backup", "db-{i:03d}.sql.gz", "application/gzip"),
    ("www/assets", "bundle.{i:03d}.js", "text/javascript"),
    ("video", "clip {i:03d}.mp4", "video/mp4"),
    ("data/part={n}", "{i:05d}.parquet", ""),
)


def names(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return `count` different keys, a sixth of them awkward, each with its content type or ""."""
    awkward = [
        (key, rng.choice(("", "text/plain"))) for key in rng.sample(AWKWARD, min(len(AWKWARD), count // 6))
    ]
    return awkward + [_ordinary(index, rng) for index in range(count - len(awkward))]


def _ordinary(index: int, rng: random.Random) -> tuple[str, str]:
    folder, file, kind = rng.choice(_ORDINARY)
    n = rng.randint(1, 12)
    return f"{folder.format(n=n)}/{file.format(n=n, i=index)}", kind
