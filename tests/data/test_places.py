from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vggfeat.data.notes import Notes
from vggfeat.data.places import Places

FILES = ["a.jpg", "b/c.d.png", "b/c.d.txt", "b/._e.jpg", "b/e.JPG", "b/e.webp", "back\\slash.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    for file in FILES:
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        ("a.jpg", ["a.jpg"]),
        (" a.jpg ", ["a.jpg"]),
        ("./b/../a.jpg", ["b/../a.jpg"]),
        ("a", ["a.jpg"]),
        ("b\\c.d.png", ["b/c.d.png"]),
        ("b\\c.d", ["b/c.d.png"]),
        ("b/c.d.txt", ["b/c.d.txt"]),  # whatever is named in full is meant
        ("b/c", []),
        ("b/e", ["b/e.JPG", "b/e.webp"]),
        ("back\\slash.jpg", ["back\\slash.jpg"]),  # a name of its own, here
        ("A.jpg", []),
        ("b", []),
        ("", []),
        ("..", []),
        ("x/y", []),
        ("a.jpg/x", []),
        ("x" * 5000, []),
    ],
)
def test_a_path_is_found_as_it_is_meant(folder: Path, written: str, ids: Sequence[str]) -> None:
    found = Places(folder, None).find(written)
    assert [place.id for place in found] == ids
    assert all(place.path.is_file() for place in found)
    if "../" not in written:  # a store has the ids, and no folders
        assert [place.id for place in Places(folder, FILES).find(written)] == ids


@pytest.mark.parametrize(
    ("written", "like"),
    [
        ("A.JPG", "a.jpg"),
        ("a.png", "a.jpg"),
        ("e.JPG", "b/e.JPG"),
        ("c.d", "b/c.d.png"),
        ("b/x.jpg", ""),
        ("/nowhere/x.jpg", ""),
    ],
)
def test_what_an_absent_path_may_mean(folder: Path, written: str, like: str) -> None:
    assert Places(folder, None).like(written) == like
    assert Places(folder / "b", None).like("a.jpg") == "../a.jpg"
    assert Places(folder, FILES).like(written) == ""


@given(st.text(max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_text_is_a_path_or_none(tmp_path: Path, written: str) -> None:
    places = Places(tmp_path, None)
    if "\0" not in written:
        places.choose_base([written], Notes())
        places.missing(written)
    assert all(place.path.is_file() for place in places.find(written))
