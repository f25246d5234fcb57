"""The whole main job on a small generated data set, beside chance and beside colour alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggfeat.classify.measures import Scores, mean_average_precision
from vggfeat.data import open_dataset
from vggfeat.data.records import Item, Labels
from vggfeat.demo.images import make_voc
from vggfeat.extraction.images import decode, read_bytes
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.transfer.fit import fit_and_score
from vggfeat.transfer.run import evaluate, write, write_report
from vggfeat.transfer.samples import Sample
from vggfeat.transfer.score import Evaluation
from vggfeat.watch import Watch

_PERMUTATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the demo has shown; mAP is VOC 2007's, in [0, 1].

    Attributes:
        evaluation: Of the descriptors.
        result_path: The JSON.
        page: The HTML.
        chance_mean: Mean mAP of permuted test scores.
        chance_99: Its 99th percentile.
        colour: mAP of an SVM on the mean and spread of each image's colours.
        seconds: Of everything.
    """

    evaluation: Evaluation
    result_path: Path
    page: Path
    chance_mean: float
    chance_99: float
    colour: float
    seconds: float

    @property
    def score(self) -> float:
        """The mAP of the descriptors."""
        return self.evaluation.result.score or 0.0

    def comparison(self) -> str:
        """Return the mAP beside what it must beat, as text."""
        rows = [
            ("descriptors + SVM", self.score),
            ("mean colour + SVM", self.colour),
            ("chance, 99th percentile", self.chance_99),
            (f"chance, mean of {_PERMUTATIONS} permutations", self.chance_mean),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:{width}}  {100 * value:6.2f} % mAP" for name, value in rows]
        return "\n".join(["", *lines, "", f"page: {self.page}", f"{self.seconds:.1f} s in all"])


def demo_recipe(folder: Path) -> Recipe:
    """Return the demo's recipe, for data below `folder`."""
    values = {
        "name": "demo",
        "dataset": f"voc:{folder / 'data'}",
        "models": ["vgg16-thin"],
        "weights": ["random:0"],
        "scales": [256, 384, 512],
        "measure": "voc2007",
    }
    return Recipe.build(values, "the demo")


def run(folder: Path, watch: Watch, workers: int | None = None) -> Outcome:
    """Generate the data, extract, train, evaluate, report, and compare.

    Args:
        folder: Gets `data`, `features` and `results`.
        watch: Told of the progress.
        workers: Threads that decode.
    """
    begin = time.monotonic()
    make_voc(folder / "data")
    recipe = demo_recipe(folder)
    machine = Machine(cache=folder / "features", results=folder / "results", workers=workers)
    extract(recipe, machine, watch)
    evaluation = evaluate(recipe, machine, watch)
    result_path = write(evaluation, machine)
    page = write_report(result_path, machine)
    [only] = evaluation.runs
    labels = only.samples["test"].labels
    mean, ninety_ninth = chance(only.fitted.scores, labels)
    return Outcome(
        evaluation=evaluation,
        result_path=result_path,
        page=page,
        chance_mean=mean,
        chance_99=ninety_ninth,
        colour=colour_baseline(only.samples, recipe, machine, watch),
        seconds=time.monotonic() - begin,
    )


def chance(scores: Scores, labels: Labels, seed: int = 0) -> tuple[float, float]:
    """Return mean and 99th percentile of the mAP when the images' scores are permuted.

    Args:
        scores: (m, K) of the test images; an image keeps its K scores together.
        labels: (m, K).
        seed: Of the permutations.
    """
    random = np.random.default_rng(seed)
    values = [
        mean_average_precision(random.permutation(scores), labels, measure="voc2007")[0]
        for _ in range(_PERMUTATIONS)
    ]
    return float(np.mean(values)), float(np.percentile(values, 99))


def colour_baseline(
    of_parts: Mapping[str, Sample], recipe: Recipe, machine: Machine, watch: Watch
) -> float:
    """Return the mAP of the same SVMs on six numbers per image: mean and spread of R, G and B.

    Args:
        of_parts: The images of train, val and test, and their labels.
        recipe: Of the demo.
        machine: Of the demo.
        watch: Told of the progress.
    """
    dataset = open_dataset(recipe.dataset, machine.data_root)
    items = {item.id: item for item in dataset.items}
    samples = {
        part: Sample(ids=s.ids, x=_colours([items[i] for i in s.ids]), labels=s.labels)
        for part, s in of_parts.items()
    }
    scores = fit_and_score(samples, dataset.classes, recipe, machine, watch, {}).scores
    labels = samples["test"].labels
    return mean_average_precision(scores, labels, measure="voc2007")[0]


def _colours(items: Sequence[Item]) -> npt.NDArray[np.float32]:
    rows = []
    for item in items:
        pixels = np.asarray(decode(item, read_bytes(item))).reshape(-1, 3) / 255
        rows.append(np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]))
    return np.array(rows, dtype=np.float32)
