"""What the page says of test images, against what the scores decide by definition."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.test_html import a_result
from tests.support.results import caltech
from vggfeat.classify.measures import Scores
from vggfeat.data.records import Kind as Labelling
from vggfeat.report.result import ClassResult, Result
from vggfeat.report.verdicts import Kind, kinds_of, rule_of, words_of
from vggfeat.transfer.score import class_results

NAMES = ("ant", "bee", "cat")


def scored(labels: np.ndarray, scores: Scores, labelling: Labelling) -> Result:
    """A result of such test images, named by their row; nothing else in it counts."""
    ids = [str(row) for row in range(len(labels))]
    one = labelling is Labelling.ONE_CLASS
    classes = class_results(
        NAMES,
        [1.0] * 3,
        np.ones((1, 3), dtype=np.int8),
        (ids, labels.astype(np.int8), scores),
        labelling,
        "mean_class_recall" if one else "voc2007",
    )
    return a_result(*classes).model_copy(update={"kind": labelling.value})


def said(kinds: list[Kind]) -> list[list[tuple[str, str, str | None, str]]]:
    """Of each kind the images: id, word, decision and truth."""
    return [[(s.example.id, s.word, s.decision, s.truth) for s in kind.shots] for kind in kinds]


def test_where_an_image_has_any_number_of_classes_the_sign_decides() -> None:
    labels = np.array([[1, -1, 1], [-1, -1, 1], [1, 1, 1], [0, 1, -1], [-1, 1, -1]])
    scores = np.array([[0.5, -1, 1], [0.25, -1, 1], [-0.5, 2, 1], [2, 1, -1], [-1, 1, -1.0]])
    result = scored(labels, scores, Labelling.MULTI_LABEL)
    assert said(kinds_of(result, 0)) == [
        [
            ("3", "difficult", "yes", "difficult"),
            ("0", "right", "yes", "yes"),
            ("1", "wrong", "yes", "no"),
            ("2", "wrong", "no", "yes"),
            ("4", "right", "no", "no"),
        ],
        [],
        [],
    ]
    assert [e.id for e in result.classes[0].false_positives] == ["1"]  # 4 was not decided to
    assert result.classes[1].false_positives == ()
    assert [kind.nothing for kind in kinds_of(result, 1)[1:]] == [
        "all of them are among those above",
        "no other image was decided yes",
    ]
    assert rule_of(result) == "The decision is yes where the score is above 0."


def test_where_classes_exclude_each_other_the_highest_score_decides() -> None:
    """All scores of the first image are negative, two of the second positive."""
    labels = np.array([[1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    scores = np.array([[-0.1, -0.5, -2], [0.5, 0.75, -1], [0.6, 0.7, -1], [1, -1, 0.5]])
    result = scored(labels, scores, Labelling.ONE_CLASS)
    assert said(kinds_of(result, 0)) == [
        [
            ("3", "wrong", "ant", "cat"),
            ("2", "right", "bee", "bee"),  # 0.6 for ants, and yet no false positive
            ("1", "wrong", "bee", "ant"),
            ("0", "right", "ant", "ant"),
        ],
        [],
        [],
    ]
    false = [[e.id for e in record.false_positives] for record in result.classes]
    assert false == [["3"], ["1"], []]
    assert kinds_of(result, 2)[2].nothing == "no other image was taken for it"
    assert rule_of(result) == "The decision is the class with the highest score."
    assert [*words_of(result, [kinds_of(result, 0)])] == ["right", "wrong"]


@pytest.mark.parametrize("labelling", [Labelling.ONE_CLASS, Labelling.MULTI_LABEL])
def test_no_picture_stands_twice_under_a_class(labelling: Labelling) -> None:
    """Eight positives: six are the highest, so that the lowest are the two others."""
    random = np.random.default_rng(3)
    true = np.repeat(np.arange(3), 8)
    labels = np.where(true[:, None] == np.arange(3), 1, -1)
    scores = labels + random.normal(0, 0.5, labels.shape)
    result = scored(labels, scores, labelling)
    for place in range(3):
        shown = [one[0] for kind in said(kinds_of(result, place)) for one in kind]
        assert len(shown) == len(set(shown)) >= 8
        kept: ClassResult = result.classes[place]
        assert {e.id for e in (*kept.best, *kept.worst, *kept.false_positives)} == set(shown)


def test_a_result_that_keeps_no_decisions_tells_the_truth_alone() -> None:
    """Format 5 kept the highest negatives, whatever was decided of them."""
    result = caltech(4, 8)
    classes = [
        record.model_copy(
            update={
                name: tuple(
                    e.model_copy(update={"true": None, "predicted": None})
                    for e in getattr(record, name)
                )
                for name in ("best", "worst", "false_positives")
            }
        )
        for record in result.classes
    ]
    old = result.model_copy(update={"classes": tuple(classes)})
    kinds = kinds_of(old, 0)
    assert {s.word for kind in kinds for s in kind.shots} == {"untold"}
    assert {s.truth for s in kinds[0].shots} <= {"yes", "no"}
    assert kinds[2].title == "highest of those that do not show it"
    assert "not kept in results of format 5" in rule_of(old)


def test_a_class_without_scores_has_no_images() -> None:
    labels = np.array([[1, -1, -1], [-1, 1, -1]])
    scores = np.array([[1, np.nan, -1], [-1, np.nan, -1]])
    result = scored(labels, scores, Labelling.MULTI_LABEL)
    assert kinds_of(result, 1) == []
    assert said(kinds_of(result, 2))[0][0] == ("0", "right", "no", "no")
    assert kinds_of(result, 2)[1].nothing == "no test image shows it"
