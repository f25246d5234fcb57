"""In which portions a net works here, and how long it takes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vggfeat.extraction.job import Budget, StoreJob
from vggfeat.nets.architectures import Architecture, architecture
from vggfeat.nets.devices import device_of
from vggfeat.nets.precisions import way_of
from vggfeat.recipe import Described, Machine, Recipe, device_names
from vggfeat.store.layout import StorePlan
from vggfeat.store.writer import shard_rows

if TYPE_CHECKING:
    import torch

# Measured on 2 cores of a Zen 4: VGG-16 at Q = 256 to 768 with 340 GFLOP/s (counted as by a direct
# convolution), in int8 with 800, thin nets with 70. Only shard sizes and estimates hang on these.
_FLOPS_PER_THREAD = 170e9
_FLOPS_PER_THREAD_INT8 = 400e9
_FLOPS_PER_THREAD_THIN = 35e9
_FLOPS_PER_GPU = 40e12
_SECONDS_PER_SCALE = 0.004
_WINDOW_PIXELS = 1 << 23  # 25 MB of uint8, decoded together; three windows are alive at once
_BATCH_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}  # six pairs of 256×341 go together on a CPU
_FEWEST_PIXELS = 1 << 16  # a batch never has less: one side of 256×256
_BESIDES = 1_000_000_000  # bytes: interpreter, libraries, decoded images, work space of the layers
_SHARE_OF_MEMORY = 0.5


def budget_of(job: StoreJob, machine: Machine) -> Budget:
    """Decide in which portions a net describes the images of a store.

    Args:
        job: Of the store.
        machine: Where.
    """
    net, recipe, scales = architecture(job.model), job.identity.recipe, len(job.identity.scales)
    execution = execution_of(recipe["precision"], machine, net)
    where = execution["device"], execution["threads"]
    seconds = row_seconds(job.row_flop, scales, net, recipe["precision"], where)
    row_bytes = 4 * net.descriptor_size(job.tap) * scales
    rows = shard_rows(seconds, row_bytes)
    return Budget(execution=execution, row_seconds=seconds, shard_rows=rows)


def execution_of(precision: str, machine: Machine, net: Architecture) -> dict[str, Any]:
    """Decide in which portions, and with how many threads, a net works here."""
    import torch

    device = torch.device(device_of(device_names(machine.device)[0]))
    canvas = way_of(net, precision, device.type).canvas
    padded = canvas is not None
    # Of a pixel, while the largest map and the one before it are there. torch keeps a third.
    pixel_bytes = 4 * net.blocks[0][0].width * (3 if padded else 1.25) + 15
    batch = _BATCH_PIXELS[device.type]
    spare = _memory(machine, device, padded=padded) - _BESIDES - 4 * net.parameters
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "window_pixels": _WINDOW_PIXELS,
        "batch_pixels": max(_FEWEST_PIXELS, min(batch, int(spare / pixel_bytes))),
        "canvas": canvas,
        "processor": platform.machine(),
    }


def execution_on(plan: StorePlan, machine: Machine) -> dict[str, Any]:
    """Return how a net works here on a store in the making: what its plan has fixed, stays."""
    own = execution_of(plan.recipe["precision"], machine, architecture(plan.recipe["net"]))
    # of float32 on the CPU the plans of earlier versions fix more than decides a row
    return own if own["canvas"] is None else {**own, **plan.execution}


def deciding(execution: Mapping[str, Any]) -> dict[str, Any]:
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


def row_flop(recipe: Recipe, described: Described, *, ceil: bool) -> float:
    """Estimate the operations that one image of 4:3 takes, at all scales.

    Args:
        recipe: Says at which scales.
        described: The net, and the tap where it ends.
        ceil: Whether its pools round odd sizes up.
    """
    net = architecture(described.model)
    macs = sum(
        net.multiply_adds(q, q * 4 // 3, ceil_mode=ceil, tap=described.tap) for q in recipe.scales
    )
    return 2.0 * macs * (2 if recipe.mirror else 1)


def row_seconds(
    flop: float, scales: int, net: Architecture, precision: str, where: tuple[str, int]
) -> float:
    """Estimate the seconds for one image.

    Args:
        flop: As from `row_flop`.
        scales: How many.
        net: Which net.
        precision: A name of `PRECISIONS`.
        where: Device, "cpu" or "cuda", and threads.
    """
    device, threads = where
    each = _FLOPS_PER_THREAD_INT8 if precision == "int8" else _FLOPS_PER_THREAD
    cpu = (_FLOPS_PER_THREAD_THIN if net.fc < 4096 else each) * threads
    return flop / (_FLOPS_PER_GPU if device == "cuda" else cpu) + _SECONDS_PER_SCALE * scales


def workers(machine: Machine) -> int:
    """Return the number of decoding threads and fitting processes."""
    return machine.workers or len(os.sched_getaffinity(0))
