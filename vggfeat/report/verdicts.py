"""What was decided of an image, what is true of it, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vggfeat.report.result import ClassResult, Example, Result

_EXAMPLES = 6  # of each kind for a class
_SAID = {1: "yes", -1: "no", 0: "difficult"}  # label → whether an image shows a class
_EARLIER = "all of them are among those above"

# Word → its sign, since colour alone would not do, and what it means.
WORDS = {
    "right": ("✓", "the decision is the truth"),
    "wrong": ("✗", "the decision is not the truth"),
    "difficult": ("◇", "the data set calls the image so, and the measure leaves it out"),
    "untold": ("?", "the result does not keep the decision"),
}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One test image under one class.

    Attributes:
        example: The image, its score and its label.
        word: One of `WORDS`.
        decision: What it was taken for: a class where each image has one, else "yes" or "no"; None
            where the result does not say.
        truth: What it is, in the same words.
    """

    example: Example
    word: str
    decision: str | None
    truth: str

    @property
    def sign(self) -> str:
        """The sign of its word."""
        return WORDS[self.word][0]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Some of a class's test images.

    Attributes:
        title: What they have in common.
        shots: The images; no image is in two kinds of a class.
        nothing: Why there are none, in words.
    """

    title: str
    shots: tuple[Shot, ...]
    nothing: str


def kinds_of(result: Result, place: int) -> list[Kind]:
    """Return the test images of a class, by kind; none where it has no scores.

    Args:
        result: Any.
        place: The class, counted from 0 in the result's own order.
    """
    record = result.classes[place]
    if not record.best:
        return []
    found: list[Kind] = []
    shown: set[str] = set()
    for title, examples, nothing in _kept(result, record):
        fresh = [example for example in examples if example.id not in shown][:_EXAMPLES]
        shown.update(example.id for example in fresh)
        shots = tuple(_shot(example, result) for example in fresh)
        found.append(Kind(title=title, shots=shots, nothing=_EARLIER if examples else nothing))
    return found


def words_of(result: Result, classes: Iterable[Iterable[Kind]]) -> dict[str, tuple[str, str]]:
    """Return the words that some images have, with their signs and meanings.

    Args:
        result: Whose images they are.
        classes: The kinds of each class that is shown.
    """
    used = {shot.word for kinds in classes for kind in kinds for shot in kind.shots}
    return {word: about for word, about in WORDS.items() if word in used}


def rule_of(result: Result) -> str:
    """Return a sentence that says how an image is decided."""
    if result.kind == "multi-label":
        return "The decision is yes where the score is above 0."
    if _told(result):
        return "The decision is the class with the highest score."
    return "What each image was taken for is not kept in results of format 5 or before."


def _told(result: Result) -> bool:
    """Tell whether a result of exclusive classes keeps what its examples were taken for."""
    return any(example.predicted is not None for c in result.classes for example in c.best)


def _kept(result: Result, record: ClassResult) -> list[tuple[str, tuple[Example, ...], str]]:
    """Return title, examples, and why there are none, of each kind that a result keeps."""
    false, title = record.false_positives, "false positives, the highest first"
    if result.kind == "multi-label":
        false = tuple(example for example in false if example.score > 0)  # older results keep all
        nothing = "no other image was decided yes"
    elif _told(result):
        nothing = "no other image was taken for it"
    else:
        title, nothing = "highest of those that do not show it", "there are none"
    return [
        ("scored highest", record.best, "none"),
        ("images of the class that scored lowest", record.worst, "no test image shows it"),
        (title, false, nothing),
    ]


def _shot(example: Example, result: Result) -> Shot:
    """Say what was decided of an image, and what is true."""
    agree: bool | None = None
    decision, truth = None, _SAID[example.label]
    if result.kind == "multi-label":
        decision = "yes" if example.score > 0 else "no"
        agree = decision == truth
    elif example.predicted is not None and example.true is not None:
        decision, truth = (result.classes[k].name for k in (example.predicted, example.true))
        agree = example.predicted == example.true
    word = {True: "right", False: "wrong", None: "untold"}[agree] if example.label else "difficult"
    return Shot(example=example, word=word, decision=decision, truth=truth)
