"""From a recipe and what is on disk to a decision: which store, and what it lacks."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat import __version__
from vggfeat.data.names import slug
from vggfeat.data.split import Dataset, Item, manifest_digest
from vggfeat.digests import sha256_of_each
from vggfeat.errors import StoreError, StoreNotFoundError
from vggfeat.nets.architectures import Architecture, architecture
from vggfeat.nets.weights import Weights, find_weights, pooled
from vggfeat.progress import Watch
from vggfeat.recipe import Machine, Precision, Recipe, Region, device_names, fingerprint
from vggfeat.row_recipe import RowRecipe
from vggfeat.store.donors import possible_donors, siblings
from vggfeat.store.layout import DESCRIPTORS, RECORD, StorePlan
from vggfeat.store.shards import shard_rows
from vggfeat.store.store import DescriptorStore

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

# Measured on 2 cores of a Zen 4: VGG-16 at Q = 256 to 768 with 340 GFLOP/s (counted as by a direct
# convolution), thin nets with 70. Only shard sizes and estimates hang on these.
_FLOPS_PER_THREAD = 170e9
_FLOPS_PER_THREAD_THIN = 35e9
_FLOPS_PER_GPU = 40e12
_SECONDS_PER_SCALE = 0.004

_WINDOW_PIXELS = 1 << 23  # 25 MB of uint8, decoded together; three windows are alive at once
_BATCH_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}  # six pairs of 256×341 go together on a CPU
_FEWEST_PIXELS = 1 << 16  # a batch never has less: one side of 256×256
_CANVAS = {"cpu": 32, "cuda": 64}  # pixels; 32 is pool5's stride
_BESIDES = 1_000_000_000  # bytes: interpreter, libraries, decoded images, work space of the layers
_SHARE_OF_MEMORY = 0.5

CALIBRATION = "calibration.safetensors"
_CALIBRATION_IMAGES = 32

_NEAR_MATCHES = 2  # told of, those with the fewest differences

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "h5py")


@dataclass(frozen=True, kw_only=True)
class StoreJob:
    """One store that is to be there: what identifies it, and how to make it.

    Attributes:
        model: The net.
        region: What of each image is described.
        folder: Of the store.
        plan: Of the store.
        items: Its n images, sorted by id.
        digests: SHA-256 of each one's file.
        weights: Of the net, found and not yet read.
        calibration: File of an 8-bit net's calibration; made where it is not there.
        row_seconds: A rough estimate for one image.
    """

    model: str
    region: Region
    folder: Path
    plan: StorePlan
    items: Sequence[Item]
    digests: Sequence[str]
    weights: Weights
    calibration: Path
    row_seconds: float

    @property
    def complete(self) -> bool:
        """Whether it is there."""
        return (self.folder / RECORD).exists()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells a store from every other.

    Attributes:
        row: Of each row.
        scales: S shorter sides, pixels.
        manifest_sha256: Over (id, bytes, box) of every item.
    """

    row: RowRecipe
    scales: tuple[int, ...]
    manifest_sha256: str

    @property
    def row_fingerprint(self) -> str:
        """Of each row."""
        return fingerprint(self.row.as_json())

    @property
    def fingerprint(self) -> str:
        """Of the store."""
        rest = {"scales": self.scales, "manifest_sha256": self.manifest_sha256}
        return fingerprint({"row_fingerprint": self.row_fingerprint, **rest})


@dataclass(frozen=True, kw_only=True)
class Budget:
    """In which portions a store is made.

    Attributes:
        execution: As from `execution_of`.
        row_seconds: A rough estimate for one image.
        shard_rows: Images in a shard.
    """

    execution: dict[str, Any]
    row_seconds: float
    shard_rows: int


def plan_store(
    recipe: Recipe,
    machine: Machine,
    dataset: Dataset,
    described: tuple[str, Region],
    watch: Watch,
    calibrated: Path | None = None,
) -> StoreJob:
    """Decide which store serves a recipe, and how it would be made.

    Args:
        recipe: What is wanted.
        machine: Where.
        dataset: Opened, and limited as the recipe says.
        described: Which of the recipe's nets, and what of each image it describes.
        watch: Told of the hashing.
        calibrated: Folder of the store whose calibration an 8-bit net takes; None for one on the
            images themselves.

    Raises:
        WeightsError: If the weights are absent or unknown.
    """
    model, region = described
    net, source = architecture(model), recipe.weights_of(model)
    weights = pooled(find_weights(net, source, recipe.profile), recipe.pooling)
    items = dataset.of_region(region).items
    digests = _hashed(items, machine, watch)
    identity = Identity(
        row=RowRecipe.of(recipe, described, weights, _calibration(recipe, digests, calibrated)),
        scales=recipe.q,
        manifest_sha256=manifest_digest(items, digests),
    )
    folder = machine.cache / f"{slug(recipe.dataset)}-{model}-{identity.fingerprint[:8]}"
    budget = budget_of(recipe, machine, model, weights)
    return StoreJob(
        model=model,
        region=region,
        folder=folder,
        plan=_plan(identity, budget, items, weights, folder),
        items=items,
        digests=digests,
        weights=weights,
        calibration=(calibrated or folder) / CALIBRATION,
        row_seconds=budget.row_seconds,
    )


def _plan(
    identity: Identity, budget: Budget, items: Sequence[Item], weights: Weights, folder: Path
) -> StorePlan:
    row = identity.row
    donors = possible_donors(folder, identity.row_fingerprint) if row.region == "image" else ()
    return StorePlan(
        fingerprint=identity.fingerprint,
        row_fingerprint=identity.row_fingerprint,
        recipe=row.as_json(),
        scales=identity.scales,
        manifest_sha256=identity.manifest_sha256,
        rows=len(items),
        descriptor_size=architecture(row.net).descriptor_size(row.tap),
        id_bytes=max(len(item.id.encode()) for item in items),
        shard_rows=budget.shard_rows,
        execution=_deciding(budget.execution),
        donors=donors,
        created_by={**versions(), "weights": weights.origin, "weights_family": weights.family},
    )


def budget_of(recipe: Recipe, machine: Machine, model: str, weights: Weights) -> Budget:
    """Decide in which portions a net describes the images of a store.

    Args:
        recipe: What is wanted.
        machine: Where.
        model: The net.
        weights: Its own, whose pools decide the size of its maps.
    """
    net = architecture(model)
    execution = execution_of(recipe.precision, machine, net)
    seconds = row_seconds(recipe, model, weights.profile.ceil_mode, execution)
    row_bytes = 4 * net.descriptor_size(recipe.tap) * len(recipe.q)
    return Budget(
        execution=execution, row_seconds=seconds, shard_rows=shard_rows(seconds, row_bytes)
    )


def _hashed(items: Sequence[Item], machine: Machine, watch: Watch) -> list[str]:
    digests = []
    with watch.step("hash images", len(items), "images") as advance:
        sources = (item.source for item in items)
        for digest in sha256_of_each(sources, fresh=machine.verify_images):
            digests.append(digest)
            advance(1)
    return digests


def calibration_images(count: int, scales: Sequence[int]) -> list[tuple[int, int]]:
    """Choose what an 8-bit net is calibrated on: rows spread over all, scales in turn.

    Args:
        count: Of all images.
        scales: S shorter sides, pixels.

    Returns:
        (row, Q) of each.
    """
    rows = range(0, count, -(-count // min(count, _CALIBRATION_IMAGES)))
    return [(row, scales[number % len(scales)]) for number, row in enumerate(rows)]


def _calibration(recipe: Recipe, digests: Sequence[str], calibrated: Path | None) -> str | None:
    """Return the identity of an 8-bit net, beside that of its float weights; None of any other."""
    if recipe.precision != "int8":
        return None
    if calibrated is not None:
        return RowRecipe.read(StorePlan.read(calibrated).recipe, calibrated).calibration
    from vggfeat.nets import int8

    chosen = calibration_images(len(digests), recipe.q)
    images = [[digests[row], q] for row, q in chosen]
    return fingerprint({"runtime": int8.runtime(), "scheme": int8.SCHEME, "images": images})


def tell_near_matches(job: StoreJob) -> None:
    """Log in what the nearest stores of the same data set and net differ."""
    name = job.folder.name.rpartition("-")[0]
    near = [
        (job.plan.differences(plan), folder)
        for folder, plan in siblings(job.folder).items()
        if folder.name.rpartition("-")[0] == name
    ]
    for differences, folder in sorted(near, key=lambda found: len(found[0]))[:_NEAR_MATCHES]:
        _log.info("'%s' is another store: %s", folder, "; ".join(differences))


def find_store(job: StoreJob, recipe: Recipe) -> Path:
    """Return a complete store that serves a recipe: its own, or one with more images or scales.

    Raises:
        StoreNotFoundError: If there is none, with the command that makes it.
    """
    if job.complete:
        return job.folder / DESCRIPTORS
    ids = {item.id: digest for item, digest in zip(job.items, job.digests, strict=True)}
    for folder, plan in siblings(job.folder).items():
        if plan.row_fingerprint != job.plan.row_fingerprint or not (folder / RECORD).exists():
            continue
        if not set(job.plan.scales) <= set(plan.scales):
            continue
        try:
            with DescriptorStore.open(folder) as store:
                digests = [digest.tobytes().hex() for digest in store.image_digests()]
                held = dict(zip(store.ids, digests, strict=True))
        except StoreError as error:
            _log.warning("not considered: %s", error)
            continue
        if all(held.get(i) == digest for i, digest in ids.items()):
            return folder / DESCRIPTORS
    partial = job.folder.is_dir()
    raise StoreNotFoundError(
        f"The store of {recipe.dataset!r} with {job.model!r} is "
        f"{'not complete' if partial else 'not there'}: '{job.folder}'.",
        remedy=f"{'Resume' if partial else 'Make'} it with `vggfeat extract` and the same options.",
    )


def versions() -> dict[str, str]:
    """Return the versions that a number may hang on."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"vggfeat": __version__, "python": platform.python_version(), **packages}


def execution_of(precision: Precision, machine: Machine, net: Architecture) -> dict[str, Any]:
    """Decide in which portions, and with how many threads, a net works here."""
    import torch

    from vggfeat.extract.engine import check_precision, pads, torch_device

    device = torch_device(device_names(machine.device)[0])
    check_precision(precision, device)
    padded = pads(net, device, precision)
    # Of a pixel, while the largest map and the one before it are there. torch keeps a third.
    pixel_bytes = 4 * net.blocks[0][0].width * (3 if padded else 1.25) + 15
    batch = _BATCH_PIXELS[device.type]
    spare = _memory(machine, device, padded=padded) - _BESIDES - 4 * net.parameters
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "window_pixels": _WINDOW_PIXELS,
        "batch_pixels": max(_FEWEST_PIXELS, min(batch, int(spare / pixel_bytes))),
        "canvas": (1 if precision == "int8" else _CANVAS[device.type]) if padded else None,
        "processor": platform.machine(),
    }


def execution_on(plan: StorePlan, machine: Machine) -> dict[str, Any]:
    """Return how a net works here on a store in the making: what its plan has fixed, stays."""
    own = execution_of(plan.recipe["precision"], machine, architecture(plan.recipe["net"]))
    # of float32 on the CPU the plans of earlier versions fix more than decides a row
    return own if own["canvas"] is None else {**own, **plan.execution}


def _deciding(execution: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an execution decides the last bits of a row."""
    if execution["canvas"] is not None:
        return dict(execution)
    return {name: execution[name] for name in ("device", "processor")}


def _memory(machine: Machine, device: torch.device, *, padded: bool) -> float:
    """Return how many bytes may be used.

    By default what is free counts only where the size of a batch changes no bit of a row.
    """
    if machine.memory_bytes is not None:
        return machine.memory_bytes
    if device.type == "cuda":
        import torch

        there: int = torch.cuda.mem_get_info(device)[1]
    else:
        pages = os.sysconf("SC_PHYS_PAGES" if padded else "SC_AVPHYS_PAGES")
        there = pages * os.sysconf("SC_PAGE_SIZE")
    return _SHARE_OF_MEMORY * there


def row_seconds(recipe: Recipe, model: str, ceil: bool, execution: dict[str, Any]) -> float:
    """Estimate the seconds for one image of 4:3.

    Args:
        recipe: Says at which scales.
        model: The net.
        ceil: Whether its pools round odd sizes up.
        execution: As from `execution_of`.
    """
    macs = sum(
        architecture(model).multiply_adds(q, q * 4 // 3, ceil_mode=ceil, tap=recipe.tap)
        for q in recipe.q
    )
    passes = 2 if recipe.mirror else 1
    thin = architecture(model).fc < 4096
    cpu = (_FLOPS_PER_THREAD_THIN if thin else _FLOPS_PER_THREAD) * execution["threads"]
    rate = _FLOPS_PER_GPU if execution["device"] == "cuda" else cpu
    return 2 * macs * passes / rate + _SECONDS_PER_SCALE * len(recipe.q)


def workers(machine: Machine) -> int:
    """Return the number of decoding threads and fitting processes."""
    return machine.workers or len(os.sched_getaffinity(0))
