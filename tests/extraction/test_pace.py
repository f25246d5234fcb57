"""How long a shard still takes, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from vggfeat.extraction.engine import ShardTask
from vggfeat.extraction.pace import Pace


@dataclass
class Run:
    """An extractor's work, and what it says of it."""

    now: float = 100.0
    told: list[int] = field(default_factory=list)


def task(rows: int) -> ShardTask:
    return ShardTask(number=0, items=[None] * rows, sha256=[""] * rows)  # type: ignore[list-item]


def test_the_seconds_are_those_of_the_images_that_are_left_of_the_shard() -> None:
    run = Run()
    pace = Pace(0.5, run.told.append, lambda: run.now)
    begun = pace.following([task(20), task(40)])
    assert pace.seconds_left() == 0
    next(begun)
    pace.advance(4)  # copied from another store: no work, and no measure of it
    assert pace.seconds_left() == 16 * 0.5
    run.now += 2
    assert pace.seconds_left() == 6  # estimated, less what has passed
    pace.advance(8)  # in 2 s: a quarter of a second each
    assert pace.seconds_left() == 8 * 0.25
    next(begun)  # is decoded ahead, while the first is in work
    pace.advance(10)  # of the second, with nothing to do
    assert pace.seconds_left() == 8 * 0.25
    run.now += 0.5
    assert pace.seconds_left() == 1.5
    run.now += 9.5
    assert pace.seconds_left() == 0  # later than was thought
    pace.advance(8)
    assert pace.seconds_left() == 0
    pace.finished()
    assert pace.seconds_left() == 30 * 12 / 16
    assert run.told == [4, 8, 10, 8]  # all of them reach the progress
