"""Which names are those of images: the suffixes that Pillow knows of the formats it opens here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from PIL import Image, features

from vggfeat.files.sources import IMAGE_FORMATS

_CODECS = {"JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}  # not built into every Pillow
_FURTHER = {  # of files that Pillow opens and whose suffix it does not know, or not as theirs
    ".jif": "JPEG",
    ".jfi": "JPEG",
    ".pjp": "JPEG",
    ".pjpeg": "JPEG",
    ".mpo": "JPEG",
}
_SHOWN = 5  # suffixes in a line


def _readable() -> frozenset[str]:
    Image.init()
    formats = {
        name
        for name in IMAGE_FORMATS
        if name in Image.OPEN and (name not in _CODECS or features.check(_CODECS[name]))
    }
    registered = {**Image.registered_extensions(), **_FURTHER}
    return frozenset(suffix for suffix, name in registered.items() if name in formats)


SUFFIXES = _readable()  # in lower case, with their dot


def suffix_counts(names: Sequence[str]) -> str:
    """Return how many names have which suffix, the most frequent first.

    >>> suffix_counts(["a.txt", "b/c.TXT", "d.npy", "Makefile"])
    '2 .txt, 1 .npy, 1 without a suffix'
    """
    counts = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{n} {s if s.isprintable() else repr(s)}" for s, n in order[:_SHOWN]]
    rest = sum(count for _, count in order[_SHOWN:])
    return ", ".join([*shown, *([f"{rest} of other suffixes"] if rest else [])])
