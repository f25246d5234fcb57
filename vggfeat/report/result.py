"""The result of one experiment, as in `results/<name>.json`; every report is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from vggfeat.errors import RecipeError, VggfeatError, nearest
from vggfeat.files.publish import make_folder, publish_bytes
from vggfeat.recipe import FILE_NAME, Recipe, published_path
from vggfeat.report.fields import Count, FileName, Interval, Penalty, Plain, Share, checked_recipe

FORMAT_VERSION: Final = 6
AGAIN = "Restore it from a copy, or remove it and run `vggfeat svm` again."

_UPGRADED = (3, 4, 5)  # the formats before that are still read

_DATE = r"^\d{4}-\d\d-\d\dT\d\d:\d\dZ$"
_UPWARDS = r"^(\.|\.\.(/\.\.)*)$"
_DIGITS = 8  # of a digest, to be shown
_LONGEST_SHOWN = 60  # characters of a value in a message


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
        weights_rounded_to_bits: To which a quantised weight file has rounded them; None for one
            that has not.
        path: Of the HDF5 file; published by the name of the store's folder and its own.
        fingerprint: Of recipe, scales and images.
        row_fingerprint: Of the recipe alone.
        recipe: What decided each row.
        images: Rows that the experiment uses.
        manifest_sha256: Over (id, bytes, box) of their items: what tells one data folder from
            another. Where they are all of the store's, it is what the store's own name hangs on.
            None in a result of format 4 or before.
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
    weights_rounded_to_bits: Count | None = None
    path: str
    fingerprint: str
    row_fingerprint: str
    recipe: Plain
    images: Count
    manifest_sha256: str | None = None
    bytes: Count
    mean_norms: tuple[float | None, ...]
    unreadable: Count
    zero: Count
    cropped: Count

    def published(self) -> Self:
        """Return the record without the machine's folders: a store's own is named by its digest."""
        path = Path(self.path)
        own = path.is_absolute() and path.parent.name.endswith(f"-{self.fingerprint[:8]}")
        place = f"{path.parent.name}/{path.name}" if own else published_path(self.path)
        return self.model_copy(update={"path": place})

    @property
    def named_weights(self) -> str:
        """The weights' name, and to how many bits they were rounded."""
        bits = self.weights_rounded_to_bits
        return self.weights if bits is None else f"{self.weights}, rounded to {bits} bits"

    @property
    def substitute(self) -> str | None:
        """What stands in the place of the authors' weights, in words; None for theirs."""
        whose = {
            "oxford": "the authors' weights",
            "random": "random weights",
            "torchvision": "torchvision's weights",
        }
        if self.weights_family in whose:
            if self.weights_family == "oxford" and self.weights_rounded_to_bits is None:
                return None
            return f"{whose[self.weights_family]} ({self.named_weights})"
        name, digits = self.named_weights, self.weights_sha256[:_DIGITS]
        return f"the weights {name} (sha256 {digits}…)"

    @property
    def imitated(self) -> bool:
        """Whether no trained net has made the rows: random weights, or a thin net."""
        return self.weights_family == "random" or self.model.endswith("-thin")


class Search(_Record):
    """How C was chosen and the classifiers were fitted, as far as a reader of results needs it.

    Made of `vggfeat.classify.svm.CSearch`, which has the numbers of each class instead, NaN where
    there is none, and knows nothing of the final fits.

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
    grid: tuple[Penalty, ...]
    means: tuple[Share | None, ...]
    grown: bool
    at_edge: bool
    fits: Count
    not_converged: Count
    solver: str
    gap: float | None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.means) != len(self.grid):
            raise ValueError(f"as many means as values of C, {len(self.grid)}")
        return self


class Example(_Record):
    """One test image of a class's ranking.

    Attributes:
        id: The image.
        score: Its decision score.
        label: +1, −1 or 0 = difficult.
        true: Its class, counted from 0 in the order of the result's, where each image has one;
            None elsewhere, and, as the next, in a result of format 5 or before.
        predicted: The class that it was taken for.
    """

    id: str
    score: float
    label: Literal[-1, 0, 1]
    true: Count | None = None
    predicted: Count | None = None


class ClassResult(_Record):
    """What came out for one class; None where there is no such number.

    Attributes:
        name: The class.
        c: The chosen C.
        train: Positives in train and val.
        test: Positives in test.
        values: Of each measure that was taken, by its name in `MEASURES`, [0, 1].
        interval: The 95 % interval of the number by the experiment's own measure, as in `Result`.
        note: Why there is no number.
        curve: (recall, precision) points of the test ranking, ascending in recall, thinned.
        best: Best-scored test images.
        worst: Worst-scored test images among its positives, the worst first.
        false_positives: Best-scored of the test images that do not show it and were decided to; in
            a result of format 5 or before, of all that do not show it.
    """

    name: str
    c: Penalty
    train: Count
    test: Count
    values: dict[str, Share | None]
    interval: Interval | None = None
    note: str | None
    curve: tuple[tuple[Share, Share], ...]
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
        intervals: Of each mean, as in `Result`.
        chance: Of each mean, as in `Result`.
    """

    sizes: dict[str, Count]
    search: Search
    c: tuple[Penalty, ...]
    means: dict[str, Share | None]
    counted: dict[str, Count]
    intervals: dict[str, Interval | None] = {}
    chance: dict[str, Share | None] = {}


class Shots(_Record):
    """What so many training images of each class gave, over all draws of them.

    Attributes:
        images: Of each class to train with, those included that C was chosen on.
        short: Classes that have fewer, in one of the draws at least, and train with all they have.
        scores: By the experiment's own measure, one for each draw.
        means: Of each measure, over the draws.
        deviations: Of each measure, the sample standard deviation (n − 1); empty for one draw.
    """

    images: Annotated[Count, Field(gt=0)]
    short: Count
    scores: tuple[Share | None, ...] = Field(min_length=1)
    means: dict[str, Share | None]
    deviations: dict[str, float]


class Result(_Record):
    """One experiment.

    A result that contradicts itself cannot be made: what reads one need not ask again.

    It names no folder of the machine that it was made on: files are told by name and SHA-256, the
    data folder by its name and `StoreUsed.manifest_sha256`. What a later command needs of the paths
    stands in the classifiers beside it, which are not published; see `vggfeat.transfer.origin`.

    Attributes:
        format_version: Of the fields; a result of another one is refused.
        name: That it was written under, for the reader: a file that was copied keeps it.
        date: Of the run, UTC, as 2026-11-25T17:05Z; None, as the next, in a result of format 5 or
            before.
        ran_in: Where relative paths lead on from: the way from this file's folder up to the one of
            the run, ".", "..", "../.." and so on; None where it is not above this file.
        recipe: The complete recipe, checked again when a result is read.
        recipe_fingerprint: Of the recipe, with all its paths as they were, and the weights.
        kind: "multi-label" or "one class".
        ignored: Files and folders that were found and left out.
        stores: One for each net.
        descriptor_size: Of what the SVM sees.
        splits: One or more: of the data set, or else folds, or draws of the largest number of
            training images of each class.
        shots: One for each number of training images of each class, ascending; empty where all
            were used.
        classes: One for each class; of several splits the means of the values, and C, the
            numbers of positives, the curve and the examples of the first.
        confusion: (true class, predicted class, images), counted from 0 in the order of `classes`,
            of all splits together, where each image has one class; a predicted class of −1 is an
            image without a score.
        classifiers: Name → SHA-256 of the files beside this one, one for each split.
        means: Of each measure, over the splits.
        deviations: Of each measure, the sample standard deviation (n − 1) over the splits; empty
            for one split.
        intervals: Of each measure the 95 % interval (low, high) of its mean over the splits, by
            resampling the test images of each; None where there is no number. Empty, as the next,
            in a result of format 4 or before. See `vggfeat.classify.confidence`.
        chance: Of each measure, what it is on average where scores are dealt to the images at
            random.
        resamples: How often the test images were drawn; None in a result of format 4 or before.
        measure: The experiment's own measure.
        score: Its value, [0, 1].
        warnings: What a reader must know: substitutes, classes without a number, lost images.
        seconds: Time of each step; that of describing images is the stores' own, of all their
            images, wherever and whenever they were made, and absent where it is not known.
        versions: Of Python and the packages.
    """

    format_version: Literal[6] = FORMAT_VERSION
    name: FileName
    date: Annotated[str, StringConstraints(pattern=_DATE)] | None = None
    ran_in: Annotated[str, StringConstraints(pattern=_UPWARDS)] | None = None
    recipe: Annotated[Recipe, BeforeValidator(checked_recipe)]
    recipe_fingerprint: str
    kind: Literal["multi-label", "one class"]
    ignored: Count
    stores: tuple[StoreUsed, ...]
    descriptor_size: Count
    splits: tuple[SplitOutcome, ...] = Field(min_length=1)
    shots: tuple[Shots, ...] = ()
    classes: tuple[ClassResult, ...] = Field(min_length=1)
    confusion: tuple[tuple[int, int, Annotated[Count, Field(gt=0)]], ...]
    classifiers: dict[FileName, str] = {}
    means: dict[str, Share | None]
    deviations: dict[str, float]
    intervals: dict[str, Interval | None] = {}
    chance: dict[str, Share | None] = {}
    resamples: Count | None = None
    measure: str
    score: Share | None
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        count = len(self.classes)
        if any(not 0 <= true < count for true, _, _ in self.confusion):
            raise ValueError(f"true classes in 'confusion' from 0 to {count - 1}")
        if any(not -1 <= predicted < count for _, predicted, _ in self.confusion):
            raise ValueError(f"predicted classes in 'confusion' from -1 to {count - 1}")
        examples = (e for c in self.classes for e in (*c.best, *c.worst, *c.false_positives))
        if any(not (e.true or 0) < count > (e.predicted or 0) for e in examples):
            raise ValueError(f"classes of examples from 0 to {count - 1}")
        if not {"voc2007", "voc2010"} <= self.means.keys():
            raise ValueError("voc2007 and voc2010 among the 'means'")
        return self

    def published(self) -> Self:
        """Return the result without absolute paths, which one of format 4 or before may have."""
        stores = tuple(store.published() for store in self.stores)
        return self.model_copy(update={"recipe": self.recipe.published(), "stores": stores})

    def write(self, folder: Path) -> Path:
        """Write `<folder>/<name>.json`.

        Raises:
            ResultError: If another experiment's result stands there, or the name is none.
            PublishError: If it cannot be written.
        """
        path = result_path(folder, self.name)
        make_folder(folder)
        check_free(path, self.recipe_fingerprint)
        publish_bytes(path, self.model_dump_json(indent=1).encode() + b"\n")
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result, and check everything in it.

        Raises:
            ResultError: If it is absent, damaged or of another format.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise _absent(path) from None
        except OSError as error:
            raise ResultError(f"'{path}' cannot be read: {error.strerror}.") from error
        content = _content(path, data)
        found = content.get("format_version")
        if not isinstance(found, int) or isinstance(found, bool):
            raise ResultError(
                f"'{path}' is no result of vggfeat: it has no 'format_version'.",
                f"Results of format {FORMAT_VERSION} have one.",
                "Name another file, or remove it and run `vggfeat svm` again.",
            )
        if found in _UPGRADED:
            data = json.dumps(upgraded(content)).encode()
        elif found != FORMAT_VERSION:
            raise _of_another_format(path, found)
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise damaged(f"'{path}' is damaged", error) from None


def result_path(folder: Path, name: str) -> Path:
    """Return where the result of a name is written.

    Raises:
        ResultError: If the name would lead elsewhere.
    """
    if not re.fullmatch(FILE_NAME, name):
        raise ResultError(
            f"A result cannot be called {_shown(name)}.",
            "Expected letters, digits and '._-', a letter or digit first.",
            "Pass another --name.",
        )
    return folder / f"{name}.json"


def is_result(path: Path) -> bool:
    """Say whether a JSON file is, or was meant to be, a result.

    Raises:
        ResultError: If it cannot be read, or is no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"'{path}' cannot be read: {error.strerror}.") from error
    return not {"format_version", "recipe_fingerprint"}.isdisjoint(_content(path, data))


def upgraded(document: Any) -> Any:  # noqa: ANN401  (JSON from a file may be anything)
    """Return a result's JSON in the present format; what is no result is left as it is.

    Format 5 had no shots, no date, no place of the run and no decisions of examples, format 4 no
    intervals, no chance and no digest of the images besides. Format 3 had one field for each
    measure of a class, and called its recall "recall".
    """
    if not isinstance(document, dict) or document.get("format_version") not in _UPGRADED:
        return document
    if document["format_version"] > 3:
        return document | {"format_version": FORMAT_VERSION}
    names = {"voc2007": "voc2007", "voc2010": "voc2010"}
    if document.get("kind") == "one class":
        names["mean_class_recall"] = "recall"
    classes = document.get("classes")
    if not isinstance(classes, list) or not all(isinstance(one, dict) for one in classes):
        return document
    old = {"voc2007", "voc2010", "recall"}
    return document | {
        "format_version": FORMAT_VERSION,
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
    remedy = "Pass another --name, or remove the file."
    try:
        other = _content(path, path.read_bytes()).get("recipe_fingerprint")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultError(f"'{path}' is in the way: {error.strerror}.", remedy=remedy) from error
    except ResultError as error:
        raise ResultError(f"'{path}' is in the way.", str(error), remedy) from None
    if other != recipe_fingerprint:
        raise ResultError(
            f"'{path}' is the result of another recipe.",
            "A result is never overwritten by another recipe's.",
            remedy,
        )


def damaged(wrong: str, error: ValidationError) -> ResultError:
    """Say what is wrong with the first of the fields that cannot be.

    Args:
        wrong: What is damaged, as the beginning of the message.
        error: What pydantic found.
    """
    first = error.errors(include_url=False)[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), RecipeError):
        return ResultError(f"{wrong}: {cause}", remedy=AGAIN)
    field = repr(".".join(map(str, first["loc"]))) if first["loc"] else "it"
    what = {
        "missing": f"it lacks {field}",
        "extra_forbidden": f"it has an unknown field {field}",
        "value_error": f"{field} is not sound",
    }.get(first["type"], f"{field} is {_shown(first['input'])}")
    return ResultError(f"{wrong}: {what}.", _expected(first["type"], first.get("ctx", {})), AGAIN)


def _expected(kind: str, context: dict[str, Any]) -> str:
    """Say what kind of value a complaint of pydantic wanted."""
    if kind in _EXPECTED:
        return f"Expected {_EXPECTED[kind]}."
    if kind == "value_error":
        return f"Expected {context['error']}."
    limits = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [f"{words} {context[name]:,g}" for name, words in limits.items() if name in context]
    if found:
        return f"Expected {found[0]}."
    return f"Expected {context['expected']}." if "expected" in context else ""


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table of named values",
    "model_type": "a table of named values",
    "too_short": "at least one",
    "too_long": "a shorter list",
    "string_pattern_mismatch": "letters, digits and '._-', a letter or digit first",
}


def _absent(path: Path) -> ResultError:
    """Say that there is no such result, and which of those beside it is nearest to its name."""
    there = [other.stem for other in path.parent.glob("*.json")]
    likely = nearest(path.stem, there).partition(" Valid:")[0] if there else ""
    hint = likely if likely.startswith("Did you mean") else ""
    return ResultError(f"No result '{path}'.", hint, "`vggfeat svm` writes one.")


def _of_another_format(path: Path, found: int) -> ResultError:
    older = "Remove it and run its recipe again, with `vggfeat svm` or `vggfeat run`."
    newer = "Read it with the version of vggfeat that has written it, or a newer one."
    return ResultError(
        f"'{path}' is a result of format {_shown(found)}.",
        f"This version of vggfeat reads formats {_UPGRADED[0]} to {FORMAT_VERSION}.",
        older if found < FORMAT_VERSION else newer,
    )


def _content(path: Path, data: bytes) -> dict[str, Any]:
    """Return the fields of a JSON file; none of a file that holds something else."""
    try:
        content = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ResultError(
            f"'{path}' is no JSON file: {error}.", "Expected a result of `vggfeat svm`.", AGAIN
        ) from None
    return content if isinstance(content, dict) else {}


def _shown(value: object) -> str:
    """Return a value of a JSON file for a message.

    >>> _shown("x"), _shown([1]), _shown({}), _shown(None)
    ("'x'", 'a list', 'a table', 'null')
    """
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
