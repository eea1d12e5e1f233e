"""Give large buffers back to the system as soon as they are freed."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
"""mallopt(3): blocks from this size on are mapped, each by itself, and unmapped when they are freed."""

THRESHOLD = 128 * 1024


def return_large_blocks() -> None:
    """Fix glibc's threshold, which otherwise grows to 32 MiB with use: the bodies of objects then come from
    the heap and leave holes, and the process keeps half as much again as the budget allows. Elsewhere
    (another C library, another system) nothing is done."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, THRESHOLD)
