from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vggfeat.data.notes import Notes
from vggfeat.data.voc_lists import image_paths, read_ids, read_labels
from vggfeat.errors import DatasetError
from vggfeat.files.suffixes import SUFFIXES


def written(folder: Path, data: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def ids_of(folder: Path, data: str | bytes) -> tuple[dict[str, str], list[str]]:
    notes = Notes()
    return read_ids(written(folder, data), notes), notes.lines()


@pytest.mark.parametrize(
    ("data", "ids", "told"),
    [
        ("a\nb\n", {"a": "", "b": ""}, ""),
        ("\ufeffa\r\nb\r\n", {"a": "", "b": ""}, ""),
        ("a\nb\n".encode("utf-16"), {"a": "", "b": ""}, ""),
        ("\n a\t\n\n\nb", {"a": "", "b": ""}, ""),
        ("my cat\nmy dog\n", {"my cat": "", "my dog": ""}, ""),
        ("a.jpg\nb.c.PNG\n", {"a": ".jpg", "b.c": ".PNG"}, "2 ids .* 'a.jpg', which is 'a'"),
        ("../JPEGImages/a.jpg\nVOC\\JPEGImages\\b\n", {"a": ".jpg", "b": ""}, "2 ids stand"),
        ("b.c\n1.2\n", {"b.c": "", "1.2": ""}, ""),  # no ending of an image
        ("a 1\nb -1\n", {"a": "", "b": ""}, "has a label in every line, which is ignored"),
        ("photo 1\nphoto 0\n", {"photo 1": "", "photo 0": ""}, ""),  # no labels: numbers
        ("a\nb\na\n", {"a": "", "b": ""}, "1 lines of the lists name an image again.*line 3"),
        ("", {}, ""),
    ],
)
def test_a_part_s_list_is_read_as_tools_write_it(
    tmp_path: Path, data: str | bytes, ids: dict[str, str], told: str
) -> None:
    found, lines = ids_of(tmp_path, data)
    assert found == ids
    assert list(found) == list(ids)
    assert len(lines) == bool(told)
    assert all(re.search(told, line) for line in lines)


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 2: 'a\.png' and 'a\.jpg' are two images of one"):
        ids_of(tmp_path, "a.jpg\na.png\n")


LABELS = st.dictionaries(
    st.from_regex(r"[a-z0-9_]{1,6}( [a-z]{1,3})?", fullmatch=True),
    st.sampled_from([1, -1, 0]),
    min_size=1,
    max_size=8,
)
SIGNS = {1: ["1", "+1"], -1: ["-1"], 0: ["0"]}


@given(LABELS, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_labels_are_the_same_however_they_are_written(
    tmp_path: Path, labels: dict[str, int], data: st.DataObject
) -> None:
    lines = []
    for image in data.draw(st.permutations(sorted(labels))):
        blank = data.draw(st.sampled_from([" ", "  ", "\t", " \t "]))
        ending = data.draw(st.sampled_from(["", ".jpg", ".PNG"]))
        line = image + ending + blank + data.draw(st.sampled_from(SIGNS[labels[image]]))
        lines += [line] * data.draw(st.integers(1, 2))
    newline = data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    path = written(tmp_path, newline.join(lines).encode(encoding))
    notes = Notes()
    found = read_labels(path, dict.fromkeys(labels, ""), notes)
    assert found.tolist() == list(labels.values())
    assert len(notes.lines()) == (len(lines) > len(labels))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb\n", "line 2: 'b'. Expected 2 columns"),
        ("a 1\nb,1\n", "line 2: 'b,1'. Expected 2 columns"),
        ("a 1\nb 2\n", "line 2: label '2'. Expected 1, -1, or 0"),
        ("a 1\nb \u22121\n", "line 2: label '\u22121'"),
        ("a 1\nb 1\na -1\n", "line 3: 'a' has the label -1, and 1 in line 1"),
        ("a 1\n", "lists 1 images. Expected the 2 of the part's own list: 'b' is missing"),
        ("a 1\nb 1\nc 0\n", "lists 3 images. Expected the 2 .* 'c' is not of the part"),
    ],
)
def test_a_class_s_list_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_labels(written(tmp_path, text), {"a": "", "b": ""}, Notes())


def paths_of(folder: Path, ids: dict[str, str], files: Sequence[str]) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).touch()
    notes = Notes()
    found = image_paths(folder, ids, notes, images=True, named_by="The lists")
    other = [i for i, path in found.items() if ids[i] not in {"", path.suffix}]
    assert [line.partition(", the first")[0] for line in notes.lines()] == [
        f"{len(other)} images have another ending than a list writes"
    ] * bool(other)
    return {image: path.name for image, path in found.items()}


@pytest.mark.parametrize("suffix", sorted({*SUFFIXES, ".JPG", ".Png"}))
def test_an_image_may_have_any_ending_that_folders_are_read_with(
    tmp_path: Path, suffix: str
) -> None:
    files = [f"a.b{suffix}", f"._a.b{suffix}", "a.b.txt", "a.xml"]
    assert paths_of(tmp_path / "i", {"a.b": ""}, files) == {"a.b": f"a.b{suffix}"}


def test_two_files_of_an_id_are_refused_unless_the_list_says_which(tmp_path: Path) -> None:
    files = ["a.jpg", "a.png", "b.gif"]
    with pytest.raises(DatasetError, match=r"a\.jpg' and '.*a\.png' are 2 files of the image 'a'"):
        paths_of(tmp_path / "i", {"a": ""}, files)
    assert paths_of(tmp_path / "i", {"a": ".png"}, files) == {"a": "a.png"}
    assert paths_of(tmp_path / "i", {"b": ".jpg"}, files) == {"b": "b.gif"}  # converted since


def test_absent_images_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"The lists name 'b', but .* 2 of 3 images are absent"):
        paths_of(tmp_path / "i", {"a": "", "b": "", "c": ".jpg"}, ["a.jpg"])
