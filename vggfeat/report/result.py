"""The result of one experiment, as in `results/<name>.json`; every report is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vggfeat.errors import VggfeatError
from vggfeat.publish import make_folder, publish_bytes


class ResultError(VggfeatError, ValueError):
    """A result file is absent, damaged or in the way."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreUsed(_Record):
    """The store of one net.

    Attributes:
        model: The net.
        region: What of each image it describes: the whole image, or a box.
        weights: "random:0", or the weight file's name.
        weights_family: "oxford", "torchvision", "random", or "own" for any other.
        weights_sha256: Its identity.
        path: Of the HDF5 file.
        fingerprint: Of recipe, scales and images.
        row_fingerprint: Of the recipe alone.
        recipe: What decided each row.
        images: Rows that the experiment uses.
        bytes: Of the HDF5 file.
        mean_norms: S means of the descriptors' norms, one for each of the recipe's scales.
        unreadable: How many of them could not be read.
        zero: How many have a descriptor of norm 0.
        cropped: How many were cropped to an aspect of 4:1.
    """

    model: str
    region: str
    weights: str
    weights_family: str
    weights_sha256: str
    path: str
    fingerprint: str
    row_fingerprint: str
    recipe: dict[str, Any]
    images: int
    bytes: int
    mean_norms: tuple[float | None, ...]
    unreadable: int
    zero: int
    cropped: int

    @property
    def substitute(self) -> str | None:
        """What stands in the place of the authors' weights, in words; None for theirs."""
        if self.weights_family == "oxford":
            return None
        kinds = {"random": "random weights", "torchvision": "torchvision's weights"}
        kind = kinds.get(self.weights_family, "weights that are not known")
        return f"{kind} ({self.weights})"


class Search(_Record):
    """How C was chosen; see `vggfeat.classify.svm.CSearch`.

    Attributes:
        measure: The measure on the validation images.
        grid: Values of C, ascending.
        means: The mean over classes for each; None where nothing could be measured.
        grown: Whether the default grid had to grow.
        at_edge: Whether a chosen C still lies at its edge.
        fits: Number of SVMs fitted, the final ones included.
        not_converged: How many of them did not converge.
        solver: "dual" or "LinearSVC".
        gap: The largest relative duality gap of any of them; None for LinearSVC.
    """

    measure: str
    grid: tuple[float, ...]
    means: tuple[float | None, ...]
    grown: bool
    at_edge: bool
    fits: int
    not_converged: int
    solver: str
    gap: float | None


class Example(_Record):
    """One test image of a class's ranking.

    Attributes:
        id: The image.
        score: Its decision score.
        label: +1, −1 or 0 = difficult.
    """

    id: str
    score: float
    label: int


class ClassResult(_Record):
    """What came out for one class; None where there is no such number.

    Attributes:
        name: The class.
        c: The chosen C.
        train: Positives in train and val.
        test: Positives in test.
        values: Of each measure that was taken, by its name in `MEASURES`, [0, 1].
        note: Why there is no number.
        curve: (recall, precision) points of the test ranking, ascending in recall, thinned.
        best: Best-scored test images.
        worst: Worst-scored test images among its positives, the worst first.
        false_positives: Best-scored test images that do not show it.
    """

    name: str
    c: float
    train: int
    test: int
    values: dict[str, float | None]
    note: str | None
    curve: tuple[tuple[float, float], ...]
    best: tuple[Example, ...]
    worst: tuple[Example, ...]
    false_positives: tuple[Example, ...]


class SplitOutcome(_Record):
    """What one split of the data set gave.

    Attributes:
        sizes: Images in train, val and test.
        search: How C was chosen.
        c: The values chosen, each once.
        means: Of each measure, by its name.
        counted: Over how many classes each mean runs.
    """

    sizes: dict[str, int]
    search: Search
    c: tuple[float, ...]
    means: dict[str, float | None]
    counted: dict[str, int]


class Result(_Record):
    """One experiment.

    Attributes:
        name: Stem of the file.
        recipe: The complete recipe.
        recipe_fingerprint: Of the recipe and the weights.
        kind: "multi-label" or "one class".
        ignored: Files that were found and are not images.
        stores: One for each net.
        descriptor_size: Of what the SVM sees.
        splits: One or more.
        classes: One for each class; of several splits the means of the values, and C, the
            numbers of positives, the curve and the examples of the first.
        confusion: (true class, predicted class, images), counted from 0 in the order of `classes`,
            of all splits together, where each image has one class; a predicted class of −1 is an
            image without a score.
        classifiers: Name → SHA-256 of the files beside this one, one for each split.
        means: Of each measure, over the splits.
        deviations: Of each measure, the sample standard deviation (n − 1) over the splits; empty
            for one split.
        measure: The experiment's own measure.
        score: Its value, [0, 1].
        warnings: What a reader must know: substitutes, classes without a number, lost images.
        seconds: Time of each step.
        versions: Of Python and the packages.
    """

    format_version: int = 4
    name: str
    recipe: dict[str, Any]
    recipe_fingerprint: str
    kind: str
    ignored: int
    stores: tuple[StoreUsed, ...]
    descriptor_size: int
    splits: tuple[SplitOutcome, ...] = Field(min_length=1)
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, int, int], ...]
    classifiers: dict[str, str] = {}
    means: dict[str, float | None]
    deviations: dict[str, float]
    measure: str
    score: float | None
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    versions: dict[str, str]

    def write(self, folder: Path) -> Path:
        """Write `<folder>/<name>.json`.

        Raises:
            ResultError: If another experiment's result stands there.
            PublishError: If it cannot be written.
        """
        make_folder(folder)
        path = folder / f"{self.name}.json"
        check_free(path, self.recipe_fingerprint)
        publish_bytes(path, self.model_dump_json(indent=1).encode() + b"\n")
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result.

        Raises:
            ResultError: If it is absent or damaged.
        """
        try:
            return cls.model_validate(upgraded(json.loads(path.read_bytes())))
        except FileNotFoundError:
            raise ResultError(f"No result '{path}'.", remedy="`vggfeat svm` writes one.") from None
        except (OSError, ValueError) as error:
            raise ResultError(f"'{path}' is no result of vggfeat: {error}.") from error


def upgraded(document: Any) -> Any:  # noqa: ANN401  (JSON from a file may be anything)
    """Return a result's JSON in the present format; what is no result is left as it is.

    Format 3 had one field for each measure of a class, and called its recall "recall".
    """
    if not isinstance(document, dict) or document.get("format_version") != 3:
        return document
    names = {"voc2007": "voc2007", "voc2010": "voc2010"}
    if document.get("kind") == "one class":
        names["mean_class_recall"] = "recall"
    classes = document.get("classes")
    if not isinstance(classes, list) or not all(isinstance(one, dict) for one in classes):
        return document
    old = {"voc2007", "voc2010", "recall"}
    return document | {
        "format_version": 4,
        "classes": [
            {key: value for key, value in one.items() if key not in old}
            | {"values": {name: one[field] for name, field in names.items() if field in one}}
            for one in classes
        ],
    }


def check_free(path: Path, recipe_fingerprint: str) -> None:
    """Check that no result of another experiment stands at `path`.

    Raises:
        ResultError: If one does.
    """
    try:
        other = json.loads(path.read_bytes()).get("recipe_fingerprint")
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(
            f"'{path}' is in the way: {error}.", remedy="Pass another --name."
        ) from error
    if other != recipe_fingerprint:
        raise ResultError(
            f"'{path}' is the result of another recipe.",
            "A result is never overwritten by another recipe's.",
            "Pass another --name, or remove the file.",
        )
