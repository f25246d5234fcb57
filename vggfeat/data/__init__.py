"""Which images, which labels, which split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggfeat.data import folder, voc
from vggfeat.data.split import Dataset
from vggfeat.errors import RecipeError, nearest

NAMED = ("voc2007",)
PATTERNS = ("voc:PATH", "folder:PATH")


def check_name(name: str) -> None:
    """Check that a data set of that name could exist.

    Raises:
        RecipeError: If there is none.
    """
    kind, _, path = name.partition(":")
    if name in NAMED or (kind in {"voc", "folder"} and path):
        return
    if name and Path(name).is_dir():
        raise RecipeError(f"Unknown data set {name!r}.", f"Did you mean 'folder:{name}'?")
    raise RecipeError(f"Unknown data set {name!r}.", nearest(name, [*NAMED, *PATTERNS]))


def open_dataset(
    name: str, data_root: Path, *, seed: int = 0, stored_ids: Sequence[str] | None = None
) -> Dataset:
    """Open a data set.

    Args:
        name: "voc2007", "voc:PATH" or "folder:PATH".
        data_root: Where named data sets are looked for.
        seed: Decides the parts of a folder that does not say them itself.
        stored_ids: The ids of a store that stands in for the images: these need not be on disk.

    Raises:
        RecipeError: If there is no such data set.
        DatasetNotFoundError: If it is not on disk.
        DatasetError: If it contradicts itself.
    """
    check_name(name)
    kind, _, path = name.partition(":")
    if kind == "folder":
        return folder.open_folder(Path(path), seed=seed, stored_ids=stored_ids)
    if kind == "voc":
        return voc.open_tree(Path(path), name, images=stored_ids is None)
    return voc.open_voc2007(data_root, images=stored_ids is None)
