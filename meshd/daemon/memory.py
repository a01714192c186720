"""How this process takes and returns memory.

The defaults suit programs that make many cyclic structures and many large buffers all the time; a node makes
large ones seldom (a network map, the status of ten thousand peers) and lives long with what they leave behind.
"""

from __future__ import annotations

import gc

GC_THRESHOLDS = (5000, 20, 20)
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES = 256 << 10


def set_up_memory() -> None:
    """Look for cycles less often, and return large buffers to the system as soon as they are free.

    Reference counts free nearly everything here: with the default thresholds a quarter of the time that a large
    map takes is spent on looking for cycles. And glibc, left to itself, keeps buffers of the size of the largest
    one that was ever freed.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    import ctypes  # the crypto library has loaded it anyway

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def keep_what_is_there() -> None:
    """What exists by now stays for good: the collector need not look at it again."""
    gc.freeze()
