"""Everything that can go wrong through no bug of ours, each with a message of three sentences.

What is wrong (with the offending value and its place), what was expected, what to do.
"""

from __future__ import annotations

import difflib
import errno
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path


def nearest(value: str, valid: Iterable[str]) -> str:
    """Return a sentence that names the valid value nearest to `value`, or lists all of them.

    >>> nearest("vgg61", ["vgg16", "vgg19"])
    "Did you mean 'vgg16'? Valid: vgg16, vgg19."
    """
    names = sorted(valid)

    def likeness(name: str) -> float:
        swapped = difflib.SequenceMatcher(None, sorted(value), sorted(name)).ratio()
        return difflib.SequenceMatcher(None, value, name).ratio() + swapped / 10

    best = max(names, key=likeness)
    hint = f"Did you mean {best!r}? " if likeness(best) > 0.5 else ""
    return f"{hint}Valid: {', '.join(names)}."


class VggfeatError(Exception):
    """A condition that the user can understand and mend.

    Args:
        wrong: What is wrong, with the offending value and its place.
        expected: What was expected.
        remedy: What to do.
        options: Flags of the command line, and their values, that the same command needs to go
            through, where that is known; the command line prints it with them.
    """

    exit_code = 1
    options: Mapping[str, str] = {}

    def __init__(
        self,
        wrong: str,
        expected: str = "",
        remedy: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        if options:
            self.options = dict(options)
        super().__init__(" ".join(part for part in (wrong, expected, remedy) if part))


class RecipeError(VggfeatError, ValueError):
    """A recipe, or an option of the command line, has a value that it cannot have."""


class DatasetNotFoundError(VggfeatError, FileNotFoundError):
    """A data set is not where it was looked for."""

    def __init__(self, name: str, looked: Iterable[Path], remedy: str) -> None:
        places = ", ".join(f"'{place}'" for place in looked)
        super().__init__(f"Data set {name!r} not found.", f"Looked for {places}.", remedy)


class ListNotFoundError(DatasetNotFoundError):
    """A data set is there but for one of its lists."""

    def __init__(self, path: Path) -> None:
        VggfeatError.__init__(
            self,
            f"There is no list '{path}'.",
            "Expected one of every part, and of every class in it.",
            "Unpack the data set again.",
        )


class DatasetError(VggfeatError, ValueError):
    """A data set is there, and contradicts itself or its documented layout."""


class ImageNotFoundError(VggfeatError, FileNotFoundError):
    """An image that was named is not there."""

    def __init__(self, wrong: str, expected: str = "") -> None:
        super().__init__(wrong, expected, "Check the path.")


class InputError(VggfeatError, ValueError):
    """What was passed to a transformer is not what it describes."""


class ImageReadError(VggfeatError, OSError):
    """An image cannot be read; `reason` is the sentence that the store keeps."""

    def __init__(self, image: str, reason: str) -> None:
        self.image = image
        self.reason = reason
        super().__init__(
            f"Image {image!r} cannot be read: {reason}.",
            remedy="Replace the file, or pass --on-error record to go on without it.",
        )


class ImageChangedError(VggfeatError):
    """An image is no longer the file that the run was planned with."""

    def __init__(self, image: str) -> None:
        super().__init__(
            f"Image {image!r} changed while the run was under way.",
            remedy="Run the same command again: it starts from the file as it is now.",
        )


class WeightsError(VggfeatError, ValueError):
    """A weight file is absent, damaged, of another net or of an unknown layout."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """Published weights are not on this machine; `file` is the name to fetch."""

    def __init__(self, file: str, wrong: str, expected: str, remedy: str) -> None:
        self.file = file
        super().__init__(wrong, expected, remedy)


class MapTooSmallError(VggfeatError, ValueError):
    """An image is too small for a layer: fc6 covers 7×7 cells of pool5, and others one at least.

    Args:
        height: Of the image, pixels.
        width: Of the image, pixels.
        cells: Height and width of the last pool's map.
        layer: The one that would have no cell.
        pools: Number of pools before its end.
        window: Side of what it needs of the last pool's map, cells.
    """

    def __init__(
        self,
        height: int,
        width: int,
        cells: tuple[int, int],
        layer: str,
        pools: int,
        window: int,
    ) -> None:
        side = window << pools
        super().__init__(
            f"An image of {height}×{width} pixels gives a pool{pools} map of "
            f"{cells[0]}×{cells[1]} cells.",
            f"{layer} needs at least {window}×{window}, that is {side}×{side} pixels.",
            "Choose a larger scale Q.",
        )


class NonFiniteError(VggfeatError, ArithmeticError):
    """A net produced NaN or infinity."""

    def __init__(self, image: str, layer: str) -> None:
        super().__init__(
            f"Image {image!r} gives a value that is not finite, first in layer {layer!r}.",
            "Every activation of a sound net is finite.",
            "Check the weight file and its --profile.",
        )


class ClassifierError(VggfeatError, ValueError):
    """A file of saved classifiers is absent, damaged, or not the one that its result names."""


class StoreError(VggfeatError):
    """Something about a descriptor store."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no complete store for what was asked."""


class StaleStoreError(StoreError):
    """A store holds descriptors of another recipe."""

    def __init__(self, path: Path, differences: Iterable[str]) -> None:
        super().__init__(
            f"'{path}' holds descriptors of another recipe: {'; '.join(differences)}.",
            remedy="Pass the options it was made with, or another store.",
        )


class IncompleteStoreError(StoreError):
    """A store lacks rows that were asked for."""


class DamagedStoreError(StoreError):
    """The bytes of a store are not those that were written."""


class PublishError(VggfeatError, OSError):
    """A file could not be written; whatever stood there before is untouched."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.errno = error.errno
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            wrong = f"No room for '{path}': {reason}."
            remedy = "Free some space and run the same command again; all finished work is kept."
        elif error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            wrong = f"'{path}' cannot be written: {reason}."
            remedy = "Make its folder writable, or choose another (--cache, --results)."
        else:
            wrong = f"'{path}' could not be written: {reason}."
            remedy = "Mend the cause and run the same command again; all finished work is kept."
        super().__init__(wrong, remedy=remedy)


class Interrupted(VggfeatError):
    """The run was asked to stop, and did so in good order.

    Args:
        number: The signal.
        resume: How to go on.
    """

    def __init__(self, number: int, resume: str) -> None:
        self.exit_code = 128 + number
        super().__init__(f"Stopped by {signal.Signals(number).name}.", remedy=resume)


class DownloadError(VggfeatError, OSError):
    """A file could not be downloaded, or stands in the way of its download."""


class UnsafeArchiveError(VggfeatError, ValueError):
    """An archive is damaged, or holds what must not be unpacked; nothing of it is kept."""

    def __init__(self, archive: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"'{archive}' is not unpacked: {reason}.",
            "Expected an undamaged archive of regular files below one folder.",
            "Remove it and download it again; if this repeats, its source is not to be trusted.",
        )
