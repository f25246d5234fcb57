"""Results as large as the real ones, with scores that are drawn instead of computed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from vggfeat.data.records import Kind
from vggfeat.report.result import Result, Search, SplitOutcome, StoreUsed
from vggfeat.transfer.score import class_means, class_results, confusion, means, split_means

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_ANIMALS = ("ant", "beaver", "crocodile", "dolphin", "emu", "flamingo", "gerenuk", "hedgehog")
_GRID = tuple(2.0**k for k in range(-4, 8))


def voc2007() -> Result:
    """Return a result of VOC 2007's size: 20 classes, 4,952 test images, five scales."""
    random = np.random.default_rng(2007)
    count = 4952
    shares = np.append(random.uniform(0.02, 0.1, 19), 0.4)
    labels = np.where(random.random((count, 20)) < shares, 1, -1).astype(np.int8)
    scores = labels + random.normal(0, random.uniform(0.4, 1, 20), (count, 20))
    labels[random.random((count, 20)) < 0.01] = 0
    ids = [f"{n:06d}" for n in range(1, 2 * count, 2)]
    test = (ids, labels, scores)
    values, counted = means(labels, scores, Kind.MULTI_LABEL, "voc2007")
    sizes = {"train": 2501, "val": 2510, "test": count}
    published = {"table": 11, "row": "VGG Net-D (16)", "column": "VOC-2007 mAP", "value": 89.3}
    return _finished(
        {
            "recipe": {
                "name": "voc2007-vgg16",
                "dataset": "voc2007",
                "models": ["vgg16"],
                "weights": ["oxford"],
                "scales": [256, 384, 512, 640, 768],
                "regions": ["image"],
                "aggregate": "average",
                "measure": "voc2007",
                "grid": None,
                "paper": {**published, "deviation": None},
            },
            "kind": Kind.MULTI_LABEL.value,
            "stores": (_store("vgg16", 9963, 5),),
            "splits": (_split("voc2007", sizes, 2.0, values, counted),),
            "classes": class_results(
                VOC_CLASSES, [2.0] * 20, labels, test, Kind.MULTI_LABEL, "voc2007"
            ),
            "means": values,
        }
    )


def caltech(count: int = 102, per_class: int = 20) -> Result:
    """Return a result like Caltech-101's: three splits, one class for each image.

    Args:
        count: Classes; one is sometimes taken for the next.
        per_class: Test images of each.
    """
    random = np.random.default_rng(101)
    names = [f"{_ANIMALS[k % len(_ANIMALS)]}_{k:03d}" for k in range(count)]
    true = np.repeat(np.arange(count), per_class)
    labels = np.where(true[:, None] == np.arange(count), 1, -1).astype(np.int8)
    ids = [f"{names[k]}/image_{n % per_class:04d}.jpg" for n, k in enumerate(true)]
    runs, outcomes, confused = [], [], Counter[tuple[int, int]]()
    for number in range(3):
        scores = labels + random.normal(0, 0.45, labels.shape)
        scores[np.arange(len(true)), (true + 1) % count] += random.uniform(0, 1.8, len(true))
        scores[number] = np.nan  # an unreadable image
        values, counted = means(labels, scores, Kind.ONE_CLASS, "mean_class_recall")
        sizes = {"train": 20 * count, "val": 10 * count, "test": len(true)}
        c = 2.0**number
        outcomes.append(_split("mean_class_recall", sizes, c, values, counted))
        test = (ids, labels, scores)
        own = "mean_class_recall"
        runs.append(class_results(names, [c] * count, labels, test, Kind.ONE_CLASS, own))
        confused += confusion(labels, scores)
    averages, deviations = split_means([outcome.means for outcome in outcomes])
    published = {"table": 11, "row": "VGG Net-D (16)", "column": "Caltech-101", "value": 91.8}
    return _finished(
        {
            "recipe": {
                "name": "caltech101-vgg16",
                "dataset": "caltech101",
                "models": ["vgg16", "vgg19"],
                "weights": ["oxford"],
                "scales": [256, 384, 512],
                "aggregate": "stack",
                "measure": "mean_class_recall",
                "paper": {**published, "deviation": 1.0},
            },
            "kind": Kind.ONE_CLASS.value,
            "stores": (_store("vgg16", 9144, 3), _store("vgg19", 9144, 3)),
            "splits": tuple(outcomes),
            "classes": class_means(runs),
            "confusion": tuple((*pair, n) for pair, n in sorted(confused.items())),
            "means": averages,
            "deviations": deviations,
            "warnings": ("1 images are unreadable (vgg16).",),
        }
    )


def _finished(values: dict[str, Any]) -> Result:
    measure = values["recipe"]["measure"]
    common = {
        "name": values["recipe"]["name"],
        "recipe_fingerprint": "e" * 64,
        "ignored": 1,
        "descriptor_size": 4096,
        "confusion": (),
        "classifiers": {f"{values['recipe']['name']}.safetensors": "c" * 64},
        "deviations": {},
        **_trust(values["means"]),
        "resamples": 1000,
        "measure": measure,
        "score": values["means"][measure],
        "warnings": (),
        "seconds": {"read descriptors": 2.5, "choose C": 61.25, "fit": 8.0, "score": 0.5},
        "versions": {"vggfeat": "0.1", "python": "3.12.1", "torch": "2.10.0"},
    }
    return Result.model_validate(common | values)


def _trust(values: dict[str, float | None]) -> dict[str, Any]:
    """Return intervals and chance that look real: ± 1 point, 2 %."""
    known = {name: value for name, value in values.items() if value is not None}
    return {
        "intervals": {name: (max(v - 0.01, 0), min(v + 0.01, 1)) for name, v in known.items()},
        "chance": dict.fromkeys(known, 0.02),
    }


def _store(model: str, images: int, scales: int) -> StoreUsed:
    return StoreUsed(
        model=model,
        region="image",
        weights=f"{model}.caffemodel",
        weights_family="oxford",
        weights_sha256="a1" * 32,
        weights_rounded_to_bits=None,
        path=f"features/sample-{model}-12345678/descriptors.h5",
        fingerprint="b2" * 32,
        row_fingerprint="c3" * 32,
        recipe={"net": model, "tap": "fc7", "mirror": True, "interpolation": "bilinear"},
        images=images,
        manifest_sha256="d4" * 32,
        bytes=images * scales * 4096 * 4,
        mean_norms=tuple(40.5 + k for k in range(scales)),
        unreadable=1,
        zero=0,
        cropped=2,
    )


def _split(
    measure: str,
    sizes: dict[str, int],
    c: float,
    values: dict[str, float | None],
    counted: dict[str, int],
) -> SplitOutcome:
    best = values[measure] or 0
    fall = np.abs(np.log2(_GRID) - np.log2(c))
    return SplitOutcome(
        sizes=sizes,
        search=Search(
            measure=measure,
            grid=_GRID,
            means=tuple(best - 0.01 * distance for distance in fall.tolist()),
            grown=False,
            at_edge=False,
            fits=260,
            not_converged=0,
            solver="dual",
            gap=5e-4,
        ),
        c=(c,),
        means=values,
        counted=counted,
        **_trust(values),
    )
