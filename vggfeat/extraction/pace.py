"""How long the shard in work still takes, by how fast the images before went."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggfeat.extraction.engine import ShardTask


class Pace:
    """Follows an extractor from shard to shard; stands between it and the progress.

    Args:
        row_seconds: Estimate for one image, for as long as none is done.
        advance: Told of every number of images that are done.
        clock: Seconds.
    """

    def __init__(
        self,
        row_seconds: float,
        advance: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._estimate = row_seconds
        self._advance = advance
        self._clock = clock
        self._left: deque[int] = deque()  # images of each shard that has been begun, in turn
        self._fresh = False
        self._described = 0
        self._begun = self._last = clock()

    def following(self, tasks: Iterable[ShardTask]) -> Iterator[ShardTask]:
        """Yield the tasks as they are begun, which is while those before them are in work."""
        self._begun = self._last = self._clock()
        for task in tasks:
            self._left.append(len(task.items))
            self._fresh = True
            yield task

    def advance(self, count: int) -> None:
        """Take note of images that are done; the first of a task are those with nothing to do."""
        if self._fresh:
            self._left[-1] -= count
            self._fresh = False
        else:
            self._left[0] -= count
            self._described += count
            self._last = self._clock()
        self._advance(count)

    def finished(self) -> None:
        """Take note that the first task is done."""
        self._left.popleft()

    def seconds_left(self) -> float:
        """Return how long the task in work still takes."""
        now, left = self._clock(), self._left[0] if self._left else 0
        if not self._described:
            return max(0.0, left * self._estimate - (now - self._begun))
        each = (self._last - self._begun) / self._described
        return max(0.0, left * each - (now - self._last))
