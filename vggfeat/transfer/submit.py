"""From a result to an archive for VOC's evaluation server, and the check of anybody's archive."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.classify.measures import Scores
from vggfeat.data import action, open_dataset, voc
from vggfeat.data.names import proxy_of
from vggfeat.errors import DatasetNotFoundError, StoreNotFoundError, UnsafeArchiveError
from vggfeat.extraction.provide import open_for
from vggfeat.files.archives import Limits
from vggfeat.files.publish import publish_bytes
from vggfeat.files.unpack import read_members
from vggfeat.recipe import Machine
from vggfeat.report.result import Result, ResultError, StoreUsed
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.origin import as_run
from vggfeat.transfer.run import check_stores
from vggfeat.transfer.samples import blocks_of, read_sample
from vggfeat.transfer.voc_server import (
    ROOT,
    Finding,
    SubmissionError,
    Task,
    check,
    pack,
    results_files,
)

_log = logging.getLogger(__name__)


# A complete archive of both tasks has 30 files and 10 MB.
_LIMITS = Limits(members=1_000, member_bytes=8 << 20, total_bytes=64 << 20)

_TASKS = {
    "voc2012": Task(
        folder="Main", kind="cls", competitions=(1, 2), classes=voc.CLASSES, size=10_991
    ),
    "voc2012-action": Task(
        folder="Action",
        kind="action",
        competitions=(9, 10),
        classes=action.ACTIONS,
        size=6_283,
        certain=False,  # from memory: no document of VOC that is at hand has it
    ),
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The test scores of a result, formed again.

    Attributes:
        ids: m items, in the order of the list.
        classes: K names.
        scores: (m, K); NaN for an unreadable image, and for a class without a classifier.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Scores


def scored_again(path: Path, machine: Machine) -> Scored:
    """Form the test scores of a result of one split from its stores and its classifiers.

    On the same machine they are those that the result was made of, to the last bit.

    Args:
        path: Of the result; its classifiers stand beside it.
        machine: Where the data set's lists are, and the stores if they were moved.

    Raises:
        ResultError: If the result is absent or damaged, or has several splits.
        ClassifierError: If the classifiers are not those that it names.
        StoreNotFoundError: If a store is not there, or is another one by now.
        VggfeatError: As the rooms say.
    """
    result = as_run(path)
    if len(result.classifiers) != 1:
        count = len(result.classifiers)
        raise ResultError(f"'{path}' names {count} files of classifiers.", "Expected one.")
    [(name, sha256)] = result.classifiers.items()
    classifier = LinearOneVsRest.load(path.parent / Path(name).name, sha256)
    recipe = result.recipe
    check_stores(result, f"'{path}'")
    with ExitStack() as opened:
        held = [opened.enter_context(_opened(used, machine)) for used in result.stores]
        dataset = open_for(recipe, machine, held[0].ids)
        sample = read_sample(blocks_of(held, dataset, recipe), dataset.splits[0].test, recipe)
    if classifier.coef.shape != (len(dataset.classes), sample.x.shape[1]):
        raise ResultError(f"Classifiers, stores and classes of '{path}' do not belong together.")
    return Scored(
        ids=sample.ids, classes=dataset.classes, scores=classifier.decision_scores(sample.x)
    )


def _opened(used: StoreUsed, machine: Machine) -> DescriptorStore:
    """Open the store that a result names, where it was or in this machine's cache."""
    named = Path(used.path)
    for place in (named, machine.cache / named.parent.name / named.name):
        if place.is_file():
            store = DescriptorStore.open(place)
            if store.fingerprint == used.fingerprint:
                return store
            store.close()
            _log.warning("'%s' is not the store that the result was made of", place)
    raise StoreNotFoundError(
        f"The store of {used.model!r} that the result was made of is not there: '{named}'.",
        f"Expected the fingerprint {used.fingerprint[:8]}….",
        "Make it again with `vggfeat extract` and the same options, or pass --cache.",
    )


def submit(path: Path, machine: Machine) -> Path:
    """Write the archive of a result for VOC's evaluation server, after checking it.

    An image that could not be read gets a confidence below all others of its class.

    Args:
        path: Of the result, on `voc2012` or `voc2012-action`.
        machine: As for `scored_again`.

    Returns:
        Of `x.json` it is `x-comp2.tar.gz` beside it, or comp10 for actions.

    Raises:
        SubmissionError: If such a result cannot be submitted, the list of test images on disk is
            not whole, or the archive would be refused.
        VggfeatError: As `scored_again` does.
        PublishError: If it cannot be written.
    """
    result = as_run(path)
    task = _task_of(result)
    scored = scored_again(path, machine)
    if doubt := task.doubt(scored.ids):
        if task.certain:
            raise SubmissionError(
                f"The list of test below '{machine.data_root}' has {doubt}.",
                "The server wants a score for every one.",
                f"Unpack VOC2012test.tar again, then run the recipe of '{path}' again.",
            )
        _log.warning("the list of test has %s: make sure that it is whole", doubt)
    task = replace(task, ids=scored.ids)
    target = path.with_name(f"{path.stem}-comp{task.competitions[1]}.tar.gz")
    archive = pack(results_files(task, scored.ids, _finite(scored)))
    for finding in check(read_members(str(target), archive, _LIMITS), [task]):
        if finding.level == "error":
            raise SubmissionError(f"{finding.where}: {finding.message}", "Nothing was written.")
        if finding.level == "warning":
            _log.warning("%s: %s", finding.where, finding.message)
    publish_bytes(target, archive)
    return target


def _task_of(result: Result) -> Task:
    """Return what a result is submitted to, if it can be."""
    recipe = result.recipe
    if recipe.dataset not in _TASKS:
        official = proxy_of(recipe.dataset)
        remedy = f"Run the same recipe on {official!r}." if official in _TASKS else ""
        raise SubmissionError(
            f"'{result.name}' is a result on {recipe.dataset!r}.",
            f"The server takes the test sets of {' and '.join(map(repr, _TASKS))} only.",
            remedy,
        )
    if recipe.limit is not None:
        raise SubmissionError(
            f"'{result.name}' was made with --limit {recipe.limit}.",
            "The server wants a score for every test image.",
            "Run the same recipe without --limit.",
        )
    if any(store.weights_family == "random" for store in result.stores):
        _log.warning("'%s' has random weights: such scores say nothing", result.name)
    return _TASKS[recipe.dataset]


def _finite(scored: Scored) -> Scores:
    """Return the scores with images that have none below all others of each class."""
    absent = np.isnan(scored.scores)
    without = [name for name, column in zip(scored.classes, absent.T, strict=True) if column.all()]
    if without:
        raise SubmissionError(
            f"There is no score at all for {', '.join(without)}.",
            "Every class needs a classifier, and every file its scores.",
            "Check the lists of train and val, and that images could be read.",
        )
    lost = [i for i, row in zip(scored.ids, absent, strict=True) if row.any()]
    if lost:
        _log.warning("unreadable, and so ranked last: %d, the first is %r", len(lost), lost[0])
    return np.where(absent, np.nanmin(scored.scores, axis=0) - 1, scored.scores)


def check_archive(archive: Path, machine: Machine) -> tuple[Finding, ...]:
    """Check anybody's archive for VOC 2012's server, in memory and without trusting it.

    Args:
        archive: A .tar, .tar.gz or .zip.
        machine: Where the official lists of the test sets may be.

    Returns:
        Everything that was found; of an archive that is not safe to read, only that.

    Raises:
        SubmissionError: If it is not there.
        DatasetError: If the official lists contradict each other.
    """
    if not archive.is_file():  # a pipe would block for ever
        raise SubmissionError(f"There is no archive '{archive}'.")
    try:
        with archive.open("rb") as stream:
            data = stream.read(_LIMITS.total_bytes + 1)
    except OSError as error:
        raise SubmissionError(f"'{archive}' cannot be read: {error.strerror}.") from error
    if len(data) > _LIMITS.total_bytes:
        raise SubmissionError(
            f"'{archive}' has more than {_LIMITS.total_bytes:,} bytes.",
            "A complete archive has about 10 MB.",
        )
    try:
        files = read_members(str(archive), data, _LIMITS)
    except UnsafeArchiveError as error:
        message = f"It is not looked into: {error.reason}."
        return (Finding(level="error", where="the archive", message=message),)
    tasks, findings = [], []
    for name, task in _TASKS.items():
        held = any(file.startswith(f"{ROOT}/{task.folder}/") for file in files)
        ids = _official(name, machine.data_root) if held else None
        doubt = "" if ids is None else task.doubt(ids)
        if doubt:
            findings.append(_incomplete(task, doubt))
        tasks.append(replace(task, ids=None if doubt and task.certain else ids))
    return (*findings, *check(files, tasks))


def _incomplete(task: Task, doubt: str) -> Finding:
    """Say that the list of a test set on this disk is not the official one."""
    where = f"'ImageSets/{task.folder}/test.txt'"
    if not task.certain:
        message = f"It has {doubt}. Make sure that it is whole."
        return Finding(level="warning", where=where, message=message)
    message = f"It has {doubt}. Nothing is compared with it; unpack VOC2012test.tar again."
    return Finding(level="error", where=where, message=message)


def _official(name: str, data_root: Path) -> tuple[str, ...] | None:
    """Return the ids of a test set, if its lists are there."""
    try:
        return open_dataset(name, data_root, stored_ids=()).splits[0].test.ids
    except DatasetNotFoundError:
        return None
