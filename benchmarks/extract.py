"""`vggfeat extract` as a whole against its net alone on the same batches; its memory.

    python -m benchmarks.extract --counts 500,1500,5000

The batches that reach the net during one extraction are kept; then whole extractions and the bare
net on these batches take turns. What is lost is the share of the time, from the first batch to the
finished store, in which the net did not work; reading, decoding, rescaling and writing hide behind
it or do not. The start before (imports aside: weights, digests, the first images) is told apart.
Peaks of memory are those of a process of its own for each number of images.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.common import (
    DATA,
    EngineError,
    Worker,
    median,
    seconds,
    serve,
    skip,
    tell,
    unheld,
    write,
)
from vggfeat.extraction import provide as supplies
from vggfeat.extraction.engine import memory_for
from vggfeat.extraction.workers import extract
from vggfeat.nets.forms import FORMS, Form, numerics
from vggfeat.recipe import Machine, Recipe
from vggfeat.watch import Watch

CALTECH = DATA / "caltech101" / "101_ObjectCategories"
VOC = DATA / "voc2007-mini" / "VOCdevkit" / "VOC2007"
COUNTS = (500, 1500, 5000)


def shuffled_images(source: Path, count: int, folder: Path) -> Path:
    """Fill a folder with links to images from below another, always the same ones.

    Raises:
        FileNotFoundError: If there are not so many.
    """
    found = sorted(source.rglob("*.jpg"))
    if len(found) < count:
        message = f"'{source}' has {len(found)} images, not {count}"
        raise FileNotFoundError(message)
    random.Random(0).shuffle(found)
    folder.mkdir(parents=True)
    for number, path in enumerate(found[:count]):
        (folder / f"{number:05d}.jpg").symlink_to(path)
    return folder


def extract_once(values: Mapping[str, Any], device: str) -> float:
    """Make a store in a fresh folder, and return how long it took.

    Args:
        values: Of the recipe.
        device: As on the command line.
    """
    recipe = Recipe.build(values, "the benchmark")
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine.build({"cache": Path(folder), "offline": True, "device": device})
        return seconds(lambda: extract(recipe, machine, Watch()))


def loss(values: Mapping[str, Any], device: str, repeat: int) -> dict[str, Any]:
    """Compare whole extractions with the bare net, in turn.

    Args:
        values: Of the recipe.
        device: As on the command line.
        repeat: Number of rounds.

    Returns:
        Images, and the medians of "seconds" from the first batch on, "start_seconds" before it,
        "bare_seconds" of the net alone, and "lost", a share.
    """
    with _calls() as recorded:
        extract_once(values, device)
    batches = list(recorded)
    images, precision = _images(values), str(values.get("precision", "float32"))

    @torch.inference_mode()
    def bare() -> None:
        with memory_for(batches[0][0]), numerics(precision):
            for form, args, options, _ in batches:
                form(*args, **options)

    seconds(bare)
    found: dict[str, list[float]] = {"whole": [], "start": [], "bare": []}
    for _ in range(repeat):
        begin = time.perf_counter()
        with _calls(keep=1) as first:
            whole = extract_once(values, device)
        start = first[0][3] - begin
        found["start"].append(start)
        found["whole"].append(whole - start)
        found["bare"].append(seconds(bare))
    lost = [1 - b / w for b, w in zip(found["bare"], found["whole"], strict=True)]
    return {
        "images": images,
        "batches": len(batches),
        "seconds": median(found["whole"]),
        "start_seconds": median(found["start"]),
        "bare_seconds": median(found["bare"]),
        "images_per_second": images / median(found["whole"]),
        "lost": median(lost),
        "lost_low": min(lost),
        "lost_high": max(lost),
    }


_Call = tuple[Form, tuple[Any, ...], dict[str, Any], float]


@contextmanager
def _calls(keep: int | None = None) -> Iterator[list[_Call]]:
    """Yield a list that gets the calls of every net meanwhile: net, arguments, time of the call."""
    found: list[_Call] = []

    def recording(original: Callable[..., object]) -> Callable[..., object]:
        def call(form: Form, *args: object, **options: object) -> object:
            if keep is None or len(found) < keep:
                found.append((form, args, options, time.perf_counter()))
            return original(form, *args, **options)

        return call

    with ExitStack() as patched:
        for form in FORMS:
            patch = mock.patch.object(form, "__call__", recording(form.__call__))
            patched.enter_context(patch)
        yield found


def _images(values: Mapping[str, Any]) -> int:
    recipe = Recipe.build(values, "the benchmark")
    return len(supplies.open_for(recipe, Machine.build({"offline": True})).items)


def recipe_values(
    dataset: str, model: str, scales: Sequence[int], **more: object
) -> dict[str, Any]:
    """Return the values of a recipe with random weights."""
    return {
        "dataset": dataset,
        "models": [model],
        "weights": ["random:0"],
        "scales": list(scales),
        **more,
    }


def ask_alone(question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a process of its own, made for this question only."""
    with (
        tempfile.TemporaryDirectory() as cache,
        # so that the digests of an earlier run do not help
        Worker(["-m", "benchmarks.extract", "--serve"], {"XDG_CACHE_HOME": cache}) as worker,
    ):
        return worker.ask(question)


def measure_memory(folder: Path, counts: Sequence[int], device: str) -> list[dict[str, Any]]:
    """Measure time and peak memory at several numbers of images, thin net, Q = 256."""
    rows = []
    for count in counts:
        try:
            images = shuffled_images(CALTECH, count, folder / str(count))
        except FileNotFoundError as error:
            skip(f"memory at {count} images", error)
            continue
        values = recipe_values(f"folder:{images}", "vgg16-thin", [256])
        found = ask_alone({"values": values, "device": device, "repeat": 0})
        rows.append({"images": count, "model": "vgg16-thin", "scales": [256], **found})
        tell(f"{count} images: {found['seconds']:.1f} s, {found['rss_mb']} MB")
    return rows


def measure_losses(
    jobs: Mapping[str, Mapping[str, Any]], device: str, repeat: int
) -> list[dict[str, Any]]:
    """Measure `loss` for several recipes, each in a process of its own.

    Args:
        jobs: Values of the recipes, by a title.
        device: As on the command line.
        repeat: Number of rounds.
    """
    rows = []
    for title, values in jobs.items():
        try:
            found = ask_alone({"values": values, "device": device, "repeat": repeat})
        except EngineError as error:
            skip(title, error)
            continue
        del found["rss_mb"]  # the batches that were kept are most of it
        shown = {key: values[key] for key in ("scales", "precision") if key in values}
        rows.append({"title": title, "model": values["models"][0], **shown, **found})
        tell(
            f"{title}: {found['images_per_second']:.2f} images/s, {100 * found['lost']:.1f} % lost"
        )
    return rows


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    values, device = question["values"], question["device"]
    if question["repeat"]:
        return loss(values, device, question["repeat"])
    return {"seconds": extract_once(values, device)}


def main() -> None:
    """Measure, and write results/benchmarks/extract.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), metavar="N,N,…")
    parser.add_argument("--thin-images", type=int, default=300, metavar="N")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="Of VOC, each part.")
    parser.add_argument("--scales", default="256,384", metavar="Q,Q,…", help="On VOC.")
    parser.add_argument("--model", default="vgg16", help="On VOC.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["VGGFEAT_OFFLINE"] = "1"
    if options.serve:
        serve(_answer)
        return
    jobs: dict[str, Mapping[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            thin = shuffled_images(CALTECH, options.thin_images, folder / "thin")
            jobs["Caltech-101, vgg16-thin"] = recipe_values(
                f"folder:{thin}", "vgg16-thin", [256, 384, 512]
            )
        except FileNotFoundError as error:
            skip("Caltech-101", error)
        if VOC.is_dir():
            scales = [int(q) for q in options.scales.split(",")]
            jobs[f"VOC 2007, {options.model}"] = recipe_values(
                f"voc:{VOC}", options.model, scales, limit=options.limit
            )
        else:
            skip("VOC 2007", f"no '{VOC}'")
        losses = measure_losses(jobs, options.device, options.repeat)
        memory = measure_memory(folder, [int(n) for n in options.counts.split(",")], options.device)
    write(
        "extract",
        {"device": options.device, "rows": losses, "memory": memory, "series": _series(memory)},
    )


def _series(memory: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not memory:
        return []
    common = {"x_label": "images", "x": [row["images"] for row in memory]}
    seconds_, peaks = ([row[key] for row in memory] for key in ("seconds", "rss_mb"))
    return [
        {
            "title": "vgg16-thin: time to extract",
            "y_label": "seconds",
            "y": {"vggfeat extract": seconds_},
            **common,
        },
        {
            "title": "vgg16-thin: peak memory of extract",
            "y_label": "MB",
            "y": {"vggfeat extract": peaks},
            "slope": 0,
            **common,
        },
    ]


if __name__ == "__main__":
    unheld()
    main()
