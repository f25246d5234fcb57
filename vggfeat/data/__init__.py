"""Which images, which labels, which split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggfeat.data import action, caltech, folder, listed, voc
from vggfeat.data.split import Dataset
from vggfeat.errors import RecipeError, nearest

NAMED = (
    *("voc2007", "voc2012", "voc2012-val", "voc2012-action", "voc2012-action-val"),
    *("caltech101", "caltech256"),
)
PATTERNS = ("voc:PATH", "folder:PATH", "csv:PATH")


def check_name(name: str) -> None:
    """Check that a data set of that name could exist.

    Raises:
        RecipeError: If there is none.
    """
    kind, _, path = name.partition(":")
    if name in NAMED or (f"{kind}:PATH" in PATTERNS and path):
        return
    if name and Path(name).is_dir():
        raise RecipeError(f"Unknown data set {name!r}.", f"Did you mean 'folder:{name}'?")
    if name.endswith(".csv"):
        raise RecipeError(f"Unknown data set {name!r}.", f"Did you mean 'csv:{name}'?")
    raise RecipeError(f"Unknown data set {name!r}.", nearest(name, [*NAMED, *PATTERNS]))


def open_dataset(
    name: str, data_root: Path, *, seed: int = 0, stored_ids: Sequence[str] | None = None
) -> Dataset:
    """Open a data set.

    Args:
        name: One of `NAMED`, or "voc:PATH", "folder:PATH", "csv:PATH".
        data_root: Where named data sets are looked for.
        seed: Decides the parts of a folder or a list that does not say them itself.
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
    if kind == "csv":
        return listed.open_csv(Path(path), seed=seed, stored_ids=stored_ids)
    if kind.startswith("caltech"):
        return caltech.open_caltech(name, data_root, stored_ids=stored_ids)
    images = stored_ids is None
    if kind == "voc":
        return voc.open_tree(Path(path), name, images=images)
    return {
        "voc2007": voc.open_voc2007,
        "voc2012": voc.open_voc2012,
        "voc2012-val": voc.open_voc2012_val,
        "voc2012-action": action.open_action,
        "voc2012-action-val": action.open_action_val,
    }[name](data_root, images=images)
