from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.cli.test_commands import check_refused, run
from tests.conftest import photo
from tests.support.small_store import photos, small_store
from vggfeat.errors import WeightsError
from vggfeat.extraction.workers import extract
from vggfeat.looking import similar as looking
from vggfeat.looking.similar import agreement, nearest, similar
from vggfeat.looking.view import open_view
from vggfeat.recipe import Machine, Recipe
from vggfeat.watch import Watch

LABELLED = {"dataset": "folder:photos"}


@pytest.fixture
def call() -> CliRunner:
    return CliRunner()


def joined(raw: npt.NDArray[np.float64], how: str) -> npt.NDArray[np.float64]:
    """The rows of App. B in float64, slowly."""
    rows = []
    for scales in raw:
        if how == "stack":
            row = np.concatenate([*scales])
        else:
            row = scales.max(axis=0) if how == "max" else scales.mean(axis=0)
        norm = np.sqrt(sum(value**2 for value in row))
        rows.append(row / norm if norm > 0 else row)
    return np.array(rows)


def brute_force(x: npt.NDArray[np.float64], query: int, top: int) -> list[tuple[int, float]]:
    """Row and cosine of the nearest; 12 digits, since another order of sums has other last ones."""
    cosines = {
        row: sum(a * b for a, b in zip(x[row].tolist(), x[query].tolist(), strict=True))
        for row in range(len(x))
        if row != query and not np.isnan(x[row]).any() and x[row].any()
    }
    return sorted(cosines.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:top]


@pytest.mark.parametrize("block", [1, 3, 64])
def test_the_nearest_rows_are_those_of_a_brute_force_search(block: int) -> None:
    random = np.random.default_rng(block)
    values = random.normal(size=(50, 7))
    values[[3, 20, 41]] = values[11]  # equal rows, in three blocks
    values[17], values[30] = np.nan, 0
    x = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)).astype(
        np.float32
    )
    blocks = [(slice(s, min(s + block, 50)), x[s : s + block]) for s in range(0, 50, block)]
    queries = np.array([0, 3, 11, 49])
    exact = x.astype(np.float64)
    rows, cosines = nearest(blocks, exact[queries], queries, 6)
    for q, query in enumerate(queries):
        expected = brute_force(exact, query, 6)
        assert rows[q].tolist() == [row for row, _ in expected]
        assert cosines[q] == pytest.approx([cosine for _, cosine in expected], abs=1e-14)
    assert rows[2][:3].tolist() == [3, 20, 41]  # ties: the order of the rows
    assert len({*cosines[2][:3].tolist()}) == 1


def test_there_may_be_fewer_rows_than_neighbours() -> None:
    x = np.eye(3, dtype=np.float32)
    rows, cosines = nearest([(slice(0, 3), x)], x.astype(np.float64)[:1], np.array([0]), 5)
    assert rows.tolist() == [[1, 2, -1, -1, -1]]
    assert cosines[0, :2].tolist() == [0, 0]
    assert np.isnan(cosines[0, 2:]).all()


@pytest.mark.parametrize("how", ["stack", "average", "max"])
def test_neighbours_are_of_the_joined_scales(
    store: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_AT_ONCE", 7)
    raw, ids = photos()
    x = joined(raw, how)
    with open_view(store, {"aggregate": how}, Machine()) as view:
        found = similar(view, [], 4, Machine(), Watch())
    assert [query.id for query in found] == ids
    for row, query in enumerate(found):
        if row in (9, 12):
            continue
        expected = brute_force(x, row, 4)
        assert [one.row for one in query.neighbours] == [other for other, _ in expected]
        near = [one.cosine for one in query.neighbours]
        assert near == pytest.approx([cosine for _, cosine in expected], abs=2e-7)  # float32 rows


def test_what_has_no_direction_has_no_neighbours_and_is_nobodys(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, ids = photos()
    with open_view(store, {}, Machine()) as view:
        found = {query.id: query for query in similar(view, [], 50, Machine(), Watch())}
    lost, zero = found[ids[9]], found[ids[12]]
    assert (lost.note, lost.neighbours) == ("unreadable: it is empty", ())
    assert (zero.note, zero.neighbours) == ("its descriptor is zero, which has no cosine", ())
    assert {len(query.neighbours) for query in found.values()} == {0, 37}
    assert f"1 of 40 images are unreadable and left out, the first is {ids[9]!r}" in caplog.text
    assert f"1 of 40 descriptors are zero and left out, the first is that of {ids[12]!r}" in (
        caplog.text
    )


def test_copies_are_marked_and_come_first(store: Path) -> None:
    _, ids = photos()
    with open_view(store, LABELLED, Machine()) as view:
        [query] = similar(view, [ids[2]], 3, Machine(), Watch())
    notes = [(one.id, one.note) for one in query.neighbours]
    assert notes[:2] == [(ids[6], "the same file"), (ids[30], "the same file")]
    assert [one.classes for one in query.neighbours[:2]] == [("cat",), ("dog",)]
    assert query.neighbours[0].cosine == query.neighbours[1].cosine == pytest.approx(1, abs=1e-6)
    assert query.agrees


def test_how_often_the_nearest_is_of_the_same_class(store: Path) -> None:
    raw, ids = photos()
    x, of_class = joined(raw, "stack"), [i.partition("/")[0] for i in ids]
    expected = [
        of_class[brute_force(x, row, 1)[0][0]] == of_class[row]
        for row in range(40)
        if row not in (9, 12)
    ]
    with open_view(store, LABELLED, Machine()) as view:
        assert agreement(similar(view, [], 1, Machine(), Watch())) == (sum(expected), 38)
    with open_view(store, {}, Machine()) as view:
        assert agreement(similar(view, [], 1, Machine(), Watch())) == (0, 0)  # classes not known


def test_the_command_prints_a_table_or_json(store: Path, call: CliRunner) -> None:
    _, ids = photos()
    done = run(call, "similar", str(store), ids[2], ids[12], "--top", "2")
    header, first, second, third = done.stdout.splitlines()
    assert header.split() == ["image", "rank", "cosine", "neighbour", "classes", "note"]
    assert first.split() == [ids[2], "1", "1.000000", ids[6], "the", "same", "file"]
    assert second.split()[:4] == [ids[2], "2", "1.000000", ids[30]]
    assert third.startswith(ids[12])
    assert third.endswith("  its descriptor is zero, which has no cosine")
    done = run(call, "similar", str(store.parent), ids[2], "--dataset", "folder:photos", "--json")
    [record] = json.loads(done.stdout)
    assert (record["image"], record["in_store"], record["classes"]) == (ids[2], True, ["cat"])
    assert len(record["neighbours"]) == 10
    assert record["neighbours"][1] == {
        "rank": 2,
        "image": ids[30],
        "row": 30,
        "cosine": record["neighbours"][0]["cosine"],
        "classes": ["dog"],
        "same_bytes": True,
        "nearly_the_same": True,
    }
    assert "shares a class with its image: 1 of 1 (100.0 %)" in done.stderr


def test_what_cannot_be_is_refused(store: Path, call: CliRunner, tmp_path: Path) -> None:
    path = str(store)
    said = ("'cat/99.jpg' is no image of", "nor a file", "The nearest ids of the store: cat/")
    check_refused(call, ["similar", path, "cat/99.jpg"], *said)
    check_refused(call, ["similar", path, "--top", "0"], "--top 0.", "1 or more")
    check_refused(call, ["similar", str(tmp_path), "x"], "No complete store at")
    check_refused(call, ["similar", path, "--scales", "512"], "has the scales (256, 384), not 512")
    check_refused(call, ["similar", path, "--dataset", "caltech101"], "caltech101 has 2 classes")


def test_a_store_is_labelled_by_the_name_of_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    raw, ids = photos()
    for slug, named in (("caltech101", "caltech101"), ("folder-x-123456", "not named after")):
        path = small_store(tmp_path, raw, ids, slug)
        with open_view(path, {}, Machine()) as view:
            assert view.classes == {}
        assert f"no classes{' of' if slug == named else ': the store'}" in caplog.text
        assert named in caplog.text
    path = small_store(tmp_path, raw, ids, "voc-devkit-123456")
    with open_view(path, {}, Machine()) as view:
        assert view.recipe.aggregate == "average"  # of trees in VOC's layout


def test_the_page_shows_images_and_neighbours(
    store: Path, call: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, ids = photos()
    for seed, i in enumerate(ids):
        (tmp_path / "photos" / i).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40, 60, seed)).save(tmp_path / "photos" / i)
    done = run(call, "similar", str(store), "--dataset", "folder:photos", "--output", "p/near.html")
    assert done.stdout == "p/near.html\n"
    page = Path("p/near.html").read_text()
    assert "shows the first 24 images that were asked for, and leaves out 16" in page
    assert page.count('<section class="query"') == 24
    assert page.count("<image ") == 38  # each picture once, but of the two that are nobody's
    assert "unreadable: it is empty" in page
    assert "✓ 1.0000" in page
    assert str(tmp_path) not in page


def test_a_page_without_images_has_no_pictures(
    store: Path, call: CliRunner, tmp_path: Path
) -> None:
    page = tmp_path / "near.html"
    run(call, "similar", str(store), "cat/00.jpg", "--top", "3", "--output", str(page))
    assert "<image " not in page.read_text()
    assert "no picture" not in page.read_text()
    assert page.read_text().count('<figure class="shot') == 4


@pytest.mark.slow
def test_new_images_are_described_as_the_stores_are(
    tmp_path: Path, call: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        path = tmp_path / "flat" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photo(90, 120, seed)).save(path)
    values = {"dataset": "folder:flat", "models": ["vgg16-thin"], "weights": ["random:3"]}
    machine = Machine(cache=tmp_path / "features", workers=1)
    [store] = extract(Recipe.build({**values, "scales": [224, 256]}, "a test"), machine, Watch())
    Image.fromarray(photo(90, 120, 2)[:, ::-1]).save(tmp_path / "mirrored.png")
    Image.open(tmp_path / "flat" / "1.png").save(tmp_path / "again.bmp")
    with open_view(store, {}, machine) as view:
        found = similar(view, ["mirrored.png", "3.png", "again.bmp"], 2, machine, Watch())
        assert [query.id for query in found] == ["mirrored.png", "3.png", "again.bmp"]
        assert [query.stored for query in found] == [False, True, False]
        nearest_ones = [query.neighbours[0] for query in found]
        assert (nearest_ones[0].id, nearest_ones[0].note) == ("2.png", "nearly the same")
        assert (nearest_ones[2].id, nearest_ones[2].note) == ("1.png", "nearly the same")
        assert nearest_ones[2].cosine == pytest.approx(1, abs=1e-6)
        assert found[1].neighbours[0].id != "3.png"
        with pytest.raises(WeightsError, match=r"was made with other weights of vgg16-thin"):
            similar(view, ["again.bmp"], 2, machine, Watch(), "random:4")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = run(call, "similar", str(store), "broken.jpg", "flat", "--json")
    broken, *others = json.loads(done.stdout)
    assert broken["note"].startswith("unreadable: ")
    assert [one["neighbours"][0]["same_bytes"] for one in others] == [True] * 4
