"""The whole way: a recipe → stores → descriptors → SVMs → a result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vggfeat.data.doubts import doubts_of_bytes
from vggfeat.data.records import PARTS, Dataset, Item, Kind, published_ids
from vggfeat.errors import (
    DatasetError,
    RecipeError,
    StoreNotFoundError,
    VggfeatError,
)
from vggfeat.extraction.find import find_store, tell_near_matches
from vggfeat.extraction.images import picture
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import open_for
from vggfeat.extraction.workers import extract
from vggfeat.files.publish import make_folder
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.report.result import (
    AGAIN,
    Result,
    ResultError,
    check_free,
    result_path,
)
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.fit import fit_and_score, timed
from vggfeat.transfer.origin import as_run, origin, place_of_run, places, way_upwards
from vggfeat.transfer.samples import Block, blocks_of, image_digests, read_sample, used_store
from vggfeat.transfer.score import (
    Evaluation,
    final,
    result_of,
    split_run,
)
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)


def evaluate(
    recipe: Recipe, machine: Machine, watch: Watch, stores: Sequence[Path] = ()
) -> Evaluation:
    """Train and score the SVMs of a recipe; nothing is written.

    Args:
        recipe: What to do.
        machine: Where.
        watch: Told of the progress.
        stores: One for each net and tap, in place of those that the recipe's images would have; the
            images need not be on disk then.

    Raises:
        StoreNotFoundError: If a store is not there.
        DatasetError: If the data set has no labels, one class only, or no image to train with.
        VggfeatError: As the rooms say.
    """
    seconds: dict[str, float] = {}
    with open_blocks(recipe, machine, watch, stores) as (dataset, blocks):
        ids = dataset.splits[0].ids if len(dataset.splits) == 1 else [i.id for i in dataset.items]
        used = tuple(used_store(block, ids, recipe) for block in blocks)
        doubts = [f"{doubt}." for doubt in doubts_of_bytes(dataset, image_digests(blocks[0]))]
        described = [block.store.seconds for block in blocks]
        if None not in described:
            seconds["describe images"] = sum(one for one in described if one is not None)
        runs = []
        for index, split in enumerate(dataset.splits, 1):
            if len(dataset.splits) > 1:
                shots = dataset.shots_of(index)
                few = "" if shots is None else f", {shots} images of each class"
                which = recipe.repeats.removesuffix("s")
                _log.info("%s %d of %d%s", which, index, len(dataset.splits), few)
            with timed(seconds, "read descriptors"):
                samples = {
                    part: read_sample(blocks, getattr(split, part), recipe) for part in PARTS
                }
            fitted = fit_and_score(samples, dataset.classes, recipe, machine, watch, seconds)
            with timed(seconds, "measure"):
                runs.append(split_run(samples, fitted, dataset, recipe, index))
    result = result_of(recipe, dataset, used, runs, seconds)
    result = result.model_copy(update={"warnings": (*result.warnings, *doubts)})
    return Evaluation(result=result.published(), runs=final(runs), origin=origin(recipe, used))


@contextmanager
def open_blocks(
    recipe: Recipe, machine: Machine, watch: Watch, stores: Sequence[Path] = ()
) -> Iterator[tuple[Dataset, list[Block]]]:
    """Open the data set of a recipe and the stores that describe it, for as long as they are read.

    Args:
        recipe: Names the data set, nets, regions and taps.
        machine: Where they are looked for.
        watch: Told of the hashing.
        stores: As in `evaluate`.

    Yields:
        The data set, which has labels, and the blocks of the fused descriptor, in the recipe's
        order.

    Raises:
        StoreNotFoundError: If a store is not there; what is nearest to it is told.
        DatasetError: If the data set has no labels, or one class only.
        VggfeatError: As the rooms say.
    """
    with ExitStack() as opened:
        held = [opened.enter_context(DescriptorStore.open(path)) for path in stores]
        _check_described(held, recipe)
        dataset = open_for(recipe, machine, held[0].ids if held else None)
        if dataset.kind is Kind.UNLABELLED:
            raise DatasetError(
                f"{recipe.dataset!r} has no labels.",
                "An SVM needs one sub-folder per class.",
                "`vggfeat extract` alone gives its descriptors.",
            )
        if dataset.kind is Kind.ONE_CLASS and len(dataset.classes) == 1:
            raise DatasetError(
                f"{recipe.dataset!r} has one class only, {dataset.classes[0]!r}.",
                "An SVM tells two or more apart.",
                "Add images of another; or if the classes are folders further down, name theirs.",
            )
        for which in recipe.described[len(held) :]:
            path = _found_store(recipe, machine, dataset, which, watch)
            held.append(opened.enter_context(DescriptorStore.open(path)))
        yield dataset, blocks_of(held, dataset, recipe)


def _found_store(
    recipe: Recipe, machine: Machine, dataset: Dataset, described: Described, watch: Watch
) -> Path:
    """Return the store of one net, region and tap; where there is none, tell what is near it."""
    job = job_of(recipe, machine, dataset, described, watch)
    try:
        return find_store(job, recipe)
    except StoreNotFoundError:
        tell_near_matches(job)
        raise


def write(evaluation: Evaluation, machine: Machine) -> Path:
    """Write a result's JSON and its classifiers, one file for each split; return the JSON's path.

    Raises:
        ResultError: If another recipe's result has that name, or the name is none.
        PublishError: If something cannot be written.
    """
    result = evaluation.result
    path = result_path(machine.results, result.name)
    check_free(path, result.recipe_fingerprint)
    try:
        if path.exists() and _images(Result.read(path)) != _images(result):
            _log.info("'%s' is replaced: the same recipe, on other images", path)
    except ResultError as error:
        _log.warning("what stood there is replaced: %s", error)
    make_folder(machine.results)
    classifiers, kept = {}, {**evaluation.origin, **place_of_run(machine)}
    for index, run in enumerate(evaluation.runs, 1):
        suffix = f"-split{index}" if len(evaluation.runs) > 1 else ""
        target = path.with_name(f"{result.name}{suffix}.safetensors")
        classifiers[target.name] = run.fitted.classifier.save(target, kept)
    made = {
        "classifiers": classifiers,
        "date": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        "ran_in": way_upwards(machine),
    }
    return result.model_copy(update=made).write(machine.results)


def _images(result: Result) -> list[str]:
    """Return what changes with the images that a result was made of."""
    return [store.fingerprint for store in result.stores]


def check_stores(result: Result, source: str) -> None:
    """Check that a result names one store for each net, region and tap of its recipe.

    Args:
        result: Any result.
        source: Where it comes from, for messages.

    Raises:
        ResultError: If it does not.
    """
    held = [f"{one.model} {one.region} {one.recipe.get('tap')}" for one in result.stores]
    wanted = [*map(str, result.recipe.described)]
    if held != wanted:
        raise ResultError(
            f"{source} names stores of {', '.join(held) or 'no net'}.",
            f"Its recipe wants {', '.join(wanted)}.",
            AGAIN,
        )


def write_report(path: Path, machine: Machine) -> Path:
    """Write the HTML page of a result beside it, with pictures where the images are on disk.

    Where the items are boxes, the pictures show what was described: the whole image with the box
    drawn on it, or the box alone.

    Args:
        path: Of the result; the page of `x.json` is `x.html`, whatever name stands in it.
        machine: Says where data sets are; without a word, where they were in the run.

    Raises:
        ResultError: If the result is absent, damaged or of another format.
        PublishError: If the page cannot be written.
    """
    from vggfeat.report.html import write_page

    result = as_run(path)
    page = path.with_suffix(".html")
    found = _items(path, machine)
    if not found:
        write_page(result, page)
        return page
    items = {name: found[i] for i, name in published_ids(found).items()}
    whole = "image" in result.recipe.regions
    write_page(result, page, lambda image: picture(items[image], whole=whole))
    return page


def _items(path: Path, machine: Machine) -> dict[str, Item]:
    """Return the items of a result's data set by id; none, and a warning, where it is not found."""
    missed: VggfeatError | None = None
    for recipe, place in places(path, machine):
        try:
            return {item.id: item for item in open_for(recipe, place).items}
        except VggfeatError as error:
            missed = missed or error
    _log.warning("the page has no pictures: %s", missed)
    return {}


def run(recipe: Recipe, machine: Machine, watch: Watch) -> tuple[Path, Path]:
    """Extract, train, evaluate, and write result and page; what is there is not done again.

    Returns:
        The paths of the JSON and of the page.

    Raises:
        VggfeatError: As the steps say.
    """
    extract(recipe, machine, watch)
    path = write(evaluate(recipe, machine, watch), machine)
    return path, write_report(path, machine)


def _check_described(stores: Sequence[DescriptorStore], recipe: Recipe) -> None:
    """Check that stores that were given by their paths are one for each net, region and tap."""
    rows = [store.recipe for store in stores]
    held = [f"{row['net']} {row.get('region', 'image')} {row['tap']}" for row in rows]
    wanted = [*map(str, recipe.described)]
    if held and held != wanted:
        raise RecipeError(
            f"The stores hold {', '.join(held)}.",
            f"Expected one each, in this order: {', '.join(wanted)}.",
            "Pass --store so often, or none.",
        )
