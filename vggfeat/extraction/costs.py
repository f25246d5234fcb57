"""What a recipe would cost: told before anything is computed, fetched or written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vggfeat.data.records import Dataset
from vggfeat.errors import ImageReadError
from vggfeat.extraction.budget import row_flop, row_seconds
from vggfeat.extraction.images import cropped, read_size, rescaled_size
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import survey
from vggfeat.nets.architectures import architecture
from vggfeat.nets.devices import device_of, usual_threads
from vggfeat.nets.precisions import PRECISIONS, way_of
from vggfeat.recipe import Described, Machine, Recipe, device_names
from vggfeat.store.layout import DESCRIPTORS
from vggfeat.store.reuse import Donors
from vggfeat.store.writer import finished_rows
from vggfeat.watch import Watch

_SAMPLED = 500  # images whose headers stand for all
_USUAL_SIZE = (375, 500)  # H and W of an image that is not here yet; most of VOC have it
_USUAL_CEIL = True  # pools of the authors' nets
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
        done: How many are finished, in shards of an interrupted run.
        copied: How many another store has already, at every scale.
        gflop: Of all forward passes that are left, save those that go on to a deeper tap: they are
            counted with that one's store.
        seconds: A rough guess for these.
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
    gflop: float
    seconds: float
    disk_bytes: int
    free_bytes: int
    complete: bool
    fetches: tuple[str, ...]

    @property
    def left(self) -> int:
        """How many images are still to be described."""
        return 0 if self.complete else max(0, self.rows - self.done - self.copied)


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
    dataset = supplies.dataset
    found: dict[Described, Estimate] = {}
    counted: dict[object, int] = {}  # images whose pass, to a deeper tap, is counted already
    for which in sorted(recipe.described, key=partial(_depth, recipe), reverse=True):
        shared = not PRECISIONS[recipe.precision].calibrated
        key = (which.model, which.region) if shared else which
        absent = supplies.absent([which.model])
        if isinstance(dataset, Dataset) and not absent:
            job = job_of(recipe, machine, dataset, which, watch)
            one = _planned(recipe, machine, which, job, counted.get(key, 0))
        else:
            if isinstance(dataset, Dataset):
                rows = len(dataset.of_region(which.region).items)
            else:
                rows = dataset.what.image_count
            rows = min(rows, 3 * (recipe.limit or rows))
            fetches = tuple(one.what.summary for one in absent)
            one = _unplanned(recipe, machine, which, rows, counted.get(key, 0), fetches)
        counted[key] = max(counted.get(key, 0), one.left)
        found[which] = one
    yield from (found[which] for which in recipe.described)


def _depth(recipe: Recipe, which: Described) -> float:
    return row_flop(recipe, which, ceil=_USUAL_CEIL)


def _planned(
    recipe: Recipe, machine: Machine, which: Described, job: StoreJob, counted: int
) -> Estimate:
    with Donors(job.folder, job.donors) as donors:
        copied = sum(donors.covers(digest, job.identity.scales) for digest in job.digests)
    rows = len(job.items)
    sizes = []
    for item in job.items[:: max(1, rows // _SAMPLED)]:
        try:
            sizes.append(cropped(*read_size(item)))
        except ImageReadError:
            continue
    free = Estimate(
        model=job.model,
        region=job.region,
        tap=job.tap,
        store=str(job.folder / DESCRIPTORS),
        rows=rows,
        done=finished_rows(job.folder),
        copied=copied,
        gflop=0,
        seconds=0,
        disk_bytes=_disk_bytes(recipe, which, rows),
        free_bytes=_free_bytes(job.folder),
        complete=job.complete,
        fetches=(),
    )
    passes = max(0, free.left - counted)
    flop = _flop(recipe, which, sizes or [_USUAL_SIZE], job.weights.profile.ceil_mode)
    seconds = _row_seconds(recipe, machine, job.model, job.row_flop)
    return replace(free, gflop=flop * passes / 1e9, seconds=seconds * passes)


def _unplanned(
    recipe: Recipe,
    machine: Machine,
    which: Described,
    rows: int,
    counted: int,
    fetches: tuple[str, ...],
) -> Estimate:
    passes, flop = max(0, rows - counted), row_flop(recipe, which, ceil=_USUAL_CEIL)
    return Estimate(
        model=which.model,
        region=which.region,
        tap=which.tap,
        store="",
        rows=rows,
        done=0,
        copied=0,
        gflop=_flop(recipe, which, [_USUAL_SIZE], _USUAL_CEIL) * passes / 1e9,
        seconds=_row_seconds(recipe, machine, which.model, flop) * passes,
        disk_bytes=_disk_bytes(recipe, which, rows),
        free_bytes=_free_bytes(machine.cache),
        complete=False,
        fetches=fetches,
    )


def _row_seconds(recipe: Recipe, machine: Machine, model: str, flop: float) -> float:
    """Estimate the seconds for one image of so many operations, here."""
    net, device = architecture(model), device_of(device_names(machine.device)[0]).partition(":")[0]
    way_of(net, recipe.precision, device)  # a precision that the device has not is refused here
    return row_seconds(flop, len(recipe.scales), net, (device, usual_threads()))


def _flop(recipe: Recipe, which: Described, sizes: Sequence[tuple[int, int]], ceil: bool) -> float:
    """Return the mean over images, of the given (H, W), of what all their passes take."""
    net, total = architecture(which.model), 0
    for size in sizes:
        for q in recipe.scales:
            height, width = rescaled_size(*size, q)
            total += 2 * net.multiply_adds(height, width, ceil_mode=ceil, tap=which.tap)
    return total * (2 if recipe.mirror else 1) / len(sizes)


def _disk_bytes(recipe: Recipe, which: Described, rows: int) -> int:
    size = architecture(which.model).descriptor_size(which.tap)
    return rows * (4 * len(recipe.scales) * (size + 1) + _BESIDES)


def _free_bytes(folder: Path) -> int:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free
