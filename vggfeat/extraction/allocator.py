"""glibc's allocator, told what to keep while a net runs."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_log = logging.getLogger(__name__)

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; elsewhere nothing is done
_MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None) if _TRIM else None

# Parameters of mallopt (malloc.h) → (value meanwhile, glibc's default).
# No block is mapped by itself, none is given back, and the heap grows in steps of 256 MB. By
# default every activation is mapped, cleared page by page, and unmapped again.
_KEEP = {
    -4: (0, 65536),  # M_MMAP_MAX
    -1: (2**31 - 1, 128 << 10),  # M_TRIM_THRESHOLD
    -2: (256 << 20, 128 << 10),  # M_TOP_PAD
}
# Larger blocks are mapped and go back at once. By default glibc raises this limit up to 32 MB, and
# the holes that large photos leave in its heaps grow with the number of images.
_RETURN = {-3: (1 << 20, 128 << 10)}  # M_MMAP_THRESHOLD


@contextmanager
def memory_kept() -> Iterator[Callable[[], None]]:
    """Keep freed memory for the next request, for a net whose layers all allocate their maps.

    Yields:
        What is to be called now and then: here it does nothing.
    """
    with _set(_KEEP):
        yield lambda: None


@contextmanager
def memory_returned() -> Iterator[Callable[[], None]]:
    """Give large blocks back to the system, for a net that has its own memory.

    Yields:
        What is to be called now and then: it gives the pages of small freed blocks back as well.
    """
    with _set(_RETURN):
        yield _trim


@contextmanager
def _set(settings: Mapping[int, tuple[int, int]]) -> Iterator[None]:
    """Change glibc's settings for a while, and have freed memory given back at the end."""

    def choose(which: int) -> None:
        for parameter, values in settings.items():
            if _MALLOPT is not None and not _MALLOPT(parameter, values[which]):
                _log.debug("the allocator refuses parameter %d", parameter)

    choose(0)
    try:
        yield
    finally:
        choose(1)
        _trim()


def _trim() -> None:
    if _TRIM is not None:
        _TRIM(0)
