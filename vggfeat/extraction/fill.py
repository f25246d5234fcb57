"""Doing a job: images → rows, into a store that survives anything or straight to the caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import ImageReadError
from vggfeat.extraction.budget import execution_on, workers
from vggfeat.extraction.calibration import calibrated
from vggfeat.extraction.find import tell_near_matches
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.plan import plan_of
from vggfeat.nets.architectures import architecture
from vggfeat.nets.devices import device_of
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Machine
from vggfeat.store.layout import DESCRIPTORS, PLAN, StorePlan
from vggfeat.store.reader import DescriptorStore, adopt
from vggfeat.store.reuse import Donors
from vggfeat.store.rows import Rows
from vggfeat.store.writer import ShardFolder, tidy
from vggfeat.version import versions
from vggfeat.watch import Watch

if TYPE_CHECKING:
    from vggfeat.extraction.engine import Extractor, ShardTask
    from vggfeat.nets.vgg import DenseVgg

_log = logging.getLogger(__name__)

_RESUME = "Run the same command again to resume; every finished shard is kept."
_NOTHING_KEPT = "Nothing was kept; run the same command again."
_WAIT = 1.0  # seconds between looks at shards that other processes have claimed


def fill(job: StoreJob, machine: Machine, watch: Watch) -> Path:
    """Make, resume or find the store of a job.

    Returns:
        The path of the complete file.

    Raises:
        Interrupted: If the watch says so; all finished shards are kept.
        ImageReadError: At an unreadable image, if the machine says "raise".
        VggfeatError: As the rooms say.
    """
    path = job.folder / DESCRIPTORS
    lost_record = path.exists() and not (job.folder / "shards").exists() and not job.complete
    if job.complete or (lost_record and adopt(path, job.identity.fingerprint)):
        tidy(job.folder)
    else:
        plan = plan_of(job, machine)
        tell_near_matches(job)
        net = None if (job.folder / PLAN).exists() else _net(job)  # refused ones leave no folder
        if net is not None:
            plan = _noted(plan, net)
        with ShardFolder(job.folder, plan) as shards:
            told = False
            while shards.pending():
                committed = _commit_shards(job, shards, machine, watch, net)
                net = None  # its form may have changed it
                watch.check(_RESUME)
                if not committed and shards.pending():
                    if not told:
                        _log.info("other processes work on what is left; waiting for them")
                    told = True
                    time.sleep(_WAIT)
            path = shards.assemble()
    with DescriptorStore.open(path) as store:
        if count := len(store.unreadable):
            if machine.on_error == "raise":
                raise ImageReadError(*next(iter(store.unreadable.items())))
            _log.warning(
                "%d images are unreadable; '%s' lists them", count, path.with_suffix(".json")
            )
    return path


def described(
    jobs: Sequence[StoreJob], machine: Machine, watch: Watch
) -> Iterator[tuple[Rows, ...]]:
    """Yield the rows that the stores of some jobs would hold, and keep none of them.

    Rows that complete stores beside them hold already are copied. In float32 on the CPU rows have
    the bits that their stores would have; elsewhere so have those of a single job, and those of
    several lie within the exactness bound.

    Args:
        jobs: One for each net, of the same images.
        machine: Where.
        watch: Told of the progress; may stop it.

    Yields:
        The rows of some images, of each net; all images once, in the order of the jobs' items.

    Raises:
        Interrupted: If the watch says so.
        ImageReadError: At an unreadable image, if the machine says "raise".
        VggfeatError: As the rooms say.
    """
    plans = [plan_of(job, machine) for job in jobs]
    size = min(plan.shard_rows for plan in plans)  # so that all nets have the same shards
    with ExitStack() as opened:
        total = sum(plan.rows for plan in plans)
        advance = opened.enter_context(watch.step("describe", total, "images"))
        describers = []
        for job, own in zip(jobs, plans, strict=True):
            plan = replace(own, shard_rows=size)
            donors = opened.enter_context(Donors(job.folder, plan.donors))
            extractor = _extractor(job, _net(job), plan, machine, advance)
            describers.append((job, plan, donors, extractor))
        for number in range(plan.shards):
            watch.check(_NOTHING_KEPT)
            blocks = []
            for job, plan, donors, extractor in describers:
                [(_, rows)] = extractor.run([_task(job, plan, donors, number)])
                blocks.append(rows)
            yield tuple(blocks)


def _commit_shards(
    job: StoreJob, shards: ShardFolder, machine: Machine, watch: Watch, net: DenseVgg | None
) -> int:
    """Compute and commit every shard that nobody else has claimed; return how many.

    Args:
        job: Of the store.
        shards: Of the store.
        machine: Where.
        watch: Told of the progress; may stop it.
        net: The job's, where it has been read already.
    """
    claims = shards.claims(lambda: watch.stop_signal() is not None)
    first = list(islice(claims, 1))
    if not first:
        return 0
    waiting = sum(len(shards.plan.shard_range(k)) for k in shards.pending())
    committed = 0
    with (
        Donors(job.folder, shards.plan.donors) as donors,
        watch.step(f"extract {job.model}", shards.plan.rows, "images") as advance,
    ):
        if copied := sum(donors.covers(d, shards.plan.scales) for d in job.digests):
            _log.info("%d of %d images are copied from other stores", copied, len(job.digests))
        notes = {"device": machine.device, "versions": versions(), "missing_donors": donors.missing}
        advance(shards.plan.rows - waiting)
        tasks = (_task(job, shards.plan, donors, number) for number in chain(first, claims))
        net = _net(job) if net is None else net
        extractor = _extractor(job, net, shards.plan, machine, advance)
        for task, rows in extractor.run(tasks):
            shards.commit(task.number, rows, notes | {"halved_batches": extractor.halved})
            committed += 1
            watch.check(_RESUME)
    return committed


def _task(job: StoreJob, plan: StorePlan, donors: Donors, number: int) -> ShardTask:
    from vggfeat.extraction.engine import ShardTask

    rows = plan.shard_range(number)
    items, digests = job.items[rows.start : rows.stop], job.digests[rows.start : rows.stop]
    whole = {i: digests[i] for i, item in enumerate(items) if item.box is None}
    known, sizes = donors.known(whole, plan.scales)
    return ShardTask(number=number, items=items, sha256=digests, known=known, known_sizes=sizes)


def _net(job: StoreJob) -> DenseVgg:
    from vggfeat.nets.vgg import DenseVgg

    tensors, tap = job.weights.load(), job.identity.recipe["tap"]
    return DenseVgg(architecture(job.model), tensors, job.weights.profile, tap)


def _noted(plan: StorePlan, net: DenseVgg) -> StorePlan:
    """Return a plan that says of its weights, now that they are read, whether they are rounded."""
    from vggfeat.weights.rounding import rounded_to_bits

    bits = rounded_to_bits(net.parameters())
    if bits is None:
        return plan
    return replace(plan, created_by={**plan.created_by, "weights_rounded_to_bits": bits})


def _extractor(
    job: StoreJob,
    net: DenseVgg,
    plan: StorePlan,
    machine: Machine,
    advance: Callable[[int], None],
) -> Extractor:
    from vggfeat.extraction.engine import ExtractionPlan, Extractor

    precision = plan.recipe["precision"]
    execution = execution_on(plan, machine)
    return Extractor(
        net.to(device_of(machine.device)),
        ExtractionPlan(
            scales=plan.scales,
            mirror=plan.recipe["mirror"],
            interpolation=plan.recipe["interpolation"],
            resampler=plan.recipe["resampler"].partition("-")[0],
            precision=precision,
            window_pixels=execution["window_pixels"],
            batch_pixels=execution["batch_pixels"],
            canvas=execution["canvas"],
            threads=execution["threads"],
        ),
        workers=workers(machine),
        calibration=calibrated(job, net) if PRECISIONS[precision].calibrated else None,
        on_error=machine.on_error,
        advance=advance,
    )
