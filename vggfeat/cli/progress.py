"""What a terminal shows of a long run, and the signals that stop it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vggfeat.watch import Watch

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger(__name__)

_SPEAK_EVERY = 30.0  # seconds between lines where there is no terminal
_AT_ONCE = b"vggfeat: Stopped at once. Run the same command again; what is finished is kept.\n"
_SHOW_CURSOR = b"\x1b[?25h"


class TerminalWatch(Watch):
    """Shows a bar on stderr, or a line every 30 s where it is no terminal; heeds signals.

    The first SIGINT or SIGTERM only sets a flag: an exception out of a handler may surface inside
    a callback of libhdf5, and be lost there. The second one ends the process at once.

    Args:
        console: Where the bar is.
        say: What says a line where there is no terminal; None for the log.
    """

    def __init__(self, console: Console, say: Callable[[str], None] | None = None) -> None:
        self.console = console
        self._say = _log.info if say is None else say
        self._signal: int | None = None
        self._seconds: Callable[[], float] | None = None

    @contextmanager
    def step(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show the progress of one step; see `Watch.step`."""
        if not _log.isEnabledFor(logging.INFO):
            yield lambda count: None
            return
        if not self.console.is_terminal:
            yield _Lines(title, total, unit, self._say)
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        ) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)

    @contextmanager
    def stopping_in(self, seconds: Callable[[], float]) -> Iterator[None]:
        """Let a signal's message say how long it takes; see `Watch.stopping_in`."""
        self._seconds = seconds
        try:
            yield
        finally:
            self._seconds = None

    def stop_signal(self) -> int | None:
        """Return the first signal that came."""
        return self._signal

    def heed_signals(self) -> None:
        """Handle SIGINT and SIGTERM from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os.write(2, _AT_ONCE)
            os._exit(128 + number)
        self._signal = number
        if self._seconds is None:
            _log.warning("stopping after what is in work; a second signal stops at once")
        else:
            _log.warning(
                "stopping after the shard in work, in about %.0f s; a second signal stops at once, "
                "and loses it",
                self._seconds(),
            )


class _Lines:
    """Says a line every 30 s, and one at the end."""

    def __init__(self, title: str, total: int, unit: str, say: Callable[[str], None]) -> None:
        self._title, self._total, self._unit, self._say = title, total, unit, say
        self._begin = self._spoken = time.monotonic()
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        finished = self._done - count < self._total <= self._done
        if now - self._spoken < _SPEAK_EVERY and not finished:
            return
        self._spoken = now
        rate = self._done / max(now - self._begin, 1e-9)
        left = _clock(max(self._total - self._done, 0) / rate) if self._done else "-:--:--"
        scale, unit = _scaled(self._unit)
        done, total = int(self._done / scale), int(self._total / scale)
        self._say(
            f"{self._title}: {done} of {total} {unit}, {rate / scale:.1f} {unit}/s, {left} left"
        )


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed, as "12.3 images/s"."""
        speed = task.finished_speed or task.speed
        scale, unit = _scaled(self._unit)
        return Text("" if speed is None else f"{speed / scale:.1f} {unit}/s")


def _scaled(unit: str) -> tuple[float, str]:
    return (1e6, "MB") if unit == "bytes" else (1, unit)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def console() -> Console:
    """Return where progress and log go: stderr."""
    from rich.console import Console

    return Console(file=sys.stderr)


def terminal_watch() -> TerminalWatch:
    """Return a watch on stderr that heeds signals from now on."""
    watch = TerminalWatch(console())
    watch.heed_signals()
    return watch
