"""What is told of images that were read, and of rows that are the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import photo
from tests.support.store_writer import make_plan, make_rows
from vggfeat.cli import main
from vggfeat.extraction import remarks
from vggfeat.extraction.remarks import Remarks, alike, tell_alike
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.writer import ShardFolder


def store_of(folder: Path, copies: dict[int, int], same_file: Sequence[int] = ()) -> Path:
    """A store of 8 rows, some of which have the descriptor of another; some its bytes too."""
    plan = make_plan(rows=8, shard_rows=8)
    rows = make_rows(plan, 0)
    for row, other in copies.items():
        rows.descriptors[row], rows.norms[row] = rows.descriptors[other], rows.norms[other]
    for row in same_file:
        rows.image_sha256[row] = rows.image_sha256[copies[row]]
    rows.norms[7] = rows.norms[6]  # equal norms alone are no equal rows
    shards = ShardFolder(folder, plan)
    shards.commit(0, replace(rows), {})
    return shards.assemble()


@pytest.mark.parametrize(
    ("copies", "same_file", "expected"),
    [
        ({}, (), []),
        ({3: 1}, (), [[1, 3]]),
        ({3: 1}, (3,), []),  # one file twice is one row twice
        ({3: 1, 4: 1}, (3,), [[1, 4]]),
        ({3: 1, 5: 1, 4: 2}, (), [[1, 3, 5], [2, 4]]),
        (dict.fromkeys(range(1, 8), 0), (), [[*range(8)]]),
    ],
)
def test_rows_that_are_equal_are_found_and_told(
    tmp_path: Path,
    copies: dict[int, int],
    same_file: Sequence[int],
    expected: list[list[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "vggfeat")
    with DescriptorStore.open(store_of(tmp_path / "s", copies, same_file)) as store:
        assert sorted(alike(store)) == [[store.ids[row] for row in group] for group in expected]
        tell_alike(store)
    if not expected:
        assert caplog.text == ""
        return
    count = sum(map(len, expected))
    first, second = (f"img/{row:05d}ü.jpg" for row in expected[0][:2])
    assert f"the first are '{first}' and '{second}'" in caplog.text
    assert ("all 8 images" if count == 8 else f"{count} of 8 images") in caplog.text


def test_a_remark_is_one_line_with_its_count_and_the_first_by_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Remarks()
    told.add("b.png", {remarks.MISNAMED: "JPEG", remarks.ONE_COLOUR: ""})
    told.add("a.png", {remarks.MISNAMED: "WEBP"})
    told.add("c.png", {})
    told.tell()
    assert caplog.messages == [
        "2 images are of another format than their names say, the first is 'a.png' (WEBP); they "
        "are read as what they are",
        "1 images are of one colour throughout, the first is 'b.png'; images of the same colour "
        "have the same descriptor",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    told.tell()
    assert len(caplog.messages) == 2


def test_extract_tells_all_of_it_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for k in range(2):
        drawing = np.zeros((80, 80, 4), np.uint8)
        drawing[10:40, 10 + k : 40] = (0, 0, 0, 255)
        Image.fromarray(drawing).save(f"photos/black{k}.png")
    dim = photo(80, 80, seed=1)[:, :, 0].astype(np.uint16)
    Image.fromarray(dim).save("photos/dim.tif")
    Image.fromarray(photo(80, 80, seed=2)).save("photos/really.jpg", "PNG")
    command = "extract --model vgg16-thin --weights random:0 --scales 224 --no-mirror"
    done = CliRunner().invoke(main, [*command.split(), "--dataset", "folder:photos"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    assert "2 images are of one colour once their transparent pixels" in said
    assert "2 of 4 images have the same descriptor as another of other bytes" in said
    assert f"the first is 'dim.tif' (at most {dim.max()})" in said
    assert "the first is 'really.jpg' (PNG)" in said
