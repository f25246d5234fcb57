from __future__ import annotations

import logging

import pytest

from vggfeat.data.notes import Notes


def test_each_kind_is_one_line_with_its_number_and_the_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    notes = Notes()
    notes.say("'a.csv' is separated by tabs")
    for line in (2, 7):
        notes.add("paths have backslashes", f"line {line}")
        notes.warn("lines count once", f"line {line + 1}")
    notes.say("'a.csv' is separated by tabs")
    notes.say("there is no test", warn=True)
    assert caplog.records == []
    notes.tell(logging.getLogger("a"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "'a.csv' is separated by tabs"),
        ("INFO", "2 paths have backslashes, the first is line 2"),
        ("WARNING", "2 lines count once, the first is line 3"),
        ("WARNING", "there is no test"),
    ]
    assert notes.lines() == caplog.messages
