"""What was read otherwise than it stands there: every kind is counted, and one example named."""

from __future__ import annotations

import logging


class Notes:
    """Collects what a reader takes otherwise than it stands there, until it is told.

    Whoever reads a data set twice, only to ask it something, need not tell it twice.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], list[str]] = {}

    def add(self, what: str, example: str) -> None:
        """Note one more of a kind.

        Args:
            what: The kind, as it follows a number: "paths have no ending".
            example: Which one it is.
        """
        self._found.setdefault((logging.INFO, what), []).append(example)

    def warn(self, what: str, example: str) -> None:
        """Note one more of a kind that changes what is scored, or may not be meant."""
        self._found.setdefault((logging.WARNING, what), []).append(example)

    def say(self, sentence: str, *, warn: bool = False) -> None:
        """Note what is of the whole, and so has no number."""
        self._found.setdefault((logging.WARNING if warn else logging.INFO, sentence), [])

    def lines(self) -> list[str]:
        """Return what `tell` logs, a line for each kind, in the order of the first of each."""
        return [_line(what, examples) for (_, what), examples in self._found.items()]

    def tell(self, log: logging.Logger) -> None:
        """Log a line for each kind: its number, what it is, the first example."""
        for (level, what), examples in self._found.items():
            log.log(level, "%s", _line(what, examples))


def _line(what: str, examples: list[str]) -> str:
    return f"{len(examples)} {what}, the first is {examples[0]}" if examples else what
