from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import textwrap

import pytest
from rich.console import Console

from vggfeat.cli import progress
from vggfeat.cli.progress import TerminalWatch
from vggfeat.errors import Interrupted
from vggfeat.watch import Watch


def test_without_a_terminal_there_is_a_line_at_the_end_and_every_30_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]  # an import
    caplog.set_level(logging.INFO, "vggfeat")
    with TerminalWatch(Console(file=io.StringIO())).step("extract", 100, "images") as advance:
        for _ in range(10):
            now[0] += 7
            advance(10)
        advance(1)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "extract: 50 of 100 images, 1.4 images/s, 0:00:35 left",
        "extract: 100 of 100 images, 1.4 images/s, 0:00:00 left",
    ]


def test_before_anything_is_done_no_time_is_guessed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]  # an import
    caplog.set_level(logging.INFO, "vggfeat")
    with TerminalWatch(Console(file=io.StringIO())).step("fit", 20, "fits") as advance:
        now[0] += 40
        advance(0)
        assert caplog.messages == ["fit: 0 of 20 fits, 0.0 fits/s, -:--:-- left"]


def test_bytes_are_told_in_megabytes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]  # an import
    caplog.set_level(logging.INFO, "vggfeat")
    with TerminalWatch(Console(file=io.StringIO())).step("fetch", 553_432_081, "bytes") as advance:
        now[0] += 40
        advance(100_000_000)
        now[0] += 1
        advance(453_432_081)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "fetch: 100 of 553 MB, 2.5 MB/s, 0:03:01 left",
        "fetch: 553 of 553 MB, 13.5 MB/s, 0:00:00 left",
    ]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with TerminalWatch(console).step("fetch", 553_432_081, "bytes") as advance:
        advance(100_000_000)
        advance(453_432_081)
    assert "553.4/553.4 MB" in screen.getvalue()
    assert "MB/s" in screen.getvalue()


def test_with_a_terminal_there_is_a_bar_with_rate_and_time_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "vggfeat")  # as a command without --quiet sets it
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with TerminalWatch(console).step("extract", 10, "images") as advance:
        advance(3)
        advance(7)
    text = screen.getvalue()
    assert "extract" in text
    assert "images/s" in text
    assert "10/10" in text


def test_a_plain_watch_says_nothing_and_never_stops() -> None:
    watch = Watch()
    with watch.step("x", 1, "images") as advance:
        advance(1)
    watch.check("never")
    assert watch.stop_signal() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_a_flag_and_the_second_ends_the_process(
    number: signal.Signals,
) -> None:
    code = f"""
        import os, signal
        from rich.console import Console
        from vggfeat.errors import Interrupted
        from vggfeat.cli.progress import TerminalWatch
        watch = TerminalWatch(Console(stderr=True))
        watch.heed_signals()
        watch.check("go on")
        os.kill(os.getpid(), {int(number)})
        try:
            watch.check("type it again")
        except Interrupted as error:
            print(error, error.exit_code)
        os.kill(os.getpid(), {int(number)})
        print("never")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + number
    assert "never" not in done.stdout


def test_the_message_names_the_signal_and_how_to_go_on() -> None:
    error = Interrupted(15, "Type it again.")
    assert str(error) == "Stopped by SIGTERM. Type it again."
    assert error.exit_code == 143


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "stopping after what is in work; a second signal stops at once"),
        (
            17.4,
            "stopping after the shard in work, in about 17 s; a second signal stops at once, "
            "and loses it",
        ),
    ],
)
def test_a_signal_is_answered_with_how_long_it_takes(
    caplog: pytest.LogCaptureFixture, seconds: float | None, said: str
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    watch = TerminalWatch(Console(file=io.StringIO()))
    watch.heed_signals()
    try:
        if seconds is None:
            with watch.stopping_in(lambda: 5.0):
                pass  # what is over counts no more
            signal.raise_signal(signal.SIGINT)
        else:
            with watch.stopping_in(lambda: seconds):
                signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert caplog.messages == [said]
    assert watch.stop_signal() == signal.SIGINT
