"""Everything there is to measure on a machine with a GPU, in one command.

    python -m benchmarks.gpu --folder ~/photos

First float32 on the GPU is compared with the CPU, for both ways that pools round; if they disagree,
nothing is timed. Then come the ceilings, the forward pass in every precision at every Q and batch,
`vggfeat extract` from JPEG files to the finished store in every precision, where the time goes, and
the search for C.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import ceiling, forward, svm
from benchmarks.common import DATA, cores, distance, median, seconds, skip, tell, unheld, write
from benchmarks.drift import precisions
from benchmarks.extract import measure_losses, recipe_values, shuffled_images
from vggfeat.classify import dual
from vggfeat.classify.admm import Admm
from vggfeat.classify.measures import Doubles, Floats
from vggfeat.classify.svm import DEFAULT_GRID
from vggfeat.demo.images import make_voc
from vggfeat.nets.architectures import architecture
from vggfeat.nets.forms import form_of, numerics
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import find_weights

BOUND = 1e-5  # relative, float32: the exactness that the package promises between devices
_EXACT_SIZES = ((256, 341), (375, 500), (511, 383))  # odd maps, where the two ways to pool differ
_EXACT_CANVAS = 512, 512
_REPLAYED = 4
BATCHES = (1, 2, 4, 8, 16, 32)
_MOST_PIXELS = 6 << 20  # of a batch, roughly: every engine's process holds its own on the GPU
_PROFILED = 512, 8  # Q and number of images
_SVM_SIZE = 5011, 4096  # images and dimensions: VOC 2007's train and val, one net
_GROUPS = {  # of kernels, by what their names hold; the first that fits
    "copies to and from the GPU": ("memcpy", "memset"),
    "pools": ("pool",),
    "convolutions and products": (
        *("conv", "gemm", "cutlass", "xmma", "winograd", "wgrad", "fprop", "nvjet", "cudnn"),
    ),
    "reductions": ("reduce",),
    "rescaling": ("upsample", "interpolate"),
    "element by element": ("elementwise", "clamp", "copy"),
}


def exactness(model: str, device: str) -> list[dict[str, Any]]:
    """Compare float32 on a device with the plain net in float64 on the CPU, un-normalised.

    Images of several sizes share a canvas there, and come four times, so that CUDA graphs are
    captured and replayed; here each image and each side is alone.

    Args:
        model: A name of `forward.MODELS`.
        device: "cuda".
    """
    architecture_, rows = architecture(model), []
    dice = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=dice)
        for size in _EXACT_SIZES
    ]
    for name, own in PROFILES.items():
        tensors = find_weights(architecture_, "random:0", name).load()
        plain = DenseVgg(architecture_, dict(tensors), own).double()
        with torch.inference_mode():
            sides = [plain(torch.stack([image, image.flip(1)])) for image in images]
        net = DenseVgg(architecture_, tensors, own).to(device)
        form = form_of(net, "float32", threads=cores(), batch_pixels=_MOST_PIXELS)
        with numerics("float32"):
            for _ in range(_REPLAYED):
                [found] = form(images, _EXACT_CANVAS, mirror=True)
        apart = distance(found.cpu(), torch.stack([side.mean(dim=0) for side in sides]))
        rows.append({"profile": name, "ceil_mode": own.ceil_mode, **apart})
    return rows


def forward_rows(
    model: str, scales: Sequence[int], repeat: int, device: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `forward.measure` for every number of images in one call."""
    for batch in BATCHES:
        fitting = [q for q in scales if batch * q * q <= _MOST_PIXELS]
        if not fitting:
            continue
        run = forward.Run(
            model=model,
            scales=fitting,
            engines=list(forward.ENGINES),
            repeat=repeat,
            device=device,
            reference="float32",
            batches=[batch],
        )
        # a sum over scales would run over others for each batch
        yield from (row for row in forward.measure(run)["rows"] if row["scale"] != forward.ALL)


def end_to_end(
    model: str, folder: Path, device: str, repeat: int, best: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Measure `vggfeat extract` on a folder of JPEG files, five scales, in every precision.

    Args:
        model: A net.
        folder: JPEG files below it.
        device: As on the command line.
        repeat: Number of rounds.
        best: GFLOP/s of the device by precision.

    Returns:
        As `extract.measure_losses`, with GFLOP/s and their share of the ceiling; both take every
        image for one of 375×500 pixels.
    """
    jobs = {
        precision: recipe_values(f"folder:{folder}", model, forward.SCALES, precision=precision)
        for precision in precisions()
    }
    rows = measure_losses(jobs, device, repeat)
    work = sum(forward.gflop(model, q) for q in forward.SCALES)
    for row in rows:
        row["gflops"] = work * row["images_per_second"]
        peak = best.get(row["precision"])
        row["share_of_ceiling"] = row["gflops"] / peak if peak else None
    return rows


def svm_rows(device: str, repeat: int, images: int, size: int) -> list[dict[str, Any]]:
    """Time the search for C, the Gram matrix included, here and on a device in turn.

    Args:
        device: "cuda".
        repeat: Number of rounds.
        images: Of the generated problem, 20 classes.
        size: Its dimensions.

    Returns:
        For each loss the medians of seconds, their ratio, the largest gap on the device, and the
        SVMs that it left to the CPU; these are not in its seconds.
    """
    x, y = svm.problem(images, size, 20)
    rows = []
    for loss in svm.LOSSES:
        here, there = partial(_search_here, x, y, loss), partial(_gaps, x, y, loss, device)
        times: dict[str, list[float]] = {"here": [], "there": []}
        for _ in range(repeat):
            times["here"].append(seconds(here))
            times["there"].append(seconds(there))
        gaps = there()
        medians = {name: median(values) for name, values in times.items()}
        rows.append(
            {
                "loss": loss,
                "fits": gaps.size,
                "cpu_seconds": medians["here"],
                "device_seconds": medians["there"],
                "ratio": medians["here"] / medians["there"],
                "gap": float(gaps.max()),
                "left": int((gaps > svm.GAP).sum()),
            }
        )
    return rows


def _search_here(x: Floats, y: Doubles, loss: dual.Loss) -> None:
    svm.search(x, y, loss, threads=cores())


def _gaps(x: Floats, y: Doubles, loss: dual.Loss, device: str) -> Doubles:
    """Search for C on a device; return the gap of every SVM."""
    solver, last, gaps = Admm(x, device), None, []
    for c in DEFAULT_GRID:
        last = solver.solve((y, np.full(y.shape[1], c), loss), svm.GAP, last)
        gaps.append(last.gap)
    return np.concatenate(gaps)


def profile_table(model: str, engine: str, device: str) -> list[dict[str, Any]]:
    """Return where the time of one call goes, by groups of kernels, the longest first.

    Args:
        model: A name of `forward.MODELS`.
        engine: A name of `forward.ENGINES`.
        device: "cuda", or "cpu", where operators stand for kernels.
    """
    q, batch = _PROFILED
    describe, images = forward.ENGINES[engine].build(model, device), forward.image_batch(q, batch)
    describe(images)
    activities = [ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        describe(images)
    groups: dict[str, dict[str, float]] = {}
    for event in found.key_averages():
        micro = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        group = groups.setdefault(_group(event.key), {"milliseconds": 0.0, "calls": 0})
        group["milliseconds"] += micro / 1e3
        group["calls"] += event.count
    whole = sum(group["milliseconds"] for group in groups.values())
    rows = [
        {"engine": engine, "group": name, "share": group["milliseconds"] / whole, **group}
        for name, group in groups.items()
        if group["milliseconds"] > 0
    ]
    return sorted(rows, key=lambda row: -float(row["milliseconds"]))


def _group(kernel: str) -> str:
    low = kernel.lower()
    return next((name for name, parts in _GROUPS.items() if any(p in low for p in parts)), "other")


def _jpegs(given: Path | None, count: int, folder: Path) -> Path:
    """Return a folder of JPEG files: the user's, real ones from the shared data, or drawn ones."""
    places = [given] if given else [DATA]
    for place in places:
        found = len(list(place.rglob("*.jpg")))
        if found:
            return shuffled_images(place, min(count, found), folder / "photos")
    skip("real photos", f"none below {', '.join(map(str, places))}; the demo's are taken")
    make_voc(folder / "drawn")
    drawn = folder / "drawn"
    return shuffled_images(drawn, min(count, len(list(drawn.rglob("*.jpg")))), folder / "photos")


def main() -> None:
    """Measure, and write results/benchmarks/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16", choices=forward.MODELS)
    parser.add_argument("--scales", default=",".join(map(str, forward.SCALES)), metavar="Q,Q,…")
    parser.add_argument("--folder", type=Path, help="JPEG files, at best in the size of VOC's.")
    parser.add_argument("--images", type=int, default=2000, help="Of them at most.")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU: nothing to measure here. `make benchmarks` measures the CPU.")
    os.environ["VGGFEAT_OFFLINE"] = "1"
    exact = exactness(options.model, "cuda")
    worst = max(row["error"] for row in exact)
    tell(f"float32 on the GPU differs from the CPU by {worst:.1e}")
    if not worst <= BOUND:  # NaN too
        sys.exit(f"That is more than {BOUND:.0e}: not the same descriptors, so nothing is timed.")
    found = ceiling.measure("cuda", (cores(),), repeat=5)
    scales = [int(q) for q in options.scales.split(",")]
    rows = list(forward_rows(options.model, scales, options.repeat, "cuda"))
    with tempfile.TemporaryDirectory() as place:
        photos = _jpegs(options.folder, options.images, Path(place))
        whole = end_to_end(options.model, photos, "cuda", options.repeat, found["best"])
    own = {n: e for n, e in forward.ENGINES.items() if n.startswith("vggfeat")}
    engines = [name for name, engine in own.items() if "cuda" in engine.devices]
    tables = [profile_table(options.model, name, "cuda") for name in engines]
    figures = {
        "model": options.model,
        "image": "×".join(map(str, forward.IMAGE)),
        "exactness": exact,
        "ceilings_gflops": found["best"],
        "bandwidth_gb_s": max(row["bandwidth_gb_s"] for row in found["rows"]),
        "rows": rows,
        "end_to_end": whole,
        "svm": svm_rows("cuda", options.repeat, *_SVM_SIZE),
        "profile": list(itertools.chain.from_iterable(tables)),
    }
    write("gpu", figures)


if __name__ == "__main__":
    unheld()
    main()
