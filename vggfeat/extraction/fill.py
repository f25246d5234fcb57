"""Doing a job: images → rows, into a store that survives anything or straight to the caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.errors import ImageReadError
from vggfeat.extraction.budget import budget_of, execution_on, workers
from vggfeat.extraction.calibration import calibrated
from vggfeat.extraction.find import tell_near_matches
from vggfeat.extraction.job import StoreJob, in_one_pass
from vggfeat.extraction.pace import Pace
from vggfeat.extraction.plan import plan_of, plans_of
from vggfeat.extraction.remarks import tell_alike
from vggfeat.nets.architectures import architecture
from vggfeat.nets.devices import device_of
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Machine, fingerprint
from vggfeat.store.layout import DESCRIPTORS, PLAN, StorePlan
from vggfeat.store.reader import DescriptorStore, adopt
from vggfeat.store.reuse import Donors, Known
from vggfeat.store.rows import Rows
from vggfeat.store.writer import ShardFolder, claims, tidy
from vggfeat.version import versions
from vggfeat.watch import Watch

if TYPE_CHECKING:
    from vggfeat.extraction.engine import Extractor, ShardTask
    from vggfeat.nets.vgg import DenseVgg

_log = logging.getLogger(__name__)

_RESUME = "Run the same command again to resume; every finished shard is kept."
_NOTHING_KEPT = "Nothing was kept; run the same command again."
_WAIT = 1.0  # seconds between looks at shards that other processes have claimed


@dataclass(frozen=True)
class _Store:
    """A store in the making.

    Attributes:
        job: What it is to be.
        plan: How it is made.
        shards: Its folder; None where its rows are not kept.
        donors: What it copies rows from.
    """

    job: StoreJob
    plan: StorePlan
    shards: ShardFolder | None
    donors: Donors


def fill(jobs: Sequence[StoreJob], machine: Machine, watch: Watch) -> list[Path]:
    """Make, resume or find the stores of some jobs; one pass serves those of several taps.

    Returns:
        The path of each complete file.

    Raises:
        Interrupted: If the watch says so; all finished shards are kept.
        ImageReadError: At an unreadable image, if the machine says "raise".
        VggfeatError: As the rooms say.
    """
    for some in in_one_pass(jobs):
        if lacking := [job for job in some if not _is_there(job)]:
            _make(lacking, machine, watch)
        for job in some:
            _tell(job.folder / DESCRIPTORS, machine)
    return [job.folder / DESCRIPTORS for job in jobs]


def _is_there(job: StoreJob) -> bool:
    """Tell whether a job's store is complete, and tidy it then."""
    path = job.folder / DESCRIPTORS
    lost_record = path.exists() and not (job.folder / "shards").exists() and not job.complete
    there = job.complete or (lost_record and adopt(path, job.identity.fingerprint))
    if there:
        tidy(job.folder)
    return there


def _tell(path: Path, machine: Machine) -> None:
    """Log what the owner of a complete store has to know of its rows."""
    with DescriptorStore.open(path) as store:
        if count := len(store.unreadable):
            if machine.on_error == "raise":
                raise ImageReadError(*next(iter(store.unreadable.items())))
            _log.warning(
                "%d images are unreadable; '%s' lists them", count, path.with_suffix(".json")
            )
        tell_alike(store)


def _make(jobs: Sequence[StoreJob], machine: Machine, watch: Watch) -> None:
    """Make stores that one pass serves; those that were begun in other portions one by one."""
    plans = plans_of(jobs, machine)
    if len(jobs) > 1:
        taps = ", ".join(job.tap for job in jobs)
        _log.info("%s: one pass of %s fills a store for each", taps, jobs[0].model)
    for job in jobs:
        tell_near_matches(job)
    begun = all((job.folder / PLAN).exists() for job in jobs)
    net = None if begun else _net(jobs)  # refused ones leave no folder
    if net is not None:
        plans = [_noted(plan, net) for plan in plans]
    with ExitStack() as opened:
        alike: dict[str, list[tuple[StoreJob, ShardFolder]]] = {}
        for job, plan in zip(jobs, plans, strict=True):
            shards = opened.enter_context(ShardFolder(job.folder, plan))
            portions = fingerprint({"rows": shards.plan.shard_rows, **shards.plan.execution})
            alike.setdefault(portions, []).append((job, shards))
        for some in alike.values():
            told = False
            while any(shards.pending() for _, shards in some):
                committed = _commit_shards(some, machine, watch, net)
                net = None  # its form may have changed it
                watch.check(_RESUME)
                if not committed and any(shards.pending() for _, shards in some):
                    if not told:
                        _log.info("other processes work on what is left; waiting for them")
                    told = True
                    time.sleep(_WAIT)
            for _, shards in some:
                shards.assemble()


class Kept:
    """The nets that have described images last, ready to describe others in the same way."""

    def __init__(self) -> None:
        self._held: dict[str, Extractor] = {}

    def take(self, key: str) -> Extractor | None:
        """Take one out, if it is there: nobody else gets it meanwhile."""
        return self._held.pop(key, None)

    def put(self, used: Mapping[str, Extractor]) -> None:
        """Keep those that have just been used, and no others: each has the memory of a net."""
        self._held = dict(used)


def described(
    jobs: Sequence[StoreJob], machine: Machine, watch: Watch, kept: Kept | None = None
) -> Iterator[tuple[Rows, ...]]:
    """Yield the rows that the stores of some jobs would hold, and keep none of them.

    Rows that complete stores beside them hold already are copied. In float32 on the CPU rows have
    the bits that their stores would have; elsewhere so have those of a single job, and those of
    several lie within the exactness bound.

    Args:
        jobs: One for each net and tap, of the same images.
        machine: Where.
        watch: Told of the progress; may stop it.
        kept: Gives the nets that it has, and gets those that were used.

    Yields:
        The rows of some images, of each job; all images once, in the order of the jobs' items.

    Raises:
        Interrupted: If the watch says so.
        ImageReadError: At an unreadable image, if the machine says "raise".
        VggfeatError: As the rooms say.
    """
    plans = [plan_of(job, machine) for job in jobs]
    size = min(plan.shard_rows for plan in plans)  # so that all jobs have the same shards
    passes = in_one_pass(jobs)
    with ExitStack() as opened:
        total = sum(len(some[0].items) for some in passes)
        advance = opened.enter_context(watch.step("describe", total, "images"))
        stores = {
            job.folder: _Store(
                job,
                replace(plan, shard_rows=size),
                None,
                opened.enter_context(Donors(job.folder, plan.donors)),
            )
            for job, plan in zip(jobs, plans, strict=True)
        }
        describers = []
        used = {}
        for some in passes:
            own = [stores[job.folder] for job in some]
            key = _way(own, machine)
            extractor = None if kept is None else kept.take(key)
            if extractor is None:
                extractor = _extractor(own, _net(some), machine, advance)
            extractor.advance, extractor.on_error = advance, machine.on_error
            used[key] = extractor
            describers.append((own, extractor))
        for number in range(-(-plans[0].rows // size)):
            watch.check(_NOTHING_KEPT)
            blocks: dict[Path, Rows] = {}
            for own, extractor in describers:
                place = {store.job.tap: store.job.folder for store in own}
                for task, rows in extractor.run(_tasks(own, number, extractor.plan.canvas)):
                    blocks |= zip((place[tap] for tap in task.taps), rows, strict=True)
            yield tuple(blocks[job.folder] for job in jobs)
        for _, extractor in describers[1:]:
            extractor.remarks.forget()  # every pass has read the same images
        describers[0][1].remarks.tell()
        if kept is not None:
            kept.put(used)


def _commit_shards(
    made: Sequence[tuple[StoreJob, ShardFolder]],
    machine: Machine,
    watch: Watch,
    net: DenseVgg | None,
) -> int:
    """Compute and commit every shard that nobody else has claimed; return how many.

    Args:
        made: The stores, made in the same portions.
        machine: Where.
        watch: Told of the progress; may stop it.
        net: That of the jobs, where it has been read already.
    """
    claimed = claims([shards for _, shards in made], lambda: watch.stop_signal() is not None)
    first = list(islice(claimed, 1))
    if not first:
        return 0
    model, plan = made[0][0].model, made[0][1].plan
    pending = {number for _, shards in made for number in shards.pending()}
    committed = 0
    with ExitStack() as opened:
        stores = {}
        for job, shards in made:
            donors = opened.enter_context(Donors(job.folder, shards.plan.donors))
            stores[job.tap] = _Store(job, shards.plan, shards, donors)
            if copied := sum(not donors.lacking(d, plan.scales) for d in job.digests):
                _log.info("%d of %d images are copied from other stores", copied, plan.rows)
        advance = opened.enter_context(watch.step(f"extract {model}", plan.rows, "images"))
        advance(plan.rows - sum(len(plan.shard_range(k)) for k in pending))
        net = _net([job for job, _ in made]) if net is None else net
        pace = Pace(max(budget_of(job, machine).row_seconds for job, _ in made), advance)
        opened.enter_context(watch.stopping_in(pace.seconds_left))
        extractor = _extractor([*stores.values()], net, machine, pace.advance)

        def tasks() -> Iterator[ShardTask]:
            for number, folders in chain(first, claimed):
                own = [store for store in stores.values() if store.shards in folders]
                yield from _tasks(own, number, extractor.plan.canvas)

        begun = time.perf_counter()
        for task, blocks in extractor.run(pace.following(tasks())):
            done = time.perf_counter()
            pace.finished()
            notes = {
                "device": machine.device,
                "versions": versions(),
                "halved_batches": extractor.halved,
            }
            seconds = (done - begun) / len(task.taps)
            begun = done
            for tap, rows in zip(task.taps, blocks, strict=True):
                _commit(stores[tap], task, rows, notes, seconds)
                committed += 1
            watch.check(_RESUME)
        extractor.remarks.tell()
    return committed


def _commit(
    store: _Store, task: ShardTask, rows: Rows, notes: Mapping[str, Any], seconds: float
) -> None:
    """Commit a shard; its time is that of what was computed and, once, of what was copied."""
    assert store.shards is not None
    copied = [task.sha256[row] for row in task.known[store.job.tap]]
    before = store.donors.seconds(copied, store.plan.scales)
    own = {
        "missing_donors": store.donors.missing,
        "seconds": None if before is None else round(seconds + before, 3),
    }
    store.shards.commit(task.number, rows, {**notes, **own})


def _tasks(stores: Sequence[_Store], number: int, canvas: int | None) -> Iterator[ShardTask]:
    """Yield what there is to do for one shard of stores that one pass serves.

    On a canvas the last bits of a row may hang on the batch that it is computed in. So that each
    store has the bits that it would have alone, only those that lack the same rows share a task
    there.
    """
    from vggfeat.extraction.engine import ShardTask

    job, plan = stores[0].job, stores[0].plan
    rows = plan.shard_range(number)
    items, digests = job.items[rows.start : rows.stop], job.digests[rows.start : rows.stop]
    whole = {i: digests[i] for i, item in enumerate(items) if item.box is None}
    known: dict[str, Known] = {}
    sizes: dict[int, tuple[int, int]] = {}
    together: dict[object, list[str]] = {}
    for store in stores:
        tap = store.job.tap
        known[tap], there = store.donors.known(whole, plan.scales)
        sizes |= there
        lacking = None if canvas is None else str({r: [*s] for r, s in sorted(known[tap].items())})
        together.setdefault(lacking, []).append(tap)
    for taps in together.values():
        yield ShardTask(
            number=number,
            items=items,
            sha256=digests,
            taps=taps,
            known={tap: known[tap] for tap in taps},
            known_sizes=sizes,
        )


def _net(jobs: Sequence[StoreJob]) -> DenseVgg:
    """Read the net of jobs that one pass serves, as far as their deepest tap."""
    from vggfeat.nets.vgg import DenseVgg

    model, weights = jobs[0].model, jobs[0].weights
    taps = (job.tap for job in jobs)
    return DenseVgg(architecture(model), weights.load(), weights.profile, *taps)


def _noted(plan: StorePlan, net: DenseVgg) -> StorePlan:
    """Return a plan that says of its weights, now that they are read, whether they are rounded."""
    from vggfeat.weights.rounding import rounded_to_bits

    bits = rounded_to_bits(net.parameters())
    if bits is None:
        return plan
    return replace(plan, created_by={**plan.created_by, "weights_rounded_to_bits": bits})


def _way(stores: Sequence[_Store], machine: Machine) -> str:
    """Return what is equal for passes that one extractor can do."""
    plan = stores[0].plan
    own = execution_on(plan, machine)
    return fingerprint(
        {
            "rows": [store.plan.row_fingerprint for store in stores],
            "scales": plan.scales,
            "execution": {**plan.execution, "threads": own["threads"], "canvas": own["canvas"]},
            "machine": [machine.device, machine.memory, workers(machine)],
        }
    )


def _extractor(
    stores: Sequence[_Store], net: DenseVgg, machine: Machine, advance: Callable[[int], None]
) -> Extractor:
    from vggfeat.extraction.engine import ExtractionPlan, Extractor

    job, plan = stores[0].job, stores[0].plan
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
