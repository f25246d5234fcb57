"""New images through a trained classifier: described as its training images were, and scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.classify.measures import Doubles, predicted_class
from vggfeat.classify.probability import probabilities
from vggfeat.data.records import Dataset, Item, Kind, unlabelled
from vggfeat.errors import DatasetError, StoreNotFoundError, WeightsError
from vggfeat.extraction.calibration import CALIBRATION
from vggfeat.extraction.fill import described
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import at_hand
from vggfeat.nets.architectures import architecture
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.report.result import ResultError, StoreUsed
from vggfeat.store.layout import PLAN, StorePlan
from vggfeat.transfer.origin import as_run
from vggfeat.transfer.predictions import Predictions
from vggfeat.transfer.run import check_stores
from vggfeat.transfer.samples import fused
from vggfeat.watch import Watch
from vggfeat.weights.catalogue import PublishedWeights, published_as
from vggfeat.weights.find import find_weights
from vggfeat.weights.local import families

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A classifier, and how the descriptors that it reads are made.

    Attributes:
        path: Of its result.
        recipe: Of the training run.
        stores: Of the training run, one for each net.
        kind: What the labels were.
        classifier: The SVMs.
        validated: On how many images its probabilities were fitted.
    """

    path: Path
    recipe: Recipe
    stores: tuple[StoreUsed, ...]
    kind: Kind
    classifier: LinearOneVsRest
    validated: int


def open_trained(path: Path, split: int = 1, weights: Sequence[str] = ()) -> Trained:
    """Open a result and one of its classifiers.

    Args:
        path: The result, `results/<name>.json`, with its classifiers beside it.
        split: Which classifier, counted from 1, where the result has several splits, folds or
            draws.
        weights: Where the weight files are by now, one for each net; none for where they were.

    Raises:
        ResultError: If the result is absent or damaged, has no such classifier, or one that reads
            more than images.
        ClassifierError: If the classifier is absent, damaged, or another one.
        RecipeError: If there are not as many weights as nets.
    """
    result = as_run(path)
    recipe = result.recipe
    if weights:
        recipe = Recipe.build({**dict(recipe), "weights": tuple(weights)}, f"'{path}'")
    if any(store.region == "box" for store in result.stores):
        raise ResultError(
            f"The classifier of '{path}' reads descriptors of boxes around persons.",
            "A new image has no boxes.",
            "Train one on whole images: --regions image.",
        )
    check_stores(result, f"'{path}'")
    if not result.classifiers:
        raise ResultError(f"'{path}' names no classifier.", remedy="Run `vggfeat svm` again.")
    if not 1 <= split <= len(result.classifiers):
        count = len(result.classifiers)
        raise ResultError(f"No split {split} in '{path}'.", f"Expected 1 to {count}.")
    name, digest = list(result.classifiers.items())[split - 1]
    if len(result.classifiers) > 1:
        count = len(result.classifiers)
        which = recipe.repeats.removesuffix("s")
        _log.info("the classifier of %s %d of %d scores (--split): '%s'", which, split, count, name)
    classifier = LinearOneVsRest.load(path.parent / Path(name).name, digest)
    size = classifier.coef.shape[1]
    if classifier.classes != tuple(c.name for c in result.classes) or not (
        size == result.descriptor_size == recipe.descriptor_size
    ):
        raise ResultError(f"'{path}' and '{name}' do not belong together: other classes or sizes.")
    return Trained(
        path=path,
        recipe=recipe,
        stores=result.stores,
        kind=Kind(result.kind),
        classifier=classifier,
        validated=sum(one.sizes.get("val", 0) for one in result.splits[split - 1 : split]),
    )


def predict(trained: Trained, items: Sequence[Item], machine: Machine, watch: Watch) -> Predictions:
    """Describe images as those of the training run were, and score them.

    Rows that complete stores in `machine.cache` hold already are not computed again.

    Args:
        trained: The classifier.
        items: n whole images, their ids unique.
        machine: Where.
        watch: Told of the progress; may stop it.

    Returns:
        The scores, in the order of `items`.

    Raises:
        WeightsError: If a weight file is absent, or another one than that of the training run.
        StoreNotFoundError: If the calibration of an 8-bit net is not at hand.
        DatasetError: If no image can be read.
        ImageReadError: At the first unreadable image, if the machine says "raise".
        VggfeatError: As the rooms say.
    """
    dataset = unlabelled("new images", items)
    holder = f"'{trained.path}'"
    jobs = [
        job_like(used, trained.recipe, holder, dataset, machine, watch) for used in trained.stores
    ]
    row_of = {item.id: row for row, item in enumerate(items)}
    classes = trained.classifier.classes
    scores = np.full((len(items), len(classes)), np.nan)
    errors: dict[str, str] = {}
    for blocks in described(jobs, machine, watch):
        rows = [row_of[i] for i in blocks[0].image_id]
        scores[rows] = trained.classifier.decision_scores(fused(blocks, trained.recipe))
        errors |= blocks[0].errors
    if len(errors) == len(items):
        first, reason = next(iter(errors.items()))
        wrong = f"None of the {len(items)} images can be read; '{first}': {reason}."
        raise DatasetError(wrong, remedy="Check the paths.")
    if errors:
        _log.warning("%d of %d images are unreadable", len(errors), len(items))
    return Predictions(
        classes=classes,
        ids=tuple(item.id for item in items),
        scores=scores,
        predicted=_predicted(scores, classes, trained.kind),
        errors=errors,
        probabilities=_probabilities(scores, trained),
    )


def _probabilities(scores: Doubles, trained: Trained) -> Doubles | None:
    """Return the probabilities of scores, and tell what they rest on; None if there are none."""
    sigmoids = trained.classifier.sigmoids
    if sigmoids is None:
        _log.warning(
            "the classifier of '%s' has no probabilities: an earlier version has fitted it; "
            "`vggfeat svm` makes it again",
            trained.path,
        )
        return None
    lacking = np.flatnonzero(np.isnan(sigmoids).any(axis=1))
    if len(lacking):
        _log.warning(
            "%d of %d classes have no probability, the first is %r: validation shows no image of "
            "them, or no other",
            *(len(lacking), len(sigmoids), trained.classifier.classes[lacking[0]]),
        )
    if len(lacking) == len(sigmoids):
        return None
    _log.info("probabilities: sigmoids, fitted to %d validation images", trained.validated)
    return probabilities(scores, sigmoids, one_class=trained.kind is Kind.ONE_CLASS)


def _predicted(scores: Doubles, classes: Sequence[str], kind: Kind) -> tuple[tuple[str, ...], ...]:
    if kind is Kind.ONE_CLASS:
        return tuple((classes[k],) if k >= 0 else () for k in predicted_class(scores))
    order = np.argsort(-scores, axis=1, kind="stable")
    return tuple(
        tuple(classes[k] for k in best if own[k] > 0)
        for own, best in zip(scores, order, strict=True)
    )


def job_like(
    used: StoreUsed, recipe: Recipe, holder: str, dataset: Dataset, machine: Machine, watch: Watch
) -> StoreJob:
    """Decide how the net and the tap of a store describe new images.

    Args:
        used: The store.
        recipe: Of its rows; may name several nets.
        holder: What needs such rows, for messages.
        dataset: The new images, whole ones.
        machine: Where.
        watch: Told of the progress; may stop it.

    Raises:
        WeightsError: If the weight file is absent, or another one than that of the store.
        StoreNotFoundError: If the calibration of an 8-bit net is not at hand.
    """
    known = published_as(used.weights, used.weights_sha256)
    profile = recipe.profile if known is None else None  # a published file tells its own
    source = recipe.weights_of(used.model)
    if known is not None and not Path(source).is_file():
        # a family's name stands for any port that is on disk; the rows are of this one
        source = str(at_hand(known, machine, watch))
    values = {"models": (used.model,), "weights": (source,), "profile": profile}
    recipe = recipe.model_copy(update=values)
    _check_weights(used, recipe, holder, known)
    own = PRECISIONS[recipe.precision].calibrated
    calibrated = _calibrated(used, holder, machine) if own else None
    which = Described(used.model, "image", used.recipe["tap"])
    job = job_of(recipe, machine, dataset, which, watch, calibrated)
    for difference in _differences(used.recipe, job.identity.recipe):
        _log.warning("not quite as in %s, %s: %s", holder, used.model, difference)
    return job


def _check_weights(
    used: StoreUsed, recipe: Recipe, holder: str, known: PublishedWeights | None
) -> None:
    """Check that the weights of a recipe are here, and those of a store.

    Raises:
        WeightsError: If they are not.
    """
    [source] = recipe.weights
    fetching = f"Type `vggfeat weights fetch {known.name}`, or pass" if known else "Pass"
    expected = f"Expected {used.weights}, sha256 {used.weights_sha256}."
    remedy = f"{fetching} that file: --weights PATH."
    named = source in families() or source.startswith("random:")
    if not named and not Path(source).is_file():
        wrong = f"The weights of {used.model} that {holder} needs are not at '{source}'."
        raise WeightsError(wrong, expected, remedy)
    last = recipe.last_layer(used.model)
    found = find_weights(architecture(used.model), source, recipe.profile, last)
    if found.sha256 != used.weights_sha256:
        wrong = (
            f"{holder} was made with other weights of {used.model} than {found.origin} "
            f"(sha256 {found.sha256[:16]}…)."
        )
        raise WeightsError(wrong, expected, remedy)


def _calibrated(used: StoreUsed, holder: str, machine: Machine) -> Path:
    """Return the folder of a store that holds an 8-bit net's calibration.

    Raises:
        StoreNotFoundError: If it is not there, or another one.
    """
    folder = Path(used.path).parent
    places = [folder, machine.cache / folder.name]
    for place in places:
        there = (place / PLAN).is_file() and (place / CALIBRATION).is_file()
        if there and StorePlan.read(place).row_fingerprint == used.row_fingerprint:
            return place
    raise StoreNotFoundError(
        f"The calibration of the 8-bit net of {holder} is not at hand.",
        f"Looked for '{CALIBRATION}' of its store in '{folder}' and in '{places[1]}'.",
        "Pass --cache with the folder of its stores.",
    )


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Say in which fields the recipe of a row has changed."""
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
