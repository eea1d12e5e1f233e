"""Into which parts a large object is cut, and what ETag they make: pure."""

import hashlib
import math

from common.errors import Refused
from common.store.mark import IS_MD5, IS_OF_PARTS

MIB = 2**20
SMALLEST_PART, USUAL_PART, LARGEST_PART = 5 * MIB, 8 * MIB, 5 * 1024 * MIB
MAX_PARTS = 10_000


def part_size(size: int, etag: str, theirs: int | None) -> int:
    """Return the size of the parts in which to copy `size` bytes.

    That of the source's own parts where it can be told (`theirs`, or a usual size that gives as many
    as the ETag says), for then the ETags agree; else at least 8 MiB and at most 10 000 parts.
    Raises `Refused` for an object larger than S3's largest parts can make (48.8 TiB).
    """
    count = int(found[1]) if (found := IS_OF_PARTS.fullmatch(etag)) else 0
    usual = (
        USUAL_PART,
        SMALLEST_PART,
        16 * MIB,
        15 * MIB,
        10 * MIB,
        32 * MIB,
        25 * MIB,
        20 * MIB,
        64 * MIB,
        50 * MIB,
        100 * MIB,
        128 * MIB,
    )
    for candidate in (theirs or 0, *usual):
        if SMALLEST_PART <= candidate <= LARGEST_PART and math.ceil(size / candidate) == count:
            return candidate
    needed = max(USUAL_PART, math.ceil(size / MAX_PARTS / MIB) * MIB)
    if needed > LARGEST_PART:
        raise Refused(f"{size} bytes are more than S3 takes: {MAX_PARTS} parts of 5 GiB, 48.8 TiB in all")
    return needed


def etag_of_parts(digests: list[str]) -> str | None:
    """Return the ETag of an object made of parts with these MD5s; None when some are none."""
    if not all(IS_MD5.fullmatch(digest) for digest in digests):
        return None
    whole = hashlib.md5(b"".join(map(bytes.fromhex, digests)), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def span(number: int, part: int, size: int) -> tuple[int, int]:
    """The bytes of part `number`: from, and up to but without."""
    return (number - 1) * part, min(number * part, size)
