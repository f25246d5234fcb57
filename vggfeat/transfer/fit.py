"""C chosen on val, the classifiers fitted to train and val, the test images scored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.classify.svm import (
    DEFAULT_GRID,
    CSearch,
    SvmSettings,
    choose_c,
    fit,
    undecided,
)
from vggfeat.errors import DatasetError
from vggfeat.extraction.budget import workers
from vggfeat.nets.devices import device_of
from vggfeat.recipe import Machine, Recipe, device_names
from vggfeat.transfer.samples import Sample
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)

_NOTHING_WRITTEN = "Nothing was written; run the same command again."


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What training has given.

    Attributes:
        search: How C was chosen.
        classifier: The SVMs, fitted to train and val.
        scores: (m, K) of the test images; NaN for an unreadable one.
    """

    search: CSearch
    classifier: LinearOneVsRest
    scores: npt.NDArray[np.float64]


def fit_and_score(
    samples: dict[str, Sample],
    classes: Sequence[str],
    recipe: Recipe,
    machine: Machine,
    watch: Watch,
    seconds: dict[str, float],
) -> Fitted:
    """Choose C on val, refit on train and val, score test.

    Args:
        samples: "train", "val" and "test".
        classes: K names.
        recipe: Says how.
        machine: Says with how many processes.
        watch: Told of the progress; may stop the search.
        seconds: Gets the time of each step.
    """
    settings = SvmSettings(
        loss=recipe.loss,
        grid=recipe.grid,
        choose_c=recipe.choose_c,
        difficult=recipe.difficult,
        class_weight=recipe.class_weight,
        measure=recipe.measure,
        seed=recipe.seed,
        device=device_of(device_names(machine.device)[0]),
        workers=workers(machine),
    )
    train, val = samples["train"].readable, samples["val"].readable
    if not len(train.ids):
        raise DatasetError("No image to train with: train is empty, or unreadable throughout.")
    count = len(classes) * len(recipe.grid or DEFAULT_GRID)
    with timed(seconds, "choose C"), watch.step("choose C", count, "fits") as advance:
        search = choose_c(
            (train.x, train.labels), (val.x, val.labels), settings, _told(watch, advance)
        )
    if doubt := undecided(search, classes):
        _log.warning("%s", doubt)
    x, labels = np.concatenate([train.x, val.x]), np.concatenate([train.labels, val.labels])
    with timed(seconds, "fit"), watch.step("fit", len(classes), "fits") as advance:
        fitted = fit(x, labels, classes, search.c, settings, _told(watch, advance))
    classifier = replace(fitted, sigmoids=search.sigmoids)
    with timed(seconds, "score"):
        scores = classifier.decision_scores(samples["test"].x)
    return Fitted(search=search, classifier=classifier, scores=scores)


def _told(watch: Watch, advance: Callable[[int], None]) -> Callable[[int], None]:
    def tell(count: int) -> None:
        advance(count)
        watch.check(_NOTHING_WRITTEN)

    return tell


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time of a block, seconds, to that of a step."""
    begin = time.monotonic()
    yield
    seconds[name] = round(seconds.get(name, 0) + time.monotonic() - begin, 3)
