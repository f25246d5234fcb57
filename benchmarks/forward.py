"""The dense forward pass of every engine against what a user would write, in one run.

    python -m benchmarks.forward --model vgg16 --scales 256,768 --repeat 3

Each engine has a process of its own; they take turns. One unit of work is one image and its mirror,
375×500 pixels rescaled to each Q. All describe the same images with the same random weights (with
torchvision's preprocessing, since timm knows no other), and are compared with the naive form in
float64 (or as --reference says).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ceiling import ceiling
from benchmarks.common import (
    Worker,
    distance,
    in_turn,
    median,
    ratios,
    seconds,
    serve,
    tell,
    unheld,
    write,
)
from vggfeat.extraction.allocator import memory_kept
from vggfeat.extraction.images import rescaled_size
from vggfeat.nets.architectures import ARCHITECTURES, architecture
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.forms import form_of, numerics
from vggfeat.nets.int8 import calibrate
from vggfeat.nets.profile import WeightProfile
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import find_weights

WEIGHTS = "random:0", "torchvision"
MODELS = [n for n, net in sorted(ARCHITECTURES.items()) if not (net.batch_norm or net.lrn)]
IMAGE = 375, 500  # height and width, pixels; the usual size in VOC
SCALES = (256, 384, 512, 640, 768)
BASELINE = "naive"
ALL = "all"  # in the place of a scale: the sum over all
_REFERENCES = {"float64": "reference", "float32": BASELINE}
_TOGETHER = 1 << 20  # pixels of one forward pass, as `vggfeat extract` plans it
_MOST_PIXELS = 2 << 20  # of a batch whose size is searched for, mirrors not counted

Describe = Callable[[Tensor], Tensor]
"""(b, H, W, 3) uint8 images of one size → (b, D) on the CPU, flip-averaged, un-normalised."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One way to compute descriptors.

    Attributes:
        precision: Whose ceiling it is measured against.
        build: From the name of a model and of a device to what describes images.
        batches: Numbers of images in one call; the fastest is taken at each scale.
        devices: Where it is worth measuring.
    """

    precision: str
    build: Callable[[str, str], Describe]
    batches: tuple[int, ...] = (1,)
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class _Plain:
    """What everybody has: convolutions up to fc7 in their order, and the preprocessing."""

    convolutions: Sequence[nn.Conv2d]
    profile: WeightProfile

    def pixels(self, image: Tensor, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Turn (b, H, W, 3) uint8 into (b, 3, H, W), channels first."""
        assert self.profile.unit_range
        x = (image.to(device).permute(0, 3, 1, 2).to(dtype) / 255).contiguous()
        mean, std = (
            torch.tensor(values, device=device, dtype=dtype).view(3, 1, 1)
            for values in (self.profile.mean, self.profile.std)
        )
        return (x - mean) / std


def naive(model: str, device: str, dtype: torch.dtype = torch.float32) -> Describe:
    """Torchvision's layers, channels first, one call for the image and one for its mirror."""
    plain = _plain(model)
    rest = iter(plain.convolutions)
    layers: list[nn.Module] = []
    for block in architecture(model).blocks:
        for _ in block:
            layers += [next(rest), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2, ceil_mode=plain.profile.ceil_mode))
    for convolution in rest:
        layers += [convolution, nn.ReLU(inplace=True)]
    net = nn.Sequential(*layers).to(device, dtype)
    return _one_by_one(lambda image: plain.pixels(image, device, dtype), net)


def timm_one(model: str, device: str) -> Describe:
    """Timm's dense VGG in a plain loop."""
    plain, net = _timm(model, device)
    return _one_by_one(lambda image: plain.pixels(image, device), net)


def timm_batched(model: str, device: str) -> Describe:
    """Timm's dense VGG, images and mirrors in one batch."""
    plain, net = _timm(model, device)

    @torch.no_grad()
    def describe(images: Tensor) -> Tensor:
        x = plain.pixels(images, device)
        return flip_averaged(net(torch.cat([x, x.flip(3)])).mean(dim=(2, 3)))

    return describe


def ours(precision: str) -> Callable[[str, str], Describe]:
    """Return what builds the form of the net that `vggfeat extract` would use."""

    def build(model: str, device: str) -> Describe:
        weights = find_weights(architecture(model), *WEIGHTS)
        net = DenseVgg(architecture(model), weights.load(), weights.profile).to(device)
        calibration = None
        if precision == "int8":
            calibration = calibrate(net, [image_batch(q, 1) for q in SCALES])
        form = form_of(
            net,
            precision,
            calibration=calibration,
            threads=torch.get_num_threads(),
            batch_pixels=_TOGETHER,
        )

        def describe(images: Tensor) -> Tensor:
            size = images.shape[1], images.shape[2]
            with numerics(precision):
                [described] = form(list(images), size, mirror=True)
                return described.double().cpu()

        return kept(describe) if isinstance(form, CanvasVgg) else describe

    return build


def kept(describe: Describe) -> Describe:
    """Describe with the allocator's settings of `extract`, which stay for the process."""
    memory_kept().__enter__()
    return describe


MANY = (2, 4)
ONE_OR_MANY = (1, 4)

# A new engine is one more line here.
ENGINES = {
    BASELINE: Engine(precision="float32", build=naive),
    "timm batch 1": Engine(precision="float32", build=timm_one),
    "timm best batch": Engine(precision="float32", build=timm_batched, batches=MANY),
    "vggfeat float32": Engine(precision="float32", build=ours("float32"), batches=ONE_OR_MANY),
    "vggfeat tf32": Engine(precision="tf32", build=ours("tf32"), devices=("cuda",)),
    "vggfeat bfloat16": Engine(precision="bfloat16", build=ours("bfloat16"), batches=ONE_OR_MANY),
    "vggfeat float16": Engine(precision="float16", build=ours("float16"), devices=("cuda",)),
    "vggfeat int8": Engine(precision="int8", build=ours("int8"), devices=("cpu",)),
}
_REFERENCE = Engine(precision="float64", build=lambda m, d: naive(m, d, torch.float64))


def image_batch(q: int, count: int) -> Tensor:
    """Return (count, H, W, 3) uint8 images with a shorter side of `q`; the first is always one."""
    shape = (count, *rescaled_size(*IMAGE, q), 3)
    pixels = np.random.default_rng(q).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels)


def gflop(model: str, q: int) -> float:
    """Return the GFLOP of one unit of work: an image and its mirror."""
    height, width = rescaled_size(*IMAGE, q)
    net = architecture(model)
    return 4 * net.multiply_adds(height, width, ceil_mode=False) / 1e9


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is measured.

    Attributes:
        model: A name of `MODELS`.
        scales: Shorter sides, pixels.
        engines: Names of `ENGINES`; the baseline is always among them.
        repeat: Rounds at each scale.
        device: "cpu" or "cuda".
        reference: What errors are measured against: the naive form in "float64" or "float32".
        batches: Numbers of images in one call, in the place of each engine's own.
    """

    model: str
    scales: Sequence[int]
    engines: Sequence[str]
    repeat: int
    device: str = "cpu"
    reference: str = "float64"
    batches: Sequence[int] = ()


def measure(run: Run) -> dict[str, Any]:
    """Measure engines in turn, each in a process of its own.

    Returns:
        "rows", one for each scale and engine and for all scales together, and "series" to plot.
    """
    model, device, scales = run.model, run.device, run.scales
    names = [name for name in ENGINES if name == BASELINE or name in run.engines]
    names = [name for name in names if device in ENGINES[name].devices]
    wanted = [*names, *{_REFERENCES[run.reference]} - set(names)]
    ceilings = {p: ceiling(device, p) for p in sorted({ENGINES[n].precision for n in names})}
    rows: list[dict[str, Any]] = []
    times: _Times = {}
    with ExitStack() as opened:
        command = ["-m", "benchmarks.forward", "--model", model, "--device", device, "--serve"]
        workers = {n: opened.enter_context(Worker([*command, n])) for n in wanted}
        true = workers.pop("reference", None)
        for q in scales:
            question = {"q": q, "batches": list(run.batches)}
            answers = in_turn(workers, question, run.repeat)
            tell(
                f"Q = {q}: " + ", ".join(f"{n} {a[0]['seconds']:.3f} s" for n, a in answers.items())
            )
            times[q] = {n: [a["seconds"] for a in found] for n, found in answers.items()}
            expected = (true or workers[BASELINE]).ask({"q": q, "descriptor": True})["descriptor"]
            for name, found in answers.items():
                described = workers[name].ask({"q": q, "descriptor": True})["descriptor"]
                rows.append(
                    {
                        "scale": q,
                        "engine": name,
                        "batch": found[0]["batch"],
                        "rss_mb": max(a["rss_mb"] for a in found),
                        **distance(torch.tensor([described]), torch.tensor([expected])),
                    }
                )
    rows += _sums(rows, times)
    work = {str(q): gflop(model, q) for q in scales} | {ALL: sum(gflop(model, q) for q in scales)}
    for row in rows:
        _complete(row, times, work[str(row["scale"])], ceilings)
    return {
        "model": model,
        "device": device,
        "image": "×".join(map(str, IMAGE)),
        "repeat": run.repeat,
        "scales": list(scales),
        "reference": run.reference,
        "ceilings_gflops": ceilings,
        "rows": rows,
        "series": [_series(model, scales, rows)],
    }


_Times = dict[int, dict[str, list[float]]]


def _sums(rows: Sequence[Mapping[str, Any]], times: _Times) -> list[dict[str, Any]]:
    """Return a row for all scales of every engine that could do all of them; add to `times`."""
    whole = [n for n in times[min(times)] if all(n in found for found in times.values())]
    own = {name: [row for row in rows if row["engine"] == name] for name in whole}
    # rounds of the same number stand together
    times[0] = {
        name: [sum(turn) for turn in zip(*(times[q][name] for q in times), strict=True)]
        for name in whole
    }
    return [
        {
            "scale": ALL,
            "engine": name,
            "batch": None,
            **{key: max(row[key] for row in of) for key in ("rss_mb", "error", "one_minus_cos")},
        }
        for name, of in own.items()
    ]


def _complete(
    row: dict[str, Any], times: _Times, work: float, ceilings: Mapping[str, float | None]
) -> None:
    found = times[0 if row["scale"] == ALL else row["scale"]]
    name = row["engine"]
    row["precision"] = ENGINES[name].precision
    row["rounds_seconds"] = found[name]  # so that a drift within the run can be seen
    row["seconds"] = median(found[name])
    row["gflops"] = work / row["seconds"]
    best = ceilings[row["precision"]]
    row["share_of_ceiling"] = row["gflops"] / best if best else None
    row["ratio"] = ratios(found, BASELINE)[name]


def _series(model: str, scales: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sizes = {q: rescaled_size(*IMAGE, q) for q in scales}
    of = {(row["engine"], row["scale"]): row["seconds"] for row in rows}
    names = [row["engine"] for row in rows if row["scale"] == ALL]
    return {
        "title": f"{model}: time for one image and its mirror",
        "x_label": "pixels",
        "y_label": "seconds",
        "x": [sizes[q][0] * sizes[q][1] for q in scales],
        "y": {name: [of[name, q] for q in scales] for name in names},
    }


def flip_averaged(described: Tensor) -> Tensor:
    """Return the mean of the first half of the rows and the second, float64, on the CPU."""
    half = described.double().cpu()
    count = len(half) // 2
    return (half[:count] + half[count:]) / 2


def _one_by_one(pixels: Callable[[Tensor], Tensor], net: nn.Module) -> Describe:
    @torch.no_grad()
    def describe(images: Tensor) -> Tensor:
        rows = []
        for k in range(len(images)):
            x = pixels(images[k : k + 1])
            sides = [net(x).mean(dim=(2, 3)), net(x.flip(3)).mean(dim=(2, 3))]
            rows.append(flip_averaged(torch.cat(sides)))
        return torch.cat(rows)

    return describe


def _plain(model: str) -> _Plain:
    net = architecture(model)
    weights = find_weights(net, *WEIGHTS)
    tensors = weights.load()
    convolutions = []
    for layer in net.layers():
        if layer.name == "fc8":
            continue
        out, channels, kernel, _ = layer.shape
        padding = kernel // 2 if layer.name.startswith("conv") else 0
        with torch.device("meta"):
            convolution = nn.Conv2d(channels, out, kernel, padding=padding)
        convolution.weight = nn.Parameter(tensors[f"{layer.name}.weight"])
        convolution.bias = nn.Parameter(tensors[f"{layer.name}.bias"])
        convolutions.append(convolution)
    return _Plain(convolutions, weights.profile)


def _timm(model: str, device: str) -> tuple[_Plain, nn.Module]:
    """Return timm's layers up to fc7, with our weights."""
    import timm

    plain = _plain(model)
    theirs: Any = timm.create_model(model, pretrained=False).eval()
    layers = [m for m in theirs.modules() if isinstance(m, nn.Conv2d)]
    for layer, own in zip(layers, plain.convolutions, strict=True):
        layer.load_state_dict(own.state_dict())
    return plain, nn.Sequential(theirs.features, theirs.pre_logits).to(device)


def _serve(model: str, device: str, name: str) -> None:
    """Answer questions as one engine: how long, or what descriptor, at a scale."""
    engine = _REFERENCE if name == "reference" else ENGINES[name]
    describe: Describe | None = None
    best: dict[tuple[int, ...], int] = {}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal describe
        if describe is None:  # here, so that a failure is told
            describe = engine.build(model, device)
        call, q = describe, question["q"]
        if question.get("descriptor"):
            return {"descriptor": call(image_batch(q, 1))[0].tolist()}
        batches = tuple(question["batches"] or engine.batches)
        if (q, *batches) not in best:
            best[q, *batches] = _best_batch(call, q, batches)
        batch = best[q, *batches]
        images = image_batch(q, batch)
        return {"seconds": seconds(lambda: call(images)) / batch, "batch": batch}

    serve(answer)


def _best_batch(describe: Describe, q: int, batches: Sequence[int]) -> int:
    """Return the number of images for which one takes least time, within bounds of memory."""
    height, width = rescaled_size(*IMAGE, q)
    batches = [b for b in batches if b * height * width <= _MOST_PIXELS] or [min(batches)]
    if len(batches) == 1:
        return batches[0]
    times = {}
    for batch in batches:
        images = image_batch(q, batch)
        describe(images)
        times[batch] = seconds(lambda images=images: describe(images)) / batch  # type: ignore[misc]
    return min(times, key=times.__getitem__)


def main() -> None:
    """Measure, and write results/benchmarks/forward.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16", choices=MODELS)
    parser.add_argument("--scales", default=",".join(map(str, SCALES)), metavar="Q,Q,…")
    parser.add_argument("--engines", default=",".join(ENGINES), metavar="NAME,NAME,…")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--reference", choices=sorted(_REFERENCES), default="float64")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.model, options.device, options.serve)
        return
    names = options.engines.split(",")
    if unknown := set(names) - set(ENGINES):
        sys.exit(f"Unknown engines {sorted(unknown)}. Valid: {', '.join(ENGINES)}.")
    run = Run(
        model=options.model,
        scales=[int(q) for q in options.scales.split(",")],
        engines=names,
        repeat=options.repeat,
        device=options.device,
        reference=options.reference,
    )
    write("forward", measure(run))


if __name__ == "__main__":
    unheld()
    main()
