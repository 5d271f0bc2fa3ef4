"""Keeps freed tensor memory in the process."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@cache
def keep_heap() -> None:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel.

    A training step on a CPU frees and asks for the same megabytes again and again, and each time
    the kernel has to clear the pages: a fifth of a small head's step. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
