"""The whole way: a recipe → stores → descriptors → SVMs → a result."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggfeat import child
from vggfeat.classify.aggregate import aggregate, fuse
from vggfeat.classify.svm import (
    DEFAULT_GRID,
    CSearch,
    LinearOneVsRest,
    SvmSettings,
    choose_c,
    fit,
    undecided,
)
from vggfeat.data.split import Dataset, Kind, Labels, Part, Regions
from vggfeat.describing import fill
from vggfeat.errors import (
    DatasetError,
    RecipeError,
    StoreNotFoundError,
    VggfeatError,
)
from vggfeat.extract.images import MAX_ASPECT, picture
from vggfeat.planning import (
    find_store,
    plan_store,
    tell_near_matches,
    versions,
    workers,
)
from vggfeat.progress import Watch
from vggfeat.publish import make_folder
from vggfeat.recipe import Machine, Recipe, Region, device_names, fingerprint
from vggfeat.report.result import (
    AGAIN,
    ClassResult,
    Result,
    ResultError,
    Search,
    SplitOutcome,
    StoreUsed,
    check_free,
    result_path,
)
from vggfeat.rows import Rows, Status
from vggfeat.scoring import class_means, class_results, confusion, means, number, split_means
from vggfeat.store.store import DescriptorStore
from vggfeat.supplies import open_for, provide

_log = logging.getLogger(__name__)

_NOTHING_WRITTEN = "Nothing was written; run the same command again."
_READ_AT_ONCE = 512  # rows of a store

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the SVM sees of one part.

    Attributes:
        ids: n images.
        x: (n, D) float32, rows of norm 1; NaN for an unreadable image.
        labels: (n, K).
    """

    ids: tuple[str, ...]
    x: Floats
    labels: Labels

    @property
    def without_descriptors(self) -> Sample:
        """The same images, without their descriptors."""
        return replace(self, x=self.x[:, :0])

    @property
    def readable(self) -> Sample:
        """The images that could be read."""
        rows = ~np.isnan(self.x[:, 0]) if self.x.shape[1] else np.ones(len(self.ids), bool)
        ids = tuple(i for i, kept in zip(self.ids, rows, strict=True) if kept)
        return Sample(ids=ids, x=self.x[rows], labels=self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class Block:
    """One store, open: a net, and what of each image it describes.

    Attributes:
        store: Its rows.
        region: Of each image.
        rows: Which row describes which item.
    """

    store: DescriptorStore
    region: Region
    rows: Regions


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


@dataclass(frozen=True, kw_only=True)
class SplitRun:
    """What one split has given.

    Attributes:
        samples: Of train, val and test; their descriptors only where there is one split, since
            those of several need not fit into memory together.
        fitted: The search, the classifiers and the test scores.
        outcome: What a result keeps of it.
        classes: One for each class.
        confusion: Counts of (true, predicted) classes; empty where an image has any number.
    """

    samples: dict[str, Sample]
    fitted: Fitted
    outcome: SplitOutcome
    classes: tuple[ClassResult, ...]
    confusion: Counter[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A result, and the arrays behind it.

    Attributes:
        result: What is written.
        runs: One for each split.
    """

    result: Result
    runs: tuple[SplitRun, ...]


def extract(recipe: Recipe, machine: Machine, watch: Watch) -> list[Path]:
    """Make, resume or find the store of each of the recipe's nets.

    Published weights and data that are not on disk are fetched first; see `supplies.provide`.

    Returns:
        The path of each complete file.

    Raises:
        Interrupted: If the watch says so; all finished shards are kept.
        VggfeatError: As the rooms say.
    """
    first, *others = device_names(machine.device)
    machine = machine.model_copy(update={"device": first})
    dataset = provide(recipe, machine, watch)
    jobs = [plan_store(recipe, machine, dataset, which, watch) for which in recipe.described]
    with _working_on(others if not all(job.complete for job in jobs) else [], recipe, machine):
        return [fill(job, machine, watch) for job in jobs]


@contextmanager
def _working_on(devices: Sequence[str], recipe: Recipe, machine: Machine) -> Iterator[None]:
    """Let a process of its own help on each device; they share the stores, shard by shard.

    One that fails says so on stderr, and the others do its work.
    """
    helpers = []
    for device in devices:
        own = machine.model_copy(update={"device": device, "offline": True})
        work = [recipe.model_dump_json(), own.model_dump_json()]
        helpers.append(child.start("vggfeat.helper", work))
    try:
        yield
    finally:
        for process in helpers:
            process.terminate()  # all is done, or nobody wants more: at most its shard is lost
            process.wait()


def evaluate(
    recipe: Recipe, machine: Machine, watch: Watch, stores: Sequence[Path] = ()
) -> Evaluation:
    """Train and score the SVMs of a recipe; nothing is written.

    Args:
        recipe: What to do.
        machine: Where.
        watch: Told of the progress.
        stores: One for each net, in place of those that the recipe's images would have; the
            images need not be on disk then.

    Raises:
        StoreNotFoundError: If a store is not there.
        DatasetError: If the data set has no labels, or no image to train with.
        VggfeatError: As the rooms say.
    """
    seconds: dict[str, float] = {}
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
        for which in recipe.described[len(held) :]:
            job = plan_store(recipe, machine, dataset, which, watch)
            try:
                path = find_store(job, recipe)
            except StoreNotFoundError:
                tell_near_matches(job)
                raise
            held.append(opened.enter_context(DescriptorStore.open(path)))
        ids = dataset.splits[0].ids if len(dataset.splits) == 1 else [i.id for i in dataset.items]
        blocks = blocks_of(held, dataset, recipe)
        used = tuple(_used(block, ids, recipe) for block in blocks)
        runs = []
        for index, split in enumerate(dataset.splits, 1):
            if len(dataset.splits) > 1:
                _log.info("split %d of %d", index, len(dataset.splits))
            with _timed(seconds, "read descriptors"):
                samples = {
                    part: read_sample(blocks, getattr(split, part), recipe)
                    for part in ("train", "val", "test")
                }
            fitted = fit_and_score(samples, dataset.classes, recipe, machine, watch, seconds)
            runs.append(_split_run(samples, fitted, dataset, recipe))
    result = _result(recipe, dataset, used, runs, seconds)
    return Evaluation(result=result, runs=tuple(runs))


def _split_run(
    samples: dict[str, Sample], fitted: Fitted, dataset: Dataset, recipe: Recipe
) -> SplitRun:
    search, classifier, scores = fitted.search, fitted.classifier, fitted.scores
    train = np.concatenate([samples[part].readable.labels for part in ("train", "val")])
    test = samples["test"]
    values, counted = means(test.labels, scores, dataset.kind, recipe.measure)
    if len(dataset.splits) > 1:
        samples = {part: sample.without_descriptors for part, sample in samples.items()}
    return SplitRun(
        samples=samples,
        fitted=fitted,
        outcome=SplitOutcome(
            sizes={part: len(sample.ids) for part, sample in samples.items()},
            search=Search(
                measure=recipe.measure,
                grid=search.grid,
                means=tuple(number(mean) for mean in search.means),
                grown=search.grown,
                at_edge=search.at_edge,
                fits=search.fits + int((~np.isnan(classifier.intercept)).sum()),
                not_converged=search.not_converged + classifier.not_converged,
                solver=search.solver,
                gap=number(max(search.gap, classifier.gap)),
            ),
            c=tuple(sorted(set(search.c))),
            means=values,
            counted=counted,
        ),
        classes=class_results(
            dataset.classes,
            search.c,
            train,
            (test.ids, test.labels, scores),
            dataset.kind,
            recipe.measure or "voc2007",
        ),
        confusion=confusion(test.labels, scores) if dataset.kind is Kind.ONE_CLASS else Counter(),
    )


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
    from vggfeat.extract.engine import torch_device

    settings = SvmSettings(
        loss=recipe.loss,
        grid=recipe.grid,
        choose_c=recipe.choose_c,
        difficult=recipe.difficult,
        measure=recipe.measure,
        seed=recipe.seed,
        device=str(torch_device(device_names(machine.device)[0])),
        workers=workers(machine),
    )
    train, val = samples["train"].readable, samples["val"].readable
    if not len(train.ids):
        raise DatasetError("No image to train with: train is empty, or unreadable throughout.")
    count = len(classes) * len(recipe.grid or DEFAULT_GRID)
    with _timed(seconds, "choose C"), watch.step("choose C", count, "fits") as advance:
        search = choose_c(
            (train.x, train.labels), (val.x, val.labels), settings, _told(watch, advance)
        )
    if doubt := undecided(search, classes):
        _log.warning("%s", doubt)
    x, labels = np.concatenate([train.x, val.x]), np.concatenate([train.labels, val.labels])
    with _timed(seconds, "fit"), watch.step("fit", len(classes), "fits") as advance:
        classifier = fit(x, labels, classes, search.c, settings, _told(watch, advance))
    with _timed(seconds, "score"):
        scores = classifier.decision_scores(samples["test"].x)
    return Fitted(search=search, classifier=classifier, scores=scores)


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
        if path.exists() and Result.read(path).stores != result.stores:
            _log.info("'%s' is replaced: the same recipe, on other images", path)
    except ResultError as error:
        _log.warning("what stood there is replaced: %s", error)
    make_folder(machine.results)
    metadata = {"recipe": result.recipe, "stores": [s.recipe for s in result.stores]}
    classifiers = {}
    for index, run in enumerate(evaluation.runs, 1):
        suffix = f"-split{index}" if len(evaluation.runs) > 1 else ""
        target = path.with_name(f"{result.name}{suffix}.safetensors")
        classifiers[target.name] = run.fitted.classifier.save(target, metadata)
    return result.model_copy(update={"classifiers": classifiers}).write(machine.results)


def recipe_of(result: Result, source: str, changed: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe of a result.

    Args:
        result: Any result.
        source: Where it comes from, for messages.
        changed: Fields that have another value by now.

    Raises:
        ResultError: If its recipe cannot be.
        RecipeError: If it cannot be with what has changed.
    """
    try:
        recipe = Recipe.build(result.recipe, source)
    except RecipeError as error:
        raise ResultError(str(error), "Expected the recipe of an experiment.", AGAIN) from None
    return Recipe.build({**result.recipe, **changed}, source) if changed else recipe


def check_stores(result: Result, recipe: Recipe, source: str) -> None:
    """Check that a result names one store for each net and region of its recipe.

    Args:
        result: Any result.
        recipe: Its own.
        source: Where it comes from, for messages.

    Raises:
        ResultError: If it does not.
    """
    held = tuple((store.model, store.region) for store in result.stores)
    if held != recipe.described:
        raise ResultError(
            f"{source} names stores of {', '.join(map(' '.join, held)) or 'no net'}.",
            f"Its recipe wants {', '.join(map(' '.join, recipe.described))}.",
            AGAIN,
        )


def write_report(path: Path, machine: Machine) -> Path:
    """Write the HTML page of a result beside it, with pictures where the images are on disk.

    Where the items are boxes, the pictures show what was described: the whole image with the box
    drawn on it, or the box alone.

    Args:
        path: Of the result; the page of `x.json` is `x.html`, whatever name stands in it.
        machine: Says where data sets are.

    Raises:
        ResultError: If the result is absent, damaged or of another format.
        PublishError: If the page cannot be written.
    """
    from vggfeat.report.html import write_page

    result = Result.read(path)
    page = path.with_suffix(".html")
    try:
        recipe = recipe_of(result, f"'{path}'")
        items = {item.id: item for item in open_for(recipe, machine).items}
    except VggfeatError as error:
        _log.warning("the page has no pictures: %s", error)
        write_page(result, page)
        return page
    whole = "image" in recipe.regions
    write_page(result, page, lambda image: picture(items[image], whole=whole))
    return page


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


def _told(watch: Watch, advance: Callable[[int], None]) -> Callable[[int], None]:
    def tell(count: int) -> None:
        advance(count)
        watch.check(_NOTHING_WRITTEN)

    return tell


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = round(seconds.get(name, 0) + time.monotonic() - begin, 3)


def _check_described(stores: Sequence[DescriptorStore], recipe: Recipe) -> None:
    """Check that stores that were given by their paths are one for each net and region."""
    held = tuple((store.recipe["net"], store.recipe.get("region", "image")) for store in stores)
    if held and held != recipe.described:
        raise RecipeError(
            f"The stores hold {', '.join(map(' '.join, held))}.",
            f"Expected one each, in this order: {', '.join(map(' '.join, recipe.described))}.",
            "Pass --store so often, or none.",
        )


def blocks_of(stores: Sequence[DescriptorStore], dataset: Dataset, recipe: Recipe) -> list[Block]:
    """Return the blocks of a recipe's fused descriptor.

    Args:
        stores: One for each net and region, in the recipe's order.
        dataset: The recipe's.
        recipe: Says which nets and regions.
    """
    return [
        Block(store=store, region=region, rows=dataset.of_region(region))
        for store, (_, region) in zip(stores, recipe.described, strict=True)
    ]


def read_sample(held: Sequence[Block], part: Part, recipe: Recipe) -> Sample:
    """Read and aggregate the descriptors of one part.

    Args:
        held: From `blocks_of`.
        part: Of the recipe's data set.
        recipe: Says how.

    Raises:
        IncompleteStoreError: If a store lacks an item or a scale.
    """
    return Sample(ids=part.ids, x=read_fused(held, part.ids, recipe), labels=part.labels)


def read_fused(held: Sequence[Block], ids: Sequence[str], recipe: Recipe) -> Floats:
    """Read and aggregate the descriptors of n items, some rows at a time; see `fused`."""
    x = np.empty((len(ids), recipe.descriptor_size), dtype=np.float32)
    for start in range(0, len(ids), _READ_AT_ONCE):
        some = ids[start : start + _READ_AT_ONCE]
        x[start : start + _READ_AT_ONCE] = fused(
            [block.store.read(block.rows.rows(some), recipe.q) for block in held], recipe
        )
    return x


def fused(held: Sequence[Rows], recipe: Recipe) -> Floats:
    """Return what the SVM sees of n items: scales joined, then nets and regions fused.

    Args:
        held: The rows of each net and region, in the recipe's order.
        recipe: Says how.

    Returns:
        (n, D) float32, rows of norm 1; NaN where one of the images is unreadable.
    """
    return fuse(
        [aggregate(r.descriptors, r.norms, recipe.aggregate, recipe.normalise) for r in held]
    )


def _used(block: Block, ids: Sequence[str], recipe: Recipe) -> StoreUsed:
    store = block.store
    wanted = sorted(set(block.rows.rows(ids)))
    held = {i: row for row, i in enumerate(store.ids)}
    rows = [held[i] for i in wanted]
    statuses, sizes = store.statuses()[rows], store.image_sizes()[rows]
    norms = store.norms(recipe.q)[rows][statuses == Status.OK]
    origin = json.loads(store.attribute("created_by"))
    return StoreUsed(
        model=store.recipe["net"],
        region=block.region,
        weights=origin["weights"],
        weights_family=origin.get("weights_family", "own"),
        weights_sha256=store.recipe["weights_sha256"],
        path=str(store.path),
        fingerprint=store.fingerprint,
        row_fingerprint=store.row_fingerprint,
        recipe=store.recipe,
        images=len(rows),
        bytes=store.path.stat().st_size,
        mean_norms=tuple(number(mean) for mean in norms.mean(axis=0)) if len(norms) else (),
        unreadable=int((statuses == Status.UNREADABLE).sum()),
        zero=int((statuses == Status.ZERO).sum()),
        cropped=int(
            (sizes.max(axis=1, initial=0) > MAX_ASPECT * sizes.min(axis=1, initial=2**31 - 1)).sum()
        ),
    )


def _result(
    recipe: Recipe,
    dataset: Dataset,
    stores: tuple[StoreUsed, ...],
    runs: Sequence[SplitRun],
    seconds: dict[str, float],
) -> Result:
    outcomes = tuple(run.outcome for run in runs)
    classes = class_means([run.classes for run in runs])
    confused = sum((run.confusion for run in runs), Counter[tuple[int, int]]())
    values, deviations = split_means([outcome.means for outcome in outcomes])
    identity = [recipe.canonical(), [store.weights_sha256 for store in stores]]
    return Result(
        name=recipe.file_name(),
        recipe=recipe.model_dump(mode="json"),
        recipe_fingerprint=fingerprint({"experiment": identity}),
        kind=dataset.kind.value,
        ignored=len(dataset.ignored),
        stores=stores,
        descriptor_size=runs[0].fitted.classifier.coef.shape[1],
        splits=outcomes,
        classes=classes,
        confusion=tuple((*pair, count) for pair, count in sorted(confused.items())),
        means=values,
        deviations=deviations,
        measure=recipe.measure,
        score=values.get(recipe.measure),
        warnings=_warnings(stores, classes, runs),
        seconds=seconds,
        versions=versions(),
    )


def _warnings(
    stores: tuple[StoreUsed, ...],
    classes: tuple[ClassResult, ...],
    runs: Sequence[SplitRun],
) -> tuple[str, ...]:
    found = []
    searches = [run.outcome.search for run in runs]
    for store in stores:
        if store.substitute:
            found.append(f"{store.model} has {store.substitute}: a substitute.")
        lost = {"unreadable": store.unreadable, "with a descriptor of zero": store.zero}
        found += [f"{n} images are {what} ({store.model})." for what, n in lost.items() if n]
        if store.cropped:
            found.append(f"{store.cropped} images were cropped to an aspect of {MAX_ASPECT}:1.")
    found += [f"{c.name}: {c.note}." for c in classes if c.note]
    if any(mean is None for search in searches for mean in search.means):
        found.append("No C could be chosen, since no class can be measured on val; it is 1.")
    names = [c.name for c in classes]
    for index, run in enumerate(runs, 1):
        if doubt := undecided(run.fitted.search, names):
            found.append(f"Split {index}: {doubt}" if len(runs) > 1 else doubt)
    if any(search.at_edge for search in searches):
        found.append("A chosen C lies at the edge of the grid.")
    if failed := sum(search.not_converged for search in searches):
        found.append(f"{failed} of the SVMs fitted did not converge.")
    return tuple(dict.fromkeys(found))
