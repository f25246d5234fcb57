"""What a recipe would cost: told before anything is computed, fetched or written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from vggfeat.nets.precisions import way_of
from vggfeat.recipe import Machine, Recipe, device_names
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
        store: Where it would stand; "" while what is to be fetched decides that.
        rows: Images in the store; at most so many while they are to be fetched.
        done: How many are finished, in shards of an interrupted run.
        copied: How many another store has already, at every scale.
        gflop: Of all forward passes that are left.
        seconds: A rough guess for these.
        disk_bytes: Of the complete store; while it is assembled twice as much.
        free_bytes: On that disk.
        complete: Whether nothing is left to do.
        fetches: What would be downloaded first: name, size, licence, citation.
    """

    model: str
    region: str
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
    for model, region in recipe.described:
        absent = supplies.absent([model])
        if isinstance(dataset, Dataset) and not absent:
            job = job_of(recipe, machine, dataset, (model, region), watch)
            yield _planned(recipe, machine, job)
            continue
        if isinstance(dataset, Dataset):
            rows = len(dataset.of_region(region).items)
        else:
            rows = dataset.what.image_count
        rows = min(rows, 3 * (recipe.limit or rows))
        fetches = tuple(one.what.summary for one in absent)
        yield _unplanned(recipe, machine, (model, region), rows, fetches)


def _planned(recipe: Recipe, machine: Machine, job: StoreJob) -> Estimate:
    with Donors(job.folder, job.donors) as donors:
        copied = sum(donors.covers(digest, job.identity.scales) for digest in job.digests)
    rows, done = len(job.items), finished_rows(job.folder)
    left = 0 if job.complete else max(0, rows - done - copied)
    sizes = []
    for item in job.items[:: max(1, rows // _SAMPLED)]:
        try:
            sizes.append(cropped(*read_size(item)))
        except ImageReadError:
            continue
    flop = _flop(recipe, job.model, sizes or [_USUAL_SIZE], job.weights.profile.ceil_mode)
    return Estimate(
        model=job.model,
        region=job.region,
        store=str(job.folder / DESCRIPTORS),
        rows=rows,
        done=done,
        copied=copied,
        gflop=flop * left / 1e9,
        seconds=_row_seconds(recipe, machine, job.model, job.row_flop) * left,
        disk_bytes=_disk_bytes(recipe, job.model, rows),
        free_bytes=_free_bytes(job.folder),
        complete=job.complete,
        fetches=(),
    )


def _unplanned(
    recipe: Recipe,
    machine: Machine,
    described: tuple[str, str],
    rows: int,
    fetches: tuple[str, ...],
) -> Estimate:
    model, region = described
    flop = row_flop(recipe, model, ceil=_USUAL_CEIL)
    return Estimate(
        model=model,
        region=region,
        store="",
        rows=rows,
        done=0,
        copied=0,
        gflop=_flop(recipe, model, [_USUAL_SIZE], _USUAL_CEIL) * rows / 1e9,
        seconds=_row_seconds(recipe, machine, model, flop) * rows,
        disk_bytes=_disk_bytes(recipe, model, rows),
        free_bytes=_free_bytes(machine.cache),
        complete=False,
        fetches=fetches,
    )


def _row_seconds(recipe: Recipe, machine: Machine, model: str, flop: float) -> float:
    """Estimate the seconds for one image of so many operations, here."""
    net, device = architecture(model), device_of(device_names(machine.device)[0]).partition(":")[0]
    way_of(net, recipe.precision, device)  # a precision that the device has not is refused here
    return row_seconds(flop, len(recipe.scales), net, (device, usual_threads()))


def _flop(recipe: Recipe, model: str, sizes: Sequence[tuple[int, int]], ceil: bool) -> float:
    """Return the mean over images, of the given (H, W), of what all their passes take."""
    net, total = architecture(model), 0
    for size in sizes:
        for q in recipe.scales:
            height, width = rescaled_size(*size, q)
            total += 2 * net.multiply_adds(height, width, ceil_mode=ceil, tap=recipe.tap)
    return total * (2 if recipe.mirror else 1) / len(sizes)


def _disk_bytes(recipe: Recipe, model: str, rows: int) -> int:
    size = architecture(model).descriptor_size(recipe.tap)
    return rows * (4 * len(recipe.scales) * (size + 1) + _BESIDES)


def _free_bytes(folder: Path) -> int:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free
