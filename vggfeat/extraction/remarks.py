"""What is told of images that were read, but perhaps not as their owner thinks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vggfeat.files.kinds import as_clause
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.rows import Status

_log = logging.getLogger(__name__)

_READ_AT_ONCE = 512  # rows of a store


@dataclass(frozen=True)
class Remark:
    """A kind of thing to tell.

    Attributes:
        what: Behind "N images".
        remedy: What was done, or is to do; a sentence.
    """

    what: str
    remedy: str


ONE_COLOUR = Remark(
    "are of one colour throughout", "Images of the same colour have the same descriptor."
)
TRANSPARENT = Remark(
    "are of one colour once their transparent pixels are composed on black",
    "Compose them on another ground first, or all have the same descriptor.",
)
DARK = Remark(
    "use less than a sixteenth of the range of their 16 bits, and are all but black",
    "Scale their values up to 65535, or save them with 8 bits.",
)
FRAMES = Remark("have several frames or pages", "Of each the first is described.")
METADATA = Remark(
    "have metadata that is damaged or too long", "It is left out, and their pixels are described."
)
MISNAMED = Remark("are of another format than their names say", "They are read as what they are.")

Note = Callable[[Remark, str], None]  # takes a remark, and a detail of it or nothing


def unheard(remark: Remark, detail: str) -> None:
    """Take a remark that nobody wants."""


class Remarks:
    """The remarks on the images of a run."""

    def __init__(self) -> None:
        self._count: dict[Remark, int] = {}
        self._first: dict[Remark, tuple[str, str]] = {}

    def add(self, image: str, found: Mapping[Remark, str]) -> None:
        """Count what was found of an image: remarks with their details."""
        for remark, detail in found.items():
            self._count[remark] = self._count.get(remark, 0) + 1
            self._first[remark] = min(self._first.get(remark, (image, detail)), (image, detail))

    def tell(self) -> None:
        """Log a line for each kind: how many, the first by its id, and what to do."""
        for remark, count in self._count.items():
            image, detail = self._first[remark]
            shown = f" ({detail})" if detail else ""
            what, remedy = remark.what, as_clause(remark.remedy)
            _log.warning("%d images %s, the first is '%s'%s; %s", count, what, image, shown, remedy)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._count.clear()
        self._first.clear()


def tell_alike(store: DescriptorStore) -> None:
    """Log how many images of a store share their descriptor with another, if any do."""
    groups = alike(store)
    if not groups:
        return
    first, second = min(groups)[:2]
    count, readable = sum(map(len, groups)), int((store.statuses() != Status.UNREADABLE).sum())
    many = f"all {count}" if count == readable and len(groups) == 1 else f"{count} of {readable}"
    _log.warning(
        "%s images have the same descriptor as another of other bytes, the first are '%s' and "
        "'%s'; their decoded pixels are the same",
        *(many, first, second),
    )


def alike(store: DescriptorStore) -> list[list[str]]:
    """Find images whose descriptors are equal to the last bit though their files differ.

    Args:
        store: Open; of its descriptors only those are read whose norms are equal.

    Returns:
        The ids of each group, sorted, one for each different file.
    """
    norms = store.norms(store.scales)
    rows = np.flatnonzero(store.statuses() != Status.UNREADABLE)
    _, inverse, counts = np.unique(norms[rows], axis=0, return_inverse=True, return_counts=True)
    suspects = [store.ids[row] for row in rows[counts[inverse.ravel()] > 1]]
    groups: dict[bytes, dict[bytes, str]] = {}
    for start in range(0, len(suspects), _READ_AT_ONCE):
        block = store.read(suspects[start : start + _READ_AT_ONCE])
        for i, values, digest in zip(
            block.image_id, block.descriptors, block.image_sha256, strict=True
        ):
            own = groups.setdefault(hashlib.sha256(values.tobytes()).digest(), {})
            own[digest.tobytes()] = min(own.get(digest.tobytes(), i), i)
    return [sorted(group.values()) for group in groups.values() if len(group) > 1]
