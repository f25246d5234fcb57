"""The rules of the VOC devkits, one by one, on results files as they evaluate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.support.reference import devkit_average_precision
from vggfeat.classify.measures import average_precision
from vggfeat.data.voc import CLASSES
from vggfeat.transfer.voc_server import SubmissionError, read_scores

Measure = Literal["voc2007", "voc2010"]
Truth = Sequence[tuple[str, int]]
YEARS: dict[Measure, int] = {"voc2007": 2007, "voc2010": 2012}


def written(folder: Path, results: Iterable[tuple[str, float]]) -> Path:
    path = folder / "comp2_cls_test_cat.txt"
    path.write_text("".join(f"{i} {score!r}\n" for i, score in results))
    return path


def measured(path: Path, truth: Truth, measure: Measure) -> float:
    """Evaluate a results file: what VOCevalcls.m does."""
    ids, labels = zip(*truth, strict=True)
    return average_precision(read_scores(path, ids), np.array(labels), measure=measure)


@pytest.mark.slow
@pytest.mark.parametrize("measure", YEARS)
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_voc_2007_is_measured_as_by_the_devkit(
    shared: Path, tmp_path: Path, name: str, measure: Measure
) -> None:
    """On the official lists, difficult images among them; scores are tied, repeated and absent."""
    lists = shared / "voc2007-imagesets" / "VOC2007" / "ImageSets" / "Main"
    words = (lists / f"{name}_test.txt").read_text().split()
    truth = list(zip(words[::2], map(int, words[1::2]), strict=True))
    assert len(truth) == 4952
    random = np.random.default_rng(CLASSES.index(name))
    scores = random.normal(size=len(truth)) + [0.8 * label for _, label in truth]
    quantised = np.round(scores, 1).tolist()
    order = random.permutation(len(truth))
    lines = [(truth[i][0], quantised[i]) for i in [*order[:4700], *order[:300]]]
    lines += [(truth[i][0], float(random.normal())) for i in order[100:200]]
    assert len(set(quantised)) < 150
    ours = measured(written(tmp_path, lines), truth, measure)
    assert 0.05 < ours < 0.95
    assert ours == pytest.approx(devkit_average_precision(truth, lines, YEARS[measure]), abs=1e-12)


TRUTH: Truth = [("a", 1), ("b", -1), ("c", 1), ("d", 0), ("e", -1)]
IDS = tuple(i for i, _ in TRUTH)


def test_an_unknown_id_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, [("a", 1.0), ("x", 2.0)])
    with pytest.raises(SubmissionError, match="has 'x', which the ground truth has not"):
        read_scores(path, IDS)


def test_an_id_twice_in_the_ground_truth_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="ground truth has 'b' twice"):
        read_scores(written(tmp_path, []), ["a", "b", "c", "b"])


def test_of_a_repeated_line_the_last_counts(tmp_path: Path) -> None:
    path = written(tmp_path, [("a", 9.0), ("b", 3.0), ("c", 2.0), ("a", 1.0)])
    assert read_scores(path, IDS).tolist() == [1, 3, 2, -np.inf, -np.inf]


def test_scores_stand_in_the_order_of_the_ground_truth(tmp_path: Path) -> None:
    path = written(tmp_path, [("e", 5.0), ("c", 3.0), ("a", 1.0), ("b", 2.0), ("d", 4.0)])
    assert read_scores(path, IDS).tolist() == [1, 2, 3, 4, 5]


def test_persons_are_told_by_image_and_object(tmp_path: Path) -> None:
    path = tmp_path / "comp10_action_test_reading.txt"
    path.write_text("i  2  0.25\nj 1 -1e-3\n\ni 1 7\n")
    assert read_scores(path, ["i/1", "i/2", "j/1"]).tolist() == [7, 0.25, -0.001]


@pytest.mark.parametrize("measure", YEARS)
def test_an_image_without_a_line_ranks_last_but_counts(tmp_path: Path, measure: Measure) -> None:
    path = written(tmp_path, [("a", 1.0), ("b", -1e300), ("e", -2e300)])
    ours = measured(path, TRUTH, measure)  # c is found last of four: precision 2/4
    expected = {"voc2007": (6 * 1 + 5 * 0.5) / 11, "voc2010": 0.5 * 1 + 0.5 * 0.5}
    assert ours == pytest.approx(expected[measure], abs=1e-15)


@pytest.mark.parametrize("measure", YEARS)
def test_a_leading_difficult_image_counts_as_nothing(tmp_path: Path, measure: Measure) -> None:
    """The devkit has a precision of 0/0 there, which MATLAB's max skips."""
    lines = [("d", 9.0), ("a", 3.0), ("c", 2.0), ("b", 1.0), ("e", 0.0)]
    path = written(tmp_path, lines)
    assert measured(path, TRUTH, measure) == 1.0
    assert devkit_average_precision(TRUTH, lines, YEARS[measure]) == pytest.approx(1.0, abs=1e-15)


def test_ties_keep_the_order_of_the_ground_truth_whatever_that_of_the_file(tmp_path: Path) -> None:
    forwards = [(i, 0.5) for i, _ in TRUTH]
    expected = 0.5 * 1 + 0.5 * 2 / 3  # a, b, c, (d), e
    for lines in (forwards, forwards[::-1]):
        assert measured(written(tmp_path, lines), TRUTH, "voc2010") == pytest.approx(expected)
    turned = TRUTH[::-1]  # e, (d), c, b, a
    path = written(tmp_path, forwards)
    assert measured(path, turned, "voc2010") == pytest.approx(0.5 * 1 / 2 + 0.5 * 1 / 2)


def test_a_recall_of_exactly_three_fifths_passes_the_level_of_0_6(tmp_path: Path) -> None:
    """numpy's arange has 0.6000000000000001 there, and would lose a level."""
    truth = [(f"p{n}", 1) for n in range(5)] + [(f"n{n}", -1) for n in range(95)]
    best = [(f"p{n}", 100.0 - n) for n in range(3)]
    others = [(f"n{n}", 50.0 - n / 100) for n in range(95)]
    path = written(tmp_path, [*best, *others, ("p3", -1.0), ("p4", -2.0)])
    ours = measured(path, truth, "voc2007")
    assert ours == pytest.approx((7 * 1 + 4 * 5 / 100) / 11, abs=1e-15)  # 0, 0.1, …, 0.6 at 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 0.5\nb\n", r"Not 2 columns in 1 line, the first is line 2: 'b'"),
        ("a 0.5\nb NaN\nc inf\n", r"is not finite in 2 lines, the first is line 2: 'b NaN'"),
        ("a one\n", "No number as confidence in 1 line"),
    ],
)
def test_a_line_that_makes_no_sense_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "results.txt"
    path.write_text(text)
    with pytest.raises(SubmissionError, match=said):
        read_scores(path, IDS)


def test_a_results_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"'.*nothing\.txt' cannot be read: No such file"):
        read_scores(tmp_path / "nothing.txt", IDS)
