"""What a recipe would cost: told before anything is computed, fetched or written."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vggfeat.data.records import Dataset
from vggfeat.errors import ImageReadError, StoreError
from vggfeat.extraction.budget import row_flop, row_seconds
from vggfeat.extraction.calibration import calibration_images
from vggfeat.extraction.images import cropped, read_size, rescaled_size
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import Supplies, survey
from vggfeat.nets.architectures import architecture
from vggfeat.nets.devices import device_of, usual_threads
from vggfeat.nets.precisions import PRECISIONS, way_of
from vggfeat.recipe import Described, Machine, Recipe, device_names
from vggfeat.store.layout import DESCRIPTORS, StorePlan
from vggfeat.store.reuse import Donors
from vggfeat.store.writer import finished_shards
from vggfeat.watch import Watch

_SAMPLED = 500  # images whose headers stand for all
_USUAL_SIZE = (375, 500)  # H and W of an image that is not here yet; most of VOC have it
_USUAL_CEIL = True  # pools of the authors' nets
# Rough guesses: to load torch and the other libraries, then weights from a file or drawn, so that
# those of VGG-16 take about the 4.8 s of docs/performance.md.
_START_SECONDS = 3.0
_START_SECONDS_PER_PARAMETER = 33e-9
_BESIDES = 64  # bytes of a row beside its descriptors and norms: id, size, digest, status


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one store of a recipe would cost.

    Attributes:
        model: The net.
        region: What of each image it would describe.
        tap: The layer that would be averaged.
        store: Where it would stand; "" while what is to be fetched decides that.
        rows: Images in the store; at most so many while they are to be fetched.
        done: How many are there: all of a complete store, the shards of an interrupted run.
        copied: How many of the others stand in other stores, at every scale.
        partly: How many of the others stand there at some scales, and are described at the rest.
        gflop: Of all forward passes that are left, save those that go on to a deeper tap: they are
            counted with that one's store.
        seconds: A rough guess for these, and for what comes before the first of them.
        start_seconds: How much of it comes before.
        disk_bytes: Of the complete store; while it is assembled twice as much.
        free_bytes: On that disk.
        complete: Whether nothing is left to do.
        fetches: What would be downloaded first: name, size, licence, citation.
    """

    model: str
    region: str
    tap: str
    store: str
    rows: int
    done: int
    copied: int
    partly: int
    gflop: float
    seconds: float
    start_seconds: float
    disk_bytes: int
    free_bytes: int
    complete: bool
    fetches: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What there is to do for one store.

    Attributes:
        done: As in `Estimate`, and the next two.
        copied: Images.
        partly: Images.
        lacking: Scale → images that have to be described at it.
    """

    done: int
    copied: int
    partly: int
    lacking: Counter[int]


def foresee(recipe: Recipe, machine: Machine, watch: Watch) -> Iterator[Estimate]:
    """Say what each store of a recipe would cost.

    Args:
        recipe: What would be done.
        machine: Where.
        watch: Told of the hashing.

    Raises:
        DatasetNotFoundError: If the data set is absent and not public.
        VggfeatError: As the rooms say.
    """
    supplies = survey(recipe, machine)
    found: dict[Described, Estimate] = {}
    counted: dict[object, Counter[int]] = {}  # passes to a deeper tap, which serve this one
    for which in sorted(recipe.described, key=partial(_depth, recipe), reverse=True):
        shared = not PRECISIONS[recipe.precision].calibrated
        key = (which.model, which.region) if shared else which
        before = counted.setdefault(key, Counter())
        found[which], lacking = _estimated(recipe, machine, which, supplies, before, watch)
        counted[key] = before | lacking
    yield from (found[which] for which in recipe.described)


def _estimated(
    recipe: Recipe,
    machine: Machine,
    which: Described,
    supplies: Supplies,
    counted: Counter[int],
    watch: Watch,
) -> tuple[Estimate, Counter[int]]:
    """Return what a store would cost beside passes that are counted already, and its own passes."""
    absent, dataset = supplies.absent([which.model]), supplies.dataset
    job = None
    if isinstance(dataset, Dataset) and not absent:
        job = job_of(recipe, machine, dataset, which, watch)
        rows, work = len(job.items), _work(job)
        ceil, sizes = job.weights.profile.ceil_mode, _sizes(job)
    else:
        if isinstance(dataset, Dataset):
            rows = len(dataset.of_region(which.region).items)
        else:
            rows = dataset.what.image_count
        rows = min(rows, 3 * (recipe.limit or rows))
        work = _Work(
            done=0, copied=0, partly=0, lacking=Counter(dict.fromkeys(recipe.scales, rows))
        )
        ceil, sizes = _USUAL_CEIL, [_USUAL_SIZE]
    passes = work.lacking - counted
    flop = _flop(recipe, which, sizes, ceil)
    where = _where(recipe, machine, which.model)
    seconds = _seconds(which.model, recipe.precision, where, flop)
    start = _start(recipe, which, job, where, flop) if passes and not counted else 0.0
    folder = job.folder if job else machine.cache
    return Estimate(
        model=which.model,
        region=which.region,
        tap=which.tap,
        store=str(job.folder / DESCRIPTORS) if job else "",
        rows=rows,
        done=work.done,
        copied=work.copied,
        partly=work.partly,
        gflop=sum(flop[q] * passes[q] for q in passes) / 1e9,
        seconds=start + sum(seconds[q] * passes[q] for q in passes),
        start_seconds=start,
        disk_bytes=_disk_bytes(recipe, which, rows),
        free_bytes=_free_bytes(folder),
        complete=job is not None and job.complete,
        fetches=tuple(one.what.summary for one in absent),
    ), work.lacking


def _depth(recipe: Recipe, which: Described) -> float:
    return row_flop(recipe, which, ceil=_USUAL_CEIL)


def _work(job: StoreJob) -> _Work:
    """Find out what of a store is there, here and in others."""
    if job.complete:
        return _Work(done=len(job.items), copied=0, partly=0, lacking=Counter())
    there = bytearray(len(job.items))
    for rows in finished_shards(job.folder):
        there[rows.start : rows.stop] = b"\1" * len(rows)
    scales, lacking, copied, partly = job.identity.scales, Counter[int](), 0, 0
    with Donors(job.folder, _donors(job)) as donors:
        for digest, done in zip(job.digests, there, strict=True):
            if not done:
                missing = donors.lacking(digest, scales)
                copied += not missing
                partly += 0 < len(missing) < len(scales)
                lacking.update(missing)
    return _Work(done=sum(there), copied=copied, partly=partly, lacking=lacking)


def _donors(job: StoreJob) -> tuple[tuple[str, str], ...]:
    """Return the stores that rows are copied from: those of the plan of one in the making."""
    try:
        return StorePlan.read(job.folder).donors
    except (OSError, StoreError):
        return job.donors


def _sizes(job: StoreJob) -> list[tuple[int, int]]:
    """Return the (H, W) of some images of a job, the usual one where none can be read."""
    sizes = []
    for item in job.items[:: max(1, len(job.items) // _SAMPLED)]:
        try:
            sizes.append(cropped(*read_size(item)))
        except ImageReadError:
            continue
    return sizes or [_USUAL_SIZE]


def _where(recipe: Recipe, machine: Machine, model: str) -> tuple[str, int]:
    """Return the type of the device and the threads; a precision that it has not is refused."""
    device = device_of(device_names(machine.device)[0]).partition(":")[0]
    way_of(architecture(model), recipe.precision, device)
    return device, usual_threads()


def _seconds(
    model: str, precision: str, where: tuple[str, int], flop: Mapping[int, float]
) -> dict[int, float]:
    """Estimate the seconds for one image at each scale from its operations."""
    net = architecture(model)
    return {q: row_seconds(one, 1, net, precision, where) for q, one in flop.items()}


def _start(
    recipe: Recipe,
    which: Described,
    job: StoreJob | None,
    where: tuple[str, int],
    flop: Mapping[int, float],
) -> float:
    """Estimate the seconds before the first image: libraries, weights, and a calibration.

    Args:
        recipe: Of all.
        which: The net, as far as its tap.
        job: Of the store; None while something is to be fetched.
        where: Device and threads.
        flop: Of one image at each scale.
    """
    layers = architecture(which.model).layers(recipe.last_layer(which.model))
    start = _START_SECONDS
    start += _START_SECONDS_PER_PARAMETER * sum(math.prod(layer.shape) for layer in layers)
    if job is not None and PRECISIONS[recipe.precision].calibrated and not job.calibration.exists():
        floats = _seconds(which.model, "float32", where, flop)
        start += sum(floats[q] for _, q in calibration_images(len(job.items), recipe.scales))
    return start


def _flop(
    recipe: Recipe, which: Described, sizes: Sequence[tuple[int, int]], ceil: bool
) -> dict[int, float]:
    """Return the mean over images, of the given (H, W), of what a pass takes at each scale."""
    net = architecture(which.model)
    sides = 2 if recipe.mirror else 1
    return {
        q: sum(
            2.0 * sides * net.multiply_adds(*rescaled_size(*size, q), ceil_mode=ceil, tap=which.tap)
            for size in sizes
        )
        / len(sizes)
        for q in recipe.scales
    }


def _disk_bytes(recipe: Recipe, which: Described, rows: int) -> int:
    size = architecture(which.model).descriptor_size(which.tap)
    return rows * (4 * len(recipe.scales) * (size + 1) + _BESIDES)


def _free_bytes(folder: Path) -> int:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free
