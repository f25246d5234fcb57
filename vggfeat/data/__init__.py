"""Which images, which labels, which split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.data.names import NAMED, Wanted, opener, place_of

if TYPE_CHECKING:
    from vggfeat.data.records import Dataset


def open_dataset(
    name: str, data_root: Path, *, seed: int = 0, stored_ids: Sequence[str] | None = None
) -> Dataset:
    """Open a data set.

    Args:
        name: A name of `vggfeat.data.names.NAMED`, or "voc:PATH", "folder:PATH", "csv:PATH".
        data_root: Where named data sets are looked for.
        seed: Decides the parts of a folder or a list that does not say them itself.
        stored_ids: The ids of a store that stands in for the images: these need not be on disk.

    Raises:
        RecipeError: If there is no such data set.
        DatasetNotFoundError: If it is not on disk.
        DatasetError: If it contradicts itself.
    """
    load = opener(name)
    root = data_root if name in NAMED else place_of(name)
    return load(Wanted(name=name, root=root, seed=seed, stored_ids=stored_ids))
