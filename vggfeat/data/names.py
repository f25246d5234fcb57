"""What is known of each data set by its name alone; nothing heavy is loaded here."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.errors import RecipeError, nearest

if TYPE_CHECKING:
    from vggfeat.data.records import Dataset

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an opener is asked for.

    Attributes:
        name: The data set's, as on the command line.
        root: Where named data sets are looked for; of a pattern its PATH.
        seed: Decides the parts of a folder or a list that does not say them itself.
        stored_ids: The ids of a store that stands in for the images: these need not be on disk.
    """

    name: str
    root: Path
    seed: int = 0
    stored_ids: Sequence[str] | None = None

    @property
    def images(self) -> bool:
        """Whether the images must be there too."""
        return self.stored_ids is None


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """What is known of a data set, or of all that one pattern names.

    Attributes:
        opener: "module:function" of this room; called with a `Wanted`, it returns the `Dataset`.
        scales: S shorter sides Q of a recipe that says none, pixels.
        aggregate: How such a recipe makes one descriptor of the scales.
        measure: What such a recipe is scored by.
        measured_by: "module:function" of this room for a pattern whose trees differ in `measure`:
            called with the PATH, it returns the measure and the reason in words, or None where the
            tree is not there or does not tell, for `measure`.
        regions: What of each item such a recipe describes; with "box", the items are boxes.
        one_class: Whether every image has exactly one class; None where only the tree tells.
        published: The entry of `catalogue.toml` that fetches it.
        proxy_of: The data set whose val stands in the place of test here.
    """

    opener: str
    scales: tuple[int, ...]
    aggregate: str
    measure: str
    measured_by: str | None = None
    regions: tuple[str, ...] = ("image",)
    one_class: bool | None
    published: str | None = None
    proxy_of: str | None = None

    @property
    def boxes(self) -> bool:
        """Whether its items are boxes on images."""
        return "box" in self.regions


# Scales and their use: Simonyan & Zisserman 2015, App. B. Measures: area since VOC 2010.
_VOC2007 = NamedDataset(
    opener="voc:open_voc2007",
    scales=(256, 384, 512, 640, 768),
    aggregate="average",
    measure="voc2007",
    one_class=False,
    published="voc2007",
)
_VOC2012 = replace(_VOC2007, opener="voc:open_voc2012", measure="voc2010", published="voc2012")
_ACTION = replace(
    _VOC2012,
    opener="action:open_action",
    regions=("image", "box"),
    published="voc2012-action",
)
_CALTECH = NamedDataset(
    opener="caltech:open_caltech",
    scales=(256, 384, 512),
    aggregate="stack",
    measure="mean_class_recall",
    one_class=True,
)

NAMED: Mapping[str, NamedDataset] = {
    "voc2007": _VOC2007,
    "voc2012": _VOC2012,
    "voc2012-val": replace(_VOC2012, opener="voc:open_voc2012_val", proxy_of="voc2012"),
    "voc2012-action": _ACTION,
    "voc2012-action-val": replace(
        _ACTION, opener="action:open_action_val", proxy_of="voc2012-action"
    ),
    "caltech101": replace(_CALTECH, published="caltech101"),
    "caltech256": replace(_CALTECH, published="caltech256"),
}
PATTERNS: Mapping[str, NamedDataset] = {  # what stands before ":PATH"
    "voc": replace(
        _VOC2007, opener="voc_tree:open_tree", measured_by="voc_tree:own_measure", published=None
    ),
    "folder": replace(_CALTECH, opener="folder:open_folder"),
    "csv": replace(
        _CALTECH, opener="csv_list:open_csv", measured_by="csv_list:own_measure", one_class=None
    ),
}


def known(name: str) -> NamedDataset:
    """Return the record of a data set.

    Args:
        name: A name of `NAMED`, or "voc:PATH", "folder:PATH", "csv:PATH".

    Raises:
        RecipeError: If there is none of that name.
    """
    kind, _, path = name.partition(":")
    if name in NAMED:
        return NAMED[name]
    if kind in PATTERNS and path:
        return PATTERNS[kind]
    if name and os.path.isdir(expanded(name)):  # noqa: PTH112  (Path.is_dir raises where a name is too long)
        raise RecipeError(f"Unknown data set {name!r}.", f"Did you mean 'folder:{name}'?")
    if name.endswith(".csv"):
        raise RecipeError(f"Unknown data set {name!r}.", f"Did you mean 'csv:{name}'?")
    valid = [*NAMED, *(f"{pattern}:PATH" for pattern in PATTERNS)]
    raise RecipeError(f"Unknown data set {name!r}.", nearest(name, valid))


def expanded(path: str) -> str:
    """Return a path with the home folder in the place of a leading `~`.

    No shell puts it there behind a colon, behind `=`, in a variable or in a recipe. A `~` of a user
    that is not known stays.

    >>> expanded("photos/~"), expanded("~nobody-of-that-name/photos")
    ('photos/~', '~nobody-of-that-name/photos')
    """
    return os.path.expanduser(path)  # noqa: PTH111  (Path.expanduser raises where there is none)


def place_of(name: str) -> Path:
    """Return the PATH of "voc:PATH", "folder:PATH", "csv:PATH"."""
    return Path(expanded(name.partition(":")[2]))


def opener(name: str) -> Callable[[Wanted], Dataset]:
    """Load what opens a data set.

    Raises:
        RecipeError: If there is none of that name.
    """
    load: Callable[[Wanted], Dataset] = _loaded(known(name).opener)
    return load


def proxy_of(name: str) -> str | None:
    """Return the data set for whose test `name` puts its val; None for any other name.

    >>> proxy_of("voc2012-val"), proxy_of("voc2012"), proxy_of("folder:photos-val")
    ('voc2012', None, None)
    """
    return NAMED[name].proxy_of if name in NAMED else None


def own_measure(name: str) -> str:
    """Return what a data set is scored by where nobody says otherwise; the log hears why.

    A "voc:PATH" is scored as in the year of its tree, a "csv:PATH" by whether its images have one
    class each. Where PATH is not there, or does not tell, its pattern's record decides.

    Raises:
        RecipeError: If there is none of that name.
    """
    record = known(name)
    if record.measured_by is None:
        return record.measure
    found = _loaded(record.measured_by)(place_of(name))
    if found is None:
        return record.measure
    measure, reason = found
    _log.info("%s is scored by %s: %s", name, measure, reason)
    return str(measure)


def _loaded(place: str) -> Any:  # noqa: ANN401  (a function, as the record's attribute says)
    module, _, function = place.partition(":")
    return getattr(import_module(f"vggfeat.data.{module}"), function)


def slug(name: str) -> str:
    """Return a data set's name for use in file names, [a-z0-9-].

    >>> slug("voc2007")
    'voc2007'
    >>> slug("folder:/photos/My Cats")
    'folder-my-cats-55349d'
    """
    kind, _, path = name.partition(":")
    if not path:
        return kind
    last = re.sub(r"[^a-z0-9]+", "-", Path(path).name.lower()).strip("-")
    return "-".join(filter(None, (kind, last, hashlib.sha256(os.fsencode(name)).hexdigest()[:6])))
