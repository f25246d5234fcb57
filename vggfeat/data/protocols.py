"""Other parts than a data set's own: folds of all its images, and a few images of each class."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from vggfeat.data.records import Dataset, Labels, Part, Split
from vggfeat.data.split import hash_order, without_val
from vggfeat.errors import DatasetError

_log = logging.getLogger(__name__)


def folded(dataset: Dataset, count: int, seed: int, *, pool: bool = False) -> Dataset:
    """Divide all images into folds; each of the new splits tests one, and trains with the others.

    The folds are stratified as scikit-learn's `StratifiedKFold` has them: those of one size differ
    by at most one image, and so do the images of one class in them. Where an image has any number
    of classes, it counts for the rarest of them. Items on one image stay together, and only the
    images are dealt evenly then. Validation is a fifth of each class's images in the other folds.

    Args:
        dataset: With labels.
        count: Folds, at least 2.
        seed: Decides which image is in which fold.
        pool: Put parts together that the data set gives itself.

    Raises:
        DatasetError: If the data set gives its parts itself and they are not to be pooled, if
            those of test have no labels, or if no class has an image for every fold.
    """
    whole = _whole(dataset, pool=pool)
    _check_enough(dataset, whole, count)
    stratum_of: dict[str, int] = {}
    for image, stratum in zip(whole.images, _strata(whole.labels).tolist(), strict=True):
        stratum_of.setdefault(image, stratum)
    order = sorted(hash_order(stratum_of, seed), key=stratum_of.__getitem__)  # stable
    fold_of = {image: place % count for place, image in enumerate(order)}
    splits = []
    for fold in range(count):
        strata: dict[int, list[str]] = {}
        for image in order:
            if fold_of[image] != fold:
                strata.setdefault(stratum_of[image], []).append(image)
        val = _val(strata.values(), f"{seed}/fold {fold + 1}")
        in_test = np.array([fold_of[image] == fold for image in whole.images])
        in_val = np.array([image in val for image in whole.images])
        splits.append(
            Split(
                train=whole.take(~in_test & ~in_val),
                val=whole.take(in_val),
                test=whole.take(in_test),
            )
        )
    return replace(dataset, splits=tuple(splits))


def drawn(dataset: Dataset, shots: Sequence[int], draws: int, seed: int) -> Dataset:
    """Draw some training images of each class, several times for each number; test stays.

    A draw orders the images of train and val by a hash, and takes the first of each class: those of
    a smaller number are among those of a larger one. Of several splits of the data set the draws
    take one after the other. A fifth of what is drawn is validation, at least one image of two; of
    one there is none. An image of several classes is drawn if it is among the first of any.

    Args:
        dataset: With labels.
        shots: Images of each class, ascending.
        draws: How often they are drawn.
        seed: Decides which.

    Returns:
        The data set with a split for each number and draw, the numbers ascending.
    """
    pools = [split.train.joined(split.val) for split in dataset.splits]
    _tell_short(dataset.classes, pools[0], shots[-1])
    splits = []
    for images in shots:
        for draw in range(draws):
            which = draw % len(pools)
            train, val = _few(pools[which], images, f"{seed}/draw {draw + 1}")
            test = dataset.splits[which].test
            splits.append(Split(train=train, val=val, test=test))
    each = tuple(images for images in shots for _ in range(draws))
    return replace(dataset, splits=tuple(splits), shots=each)


def _whole(dataset: Dataset, *, pool: bool) -> Part:
    """Return the images of all parts of all splits, sorted by id."""
    if dataset.given and not pool:
        raise DatasetError(
            f"'{dataset.name}' says itself which images are for training and which for the test.",
            "Folds divide images that are in no part yet.",
            "Take --folds away, or pass --pool to put the parts together first; the score is then "
            "another task's.",
        )
    parts = [part for split in dataset.splits for part in split.parts if part.ids]
    for split in dataset.splits:
        if split.test.ids and not split.test.labels.any():
            raise DatasetError(
                f"The {len(split.test.ids):,} test images of '{dataset.name}' have no labels.",
                "Folds test every image.",
                "Take another data set, or a list without them.",
            )
    known: set[str] = set()
    new = []
    for part in parts:
        new.append(part.take(np.array([i not in known for i in part.ids])))
        known.update(part.ids)
    return reduce(Part.joined, new)


def _strata(labels: Labels) -> npt.NDArray[np.int64]:
    """Return (n,) the rarest class of each image; K for an image of none."""
    positive = labels > 0
    by_rarity = np.argsort(positive.sum(axis=0), kind="stable")
    first = by_rarity[positive[:, by_rarity].argmax(axis=1)]
    result: npt.NDArray[np.int64] = np.where(positive.any(axis=1), first, labels.shape[1])
    return result


def _val(strata: Iterable[Sequence[str]], seed: str) -> set[str]:
    """Return a fifth of each stratum, by hash."""
    return {image for images in strata for image in without_val(images, seed)["val"]}


def _few(pool: Part, images: int, seed: str) -> tuple[Part, Part]:
    """Draw train and val; an image that several classes want goes where the first wants it."""
    row_of = {i: row for row, i in enumerate(pool.ids)}
    order = [row_of[i] for i in hash_order(pool.ids, seed)]
    chosen = np.zeros(len(order), dtype=bool)
    part_of: dict[str, str] = {}
    for positive in (pool.labels > 0).T:
        own = [pool.ids[row] for row in order if positive[row]][:images]
        for part, ids in without_val(own, seed).items():
            for i in ids:
                chosen[row_of[i]] = True
                part_of.setdefault(pool.images[row_of[i]], part)
    in_val = np.array([part_of.get(image) == "val" for image in pool.images], dtype=bool)
    return pool.take(chosen & ~in_val), pool.take(chosen & in_val)


def _check_enough(dataset: Dataset, whole: Part, folds: int) -> None:
    """Refuse more folds than any class has images; tell of classes that have fewer."""
    counts = (whole.labels > 0).sum(axis=0)
    if folds > counts.max():
        raise DatasetError(
            f"{folds} folds of '{dataset.name}', whose largest class has {counts.max()} images.",
            "Expected at most as many folds as that.",
            f"Pass --folds {counts.max()} or fewer." if counts.max() > 1 else "Add images.",
        )
    fewer = np.flatnonzero(counts < folds)
    if len(fewer):
        _log.warning(
            "%d of %d classes have fewer images than there are folds, so that some folds test "
            "none of them; the first is %r with %d",
            *(len(fewer), len(counts), dataset.classes[fewer[0]], counts[fewer[0]]),
        )


def _tell_short(classes: Sequence[str], pool: Part, images: int) -> None:
    """Tell of classes that have fewer training images than are to be drawn."""
    counts = (pool.labels > 0).sum(axis=0)
    short = np.flatnonzero(counts < images)
    if len(short):
        _log.warning(
            "%d of %d classes have fewer than %d training images, and train with all they have; "
            "the first is %r with %d",
            *(len(short), len(classes), images, classes[short[0]], counts[short[0]]),
        )
