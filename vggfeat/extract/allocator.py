"""glibc's allocator, told to keep what it has: a net asks for the same large blocks again."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; elsewhere nothing is done
_MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None) if _TRIM else None

# Parameter of mallopt (malloc.h) → (value while a net runs, glibc's default). No block is mapped by
# itself, none is given back, and the heap grows in steps of 256 MB. By default every activation is
# mapped, cleared page by page, and unmapped again.
_SETTINGS = {
    -4: (0, 65536),  # M_MMAP_MAX
    -1: (2**31 - 1, 128 << 10),  # M_TRIM_THRESHOLD
    -2: (256 << 20, 128 << 10),  # M_TOP_PAD
}


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory for the next request; afterwards it is given back to the system."""
    _set(0)
    try:
        yield
    finally:
        _set(1)
        if _TRIM is not None:
            _TRIM(0)


def _set(choice: int) -> None:
    if _MALLOPT is None:
        return
    for parameter, values in _SETTINGS.items():
        if not _MALLOPT(parameter, values[choice]):
            _log.debug("the allocator refuses parameter %d", parameter)
