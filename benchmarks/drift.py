"""What each precision does to the descriptors and to the score, against float32.

    python -m benchmarks.drift pipelines/real/caltech101-vgg19-8bit-256.toml --cache features

Each recipe is run in every precision that the device can do, with a store of its own, and its
scores are compared with those of float32 on the same test images: the interval of a change is that
of the paired bootstrap, both scores over the same resamples. Stores in --cache are used and kept.
Without a recipe it is the demo's, whose drawn images and random net show how exact the arithmetic
is, and nothing about real photos; its figures are told and not kept.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import skip, tell, unheld, write
from vggfeat.classify.confidence import interval, resampled, resamples
from vggfeat.classify.measures import measure_of
from vggfeat.demo.images import make_voc
from vggfeat.demo.run import demo_recipe
from vggfeat.errors import VggfeatError
from vggfeat.extraction.workers import extract
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.run import evaluate
from vggfeat.transfer.score import Evaluation
from vggfeat.watch import Watch

REFERENCE = "float32"
_READ_AT_ONCE = 512  # rows of a store

Doubles = npt.NDArray[np.float64]


def precisions() -> tuple[str, ...]:
    """Return what a recipe may ask for, the reference first."""
    return (REFERENCE, *(name for name in PRECISIONS if name != REFERENCE))


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


def store_drift(stores: Sequence[Path], references: Sequence[Path]) -> dict[str, float]:
    """Return median and maximum of `row_drift` over all images and scales of stores.

    Args:
        stores: In one precision.
        references: The same ones in another.
    """
    cosines, errors = [], []
    for store, reference in zip(stores, references, strict=True):
        for cosine, error in _drifts(store, reference):
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


def change(found: Evaluation, reference: Evaluation) -> dict[str, Any]:
    """Return by how many points a score differs, and the interval of that by the paired bootstrap.

    Args:
        found: In one precision.
        reference: The same recipe in another.
    """
    measure, seed = measure_of(found.result.measure), found.result.recipe.seed
    apart = []
    for split, runs in enumerate(zip(found.runs, reference.runs, strict=True)):
        counts = resamples(len(runs[0].samples["test"].ids), seed, split)
        ours, theirs = (
            resampled(measure, run.fitted.scores, run.samples["test"].labels, counts)[0]
            for run in runs
        )
        apart.append(100 * (ours - theirs))
    score, beside = found.result.score or 0.0, reference.result.score or 0.0
    return {"score_change": 100 * (score - beside), "score_change_interval": interval(apart)}


def measure(recipes: Sequence[Recipe], machine: Machine) -> list[dict[str, Any]]:
    """Run every recipe in every precision.

    Args:
        recipes: Their own precision does not count.
        machine: Whose device counts.

    Returns:
        One row for each recipe and precision that the device can do; scores in percent, their
        change in points.
    """
    rows = []
    for recipe in recipes:
        reference: tuple[list[Path], Evaluation] | None = None
        for precision in precisions():
            title = recipe.name or recipe.dataset
            try:
                own = Recipe.build({**recipe.model_dump(), "precision": precision}, title)
                stores = extract(own, machine, Watch())
                found = evaluate(own, machine, Watch())
            except VggfeatError as error:
                skip(f"{title} in {precision}", error)
                if precision == REFERENCE:
                    break  # nothing to compare with
                continue
            reference = reference or (stores, found)
            rows.append(
                {
                    **_described(title, found),
                    "precision": precision,
                    **change(found, reference[1]),
                    **store_drift(stores, reference[0]),
                }
            )
            tell(f"{title}, {precision}: {rows[-1]['score']:.2f}")
    return rows


def main() -> None:
    """Measure, and write results/benchmarks/drift.json if recipes were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE.toml")
    parser.add_argument("--limit", type=int, help="Images of each part.")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"))
    parser.add_argument("--cache", type=Path, help="Where stores are kept; by default nowhere.")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if options.cache is None:
            os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        machine = Machine.build(
            {
                "cache": options.cache or Path(place) / "features",
                "data_root": options.data_root,
                "device": options.device,
                "offline": True,
            }
        )
        limit = {} if options.limit is None else {"limit": options.limit}
        recipes = [Recipe.from_toml(path, limit) for path in options.recipes]
        if not recipes:
            make_voc(Path(place) / "data")
            values = {**demo_recipe(Path(place)).model_dump(), "name": "demo", **limit}
            recipes = [Recipe.build(values, "the benchmark")]
        rows = measure(recipes, machine)
    if options.recipes and rows:
        write("drift", {"device": options.device, "rows": rows})


def _described(title: str, found: Evaluation) -> dict[str, Any]:
    result = found.result
    used = result.stores[0]
    rounded = used.weights_rounded_to_bits
    return {
        "data": title,
        "model": ", ".join(result.recipe.models),
        "weights": used.weights,
        "weights_rounded_to_bits": rounded,
        "tap": result.recipe.tap,
        "scales": list(result.recipe.scales),
        "images": used.images,
        "test_images": sum(len(run.samples["test"].ids) for run in found.runs),
        "measure": result.measure,
        "score": 100 * (result.score or 0.0),
    }


def _drifts(store: Path, reference: Path) -> Iterator[tuple[Doubles, Doubles]]:
    with DescriptorStore.open(store) as ours, DescriptorStore.open(reference) as theirs:
        for start in range(0, len(ours.ids), _READ_AT_ONCE):
            ids = ours.ids[start : start + _READ_AT_ONCE]
            rows = [opened.read(ids) for opened in (ours, theirs)]
            a, b = ((r.descriptors.astype(np.float64), r.norms.astype(np.float64)) for r in rows)
            yield row_drift(a, b)


if __name__ == "__main__":
    unheld()
    main()
