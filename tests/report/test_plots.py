from __future__ import annotations

import base64
import io
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.results import caltech
from vggfeat.classify.measures import average_precision, precision_recall
from vggfeat.report.html import write_page
from vggfeat.report.pictures import heat_map
from vggfeat.report.plots import (
    confusion_shares,
    confusions,
    curve,
    nice_ticks,
    scatter,
    search,
    shots,
)
from vggfeat.report.result import Result, Shots
from vggfeat.report.text import result_text

Points = list[tuple[float, float]]


def vertices(path: str) -> Points:
    """The corners of path data of the commands M, H, V and h0, percent; implied ones are L."""
    x, y, found = 0.0, 0.0, []
    for command, text in re.findall(r"([MHVh])([^MHVh]*)", path):
        numbers = [float(part) for part in re.split(r"[ ,]", text) if part]
        if command == "M":
            for x, y in zip(numbers[::2], numbers[1::2], strict=True):
                found.append((x, y))
            continue
        x, y = (numbers[0], y) if command == "H" else (x, numbers[0]) if command == "V" else (x, y)
        if command != "h":
            found.append((x, y))
    return found


def at_hits(scores: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The points of a ranking where recall rises, as results keep them."""
    recall, precision = precision_recall(scores, labels)
    rises = np.diff(recall, prepend=0) > 0
    return tuple(zip(recall[rises].tolist(), precision[rises].tolist(), strict=True))


@given(st.lists(st.sampled_from([1, -1, 0]), min_size=1, max_size=60).filter(lambda x: 1 in x))
@settings(deadline=None)
def test_the_drawn_dots_and_area_are_the_two_measures(ranked: list[int]) -> None:
    labels = np.array(ranked)
    scores = -np.arange(len(labels), dtype=float)
    drawn = curve(at_hits(scores, labels))
    dots = vertices(drawn.levels)
    assert [x for x, _ in dots] == pytest.approx([10 * k for k in range(11)])
    mean = 1 - np.mean([y for _, y in dots]) / 100
    assert mean == pytest.approx(average_precision(scores, labels, measure="voc2007"), abs=1e-3)
    corners = vertices(drawn.envelope)
    area = sum((b[0] - a[0]) * (100 - a[1]) for a, b in pairwise(corners))
    ap = average_precision(scores, labels, measure="voc2010")
    assert area / 1e4 == pytest.approx(ap, abs=1e-3)
    assert corners[0][0] == 0
    assert corners[-1][0] == 100
    heights = [y for _, y in corners]
    assert heights == sorted(heights)  # downwards on the page: never rising


def test_the_ranking_is_drawn_as_it_is() -> None:
    drawn = curve([(0.5, 1.0), (0.75, 0.25), (1.0, 0.4)])
    assert vertices(drawn.ranking) == [(50, 0), (75, 75), (100, 60)]
    assert vertices(drawn.envelope)[:4] == [(0, 0), (50, 0), (50, 60), (100, 60)]
    assert set(vertices(drawn.envelope)[4:]) == {(100, 100)}  # it ends at a precision of 0
    assert [y for _, y in vertices(drawn.levels)] == [0] * 6 + [60] * 5


def test_each_split_has_its_line_over_the_logarithm_of_c() -> None:
    splits = caltech(4, 4).splits
    plot = search(splits)
    assert plot is not None
    grid, low, high = splits[0].search.grid, plot.percent[0][1], plot.percent[-1][1]
    assert (plot.percent[0][0], plot.percent[-1][0]) == (0, 100)
    for split, line in zip(splits, plot.lines, strict=True):
        points = vertices(line.line)
        assert points == vertices(line.dots)
        assert [x for x, _ in points] == pytest.approx(
            [100 * k / 11 for k in range(12)], rel=1e-3
        )  # 2^-4 to 2^7, evenly
        shown = [low + (100 - y) / 100 * (high - low) for _, y in points]
        measured = [100 * mean for mean in split.search.means if mean is not None]
        assert shown == pytest.approx(measured, abs=0.02)
        assert vertices(line.chosen) == [points[grid.index(split.c[0])]]


def few_shots() -> Result:
    scores = {1: (0.2, 0.3), 4: (0.5, 0.5), 16: (0.75, 0.85)}
    return caltech(4, 4).model_copy(
        update={
            "shots": tuple(
                Shots(
                    images=images,
                    short=0,
                    scores=own,
                    means={"mean_class_recall": sum(own) / 2},
                    deviations={"mean_class_recall": abs(own[1] - own[0]) / 2**0.5},
                )
                for images, own in scores.items()
            )
        }
    )


def test_few_shots_are_drawn_over_the_logarithm_of_their_number() -> None:
    plot = shots(few_shots())
    assert plot is not None
    assert [*plot.images] == [(0, 1), (50, 4), (100, 16)]
    low, high = plot.percent[0][1], plot.percent[-1][1]

    def shown(y: float) -> float:
        return low + (100 - y) / 100 * (high - low)

    line, dots = vertices(plot.line), vertices(plot.dots)
    assert [x for x, _ in line] == [0, 50, 100]
    assert [shown(y) for _, y in line] == pytest.approx([25, 50, 80], abs=0.05)
    assert [shown(y) for _, y in dots] == pytest.approx([20, 30, 50, 50, 75, 85], abs=0.05)
    ends = [shown(float(y)) for y in re.findall(r"[,V]([\d.]+)", plot.spread)]
    half = 10 / 2**0.5
    wanted = [25 - half, 25 + half, 50, 50, 80 - half, 80 + half]
    assert ends == pytest.approx(wanted, abs=0.05)


def test_few_shots_without_numbers_are_not_drawn() -> None:
    assert shots(caltech(3, 3)) is None
    result = few_shots()
    nothing = {"means": {"mean_class_recall": None}, "scores": (None, None), "deviations": {}}
    bare = [one.model_copy(update=nothing) for one in result.shots]
    assert shots(result.model_copy(update={"shots": tuple(bare)})) is None
    some = (bare[0], result.shots[1])
    [one] = filter(None, [shots(result.model_copy(update={"shots": some}))])
    assert [*one.images] == [(50, 4)]


def test_few_shots_are_on_the_page_and_in_the_text(tmp_path: Path) -> None:
    result = few_shots()
    write_page(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "training images of each class (logarithmic)" in page
    assert ">mean class recall, %</text>" in page
    assert "over the training images of each class: 1: 25.0; 4: 50.0; 16: 80.0" in page
    lines = [line.split() for line in result_text(result).splitlines()]
    assert ["4", "50.00", "±", "0.00", "50.00,", "50.00"] in lines
    assert ["16", "80.00", "±", "7.07", "75.00,", "85.00"] in lines
    assert Result.model_validate_json(result.model_dump_json()).shots == result.shots


def test_a_search_without_numbers_is_not_drawn() -> None:
    split = caltech(3, 3).splits[0]
    nothing = split.search.model_copy(update={"means": (None,) * 11 + (float("nan"),)})
    assert search([split.model_copy(update={"search": nothing})]) is None
    one = split.search.model_copy(update={"grid": (2.0,), "means": (0.5,)})
    plot = search([split.model_copy(update={"search": one, "c": (2.0, 512.0)})])
    assert plot is not None
    assert vertices(plot.lines[0].line) == vertices(plot.lines[0].chosen) == [(50, 50)]


@given(st.floats(0, 100), st.floats(0, 100))
def test_ticks_enclose_what_they_measure(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-6
    assert high - 1e-6 <= ticks[-1]
    assert 2 <= len(ticks) <= 7
    steps = np.diff(ticks)
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-3)
    assert steps.min() > 0


def test_confusion_is_shared_out_by_true_class() -> None:
    result = caltech(6, 5)
    shares = confusion_shares(result)
    for true in range(6):
        row = {p: n for t, p, n in result.confusion if t == true}
        total = sum(row.values())
        assert total == 3 * 5  # three splits, five images
        assert shares[true] == pytest.approx([row.get(p, 0) / total for p in range(6)])
    recalls = [c.values["mean_class_recall"] for c in result.classes]
    assert np.diag(shares) == pytest.approx(recalls)
    mistakes = confusions(result)
    names = [c.name for c in result.classes]
    expected = Counter(
        {(names[t], names[p] if p >= 0 else None): n for t, p, n in result.confusion if t != p}
    )
    assert {(m.true, m.predicted): m.images for m in mistakes} == expected
    assert [m.images for m in mistakes] == sorted(expected.values(), reverse=True)
    assert all(m.share == pytest.approx(m.images / 15) for m in mistakes)


def test_the_heat_map_has_a_pixel_for_each_share() -> None:
    shares = np.array([[1.0, 0.0], [0.04, 0.36]])
    data = base64.b64decode(heat_map(shares).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    assert pixels[..., 3].tolist() == [[255, 0], [123, 189]]  # round(90 + 165 · share^½), 0 for 0
    assert (pixels[..., :3] == (0, 114, 178)).all()


def test_a_cloud_has_one_unit_on_both_axes_and_its_points_in_place() -> None:
    points = np.array([[0.0, 0.0], [4, 0], [4, 2], [0, 2], [1, 1], [1.0001, 1]])
    drawn = scatter(points, [np.array([0, 2]), np.array([4, 5]), np.array([], dtype=np.intp)])
    wide, tall = 4 + 2 * 0.12, 2 + 2 * 0.12  # a margin of 3 % of the longer side
    assert drawn.height == pytest.approx(tall / wide)
    corners = [(100 * 0.12 / wide, 100 - 100 * 0.12 / tall)]
    corners += [(100 - x, 100 - y) for x, y in corners]
    assert vertices(drawn.dots[0]) == [pytest.approx(corner, abs=0.06) for corner in corners]
    assert len(vertices(drawn.dots[1])) == 1  # two points on one spot
    assert drawn.dots[2] == ""
    assert [value for _, value in drawn.x] == [0, 1, 2, 3, 4]
    assert {value: at for at, value in drawn.x}[2] == pytest.approx(50)
    assert {value: at for at, value in drawn.y}[1] == pytest.approx(50)
    assert drawn.density.max() == 1
    assert np.count_nonzero(drawn.density) == 5
    top = drawn.density[: len(drawn.density) // 2]
    assert np.count_nonzero(top) == 2  # the points of the upper edge, above


def test_points_on_one_spot_are_a_cloud_too() -> None:
    drawn = scatter(np.full((3, 2), 0.25), [np.arange(3)])
    assert drawn.height == 1
    assert vertices(drawn.dots[0]) == [(50, 50)]
