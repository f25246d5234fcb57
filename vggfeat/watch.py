"""What a long run tells its user, and how the user tells it to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vggfeat.errors import Interrupted

_log = logging.getLogger(__name__)


class Watch:
    """Says nothing and never stops: what a library does by itself."""

    @contextmanager
    def step(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that is to be called with every number of units that are done.

        Args:
            title: What is being done.
            total: Number of units.
            unit: "images", "fits"; "bytes" are shown as MB.
        """
        yield lambda count: None

    @contextmanager
    def stopping_in(self, seconds: Callable[[], float]) -> Iterator[None]:
        """Take note, while in it, of how far away the next good moment to stop is.

        Args:
            seconds: Returns the seconds to it; is called from a signal handler.
        """
        yield

    def stop_signal(self) -> int | None:
        """Return the signal that asks the run to stop at the next good moment."""
        return None

    def check(self, resume: str) -> None:
        """Stop here if asked to.

        Args:
            resume: How to go on, for the message.

        Raises:
            Interrupted: If a signal has come.
        """
        number = self.stop_signal()
        if number is not None:
            raise Interrupted(number, resume)
