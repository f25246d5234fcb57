"""What each precision does to the descriptors and to the score, against float32.

    python -m benchmarks.drift --limit 20 --model vgg16-thin

Every precision that a recipe may ask for and that the device can do makes its own store of the
demo's data, of VOC 2007 and of Caltech-101 (of the latter two as many images as --limit says, where
they are), and the whole evaluation runs on it. The nets have random weights unless --weights says
otherwise: they show how exact the arithmetic is, not how good the descriptors are.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.common import DATA, skip, tell, write
from benchmarks.extract import VOC
from vggfeat.demo.images import make_voc
from vggfeat.demo.run import demo_recipe
from vggfeat.errors import VggfeatError
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.run import evaluate
from vggfeat.watch import Watch

REFERENCE = "float32"
_READ_AT_ONCE = 512  # rows of a store

Doubles = npt.NDArray[np.float64]


def precisions() -> tuple[str, ...]:
    """Return what a recipe may ask for, the reference first."""
    known = get_args(Recipe.model_fields["precision"].annotation)
    return (REFERENCE, *(p for p in known if p != REFERENCE))


def row_drift(
    values: tuple[Doubles, Doubles], reference: tuple[Doubles, Doubles]
) -> tuple[Doubles, Doubles]:
    """Return how far rows of one store are from another's.

    Args:
        values: (n, S, D) unit descriptors and their (n, S) norms.
        reference: The same images.

    Returns:
        (n, S) each: 1 − cos, and ‖a − b‖ / ‖b‖ of the un-normalised descriptors.
    """
    (a, a_norm), (b, b_norm) = values, reference
    apart = ((a - b) ** 2).sum(axis=2) / 2
    whole = np.linalg.norm(a * a_norm[..., None] - b * b_norm[..., None], axis=2)
    return apart, whole / b_norm


def store_drift(store: Path, reference: Path) -> dict[str, float]:
    """Return median and maximum of `row_drift` over all images and scales of two stores."""
    cosines, errors = [], []
    with DescriptorStore.open(store) as ours, DescriptorStore.open(reference) as theirs:
        for start in range(0, len(ours.ids), _READ_AT_ONCE):
            ids = ours.ids[start : start + _READ_AT_ONCE]
            rows = [opened.read(ids) for opened in (ours, theirs)]
            a, b = ((r.descriptors.astype(np.float64), r.norms.astype(np.float64)) for r in rows)
            cosine, error = row_drift(a, b)
            known = np.isfinite(error)  # neither unreadable nor zero
            cosines.append(cosine[known])
            errors.append(error[known])
    cosine, error = np.concatenate(cosines), np.concatenate(errors)
    return {
        "one_minus_cos_median": float(np.median(cosine)),
        "one_minus_cos_max": float(cosine.max()),
        "error_median": float(np.median(error)),
        "error_max": float(error.max()),
    }


def measure(jobs: Mapping[str, Mapping[str, Any]], machine: Machine) -> list[dict[str, Any]]:
    """Run every job in every precision.

    Args:
        jobs: Values of the recipes, without precision, by a title.
        machine: Whose device counts.

    Returns:
        One row for each job and precision that the device can do; scores in percent, their change
        in points.
    """
    rows = []
    for title, values in jobs.items():
        reference: tuple[Path, float] | None = None
        for precision in precisions():
            try:
                recipe = Recipe.build({**values, "precision": precision}, "the benchmark")
                [store] = extract(recipe, machine, Watch())
                result = evaluate(recipe, machine, Watch()).result
            except VggfeatError as error:
                skip(f"{title} in {precision}", error)
                if precision == REFERENCE:
                    break  # nothing to compare with
                continue
            score = 100 * (result.score or 0.0)
            reference = reference or (store, score)
            rows.append(
                {
                    "data": title,
                    "model": recipe.models[0],
                    "weights": result.stores[0].weights,
                    "scales": list(recipe.scales),
                    "images": result.stores[0].images,
                    "measure": recipe.measure,
                    "precision": precision,
                    "score": score,
                    "score_change": score - reference[1],
                    **store_drift(store, reference[0]),
                }
            )
            tell(f"{title}, {precision}: {score:.2f} ({score - reference[1]:+.2f})")
    return rows


def jobs(
    folder: Path, model: str, weights: str, limit: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield title and recipe of what there is data for.

    Args:
        folder: Gets the demo's data.
        model: A net.
        weights: Its weights.
        limit: Images of each part.
    """
    make_voc(folder / "data")
    net = {"models": [model], "weights": [weights]}
    demo = demo_recipe(folder)
    yield "the demo", {"dataset": demo.dataset, "scales": list(demo.scales), **net}
    if VOC.is_dir():
        scales = [256, 384, 512]
        yield "VOC 2007", {"dataset": f"voc:{VOC}", "scales": scales, "limit": limit, **net}
    else:
        skip("VOC 2007", f"no '{VOC}'")
    if (DATA / "caltech101").is_dir():
        yield "Caltech-101", {"dataset": "caltech101", "scales": [256], "limit": 5 * limit, **net}
    else:
        skip("Caltech-101", f"no '{DATA / 'caltech101'}'")


def main() -> None:
    """Measure, and write results/benchmarks/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16-thin", choices=sorted(ARCHITECTURES))
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--limit", type=int, default=40, help="Of VOC; five times it of Caltech.")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        values = {"cache": Path(place) / "features", "data_root": DATA, "offline": True}
        machine = Machine.build({**values, "device": options.device})
        todo = dict(jobs(Path(place), options.model, options.weights, options.limit))
        rows = measure(todo, machine)
    write("drift", {"device": options.device, "rows": rows})


if __name__ == "__main__":
    main()
