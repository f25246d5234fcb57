from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.cli.test_commands import check_refused, run
from tests.looking.test_similar import joined
from tests.support.small_store import FINGERPRINT, ROW_RECIPE, photos, small_store
from vggfeat.looking import export as exporting
from vggfeat.looking.export import FORMS, export
from vggfeat.looking.view import open_view
from vggfeat.recipe import Machine
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.rows import Rows
from vggfeat.watch import Watch

LABELLED = ("--dataset", "folder:photos")


@pytest.fixture
def call() -> CliRunner:
    return CliRunner()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 images come in several portions."""
    monkeypatch.setattr(exporting, "READ_AT_ONCE", 16)


def held(store: Path) -> Rows:
    with DescriptorStore.open(store) as opened:
        return opened.read()


def test_npz_gives_the_store_back_bit_by_bit(store: Path, call: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.npz"
    done = run(call, "store", "export", str(store), "--output", str(path), *LABELLED)
    assert done.stdout == f"{path}\n"
    assert "1 of 40 images are unreadable and rows of NaN, the first is 'cat/18" in done.stderr
    rows, (_, ids) = held(store), photos()
    with np.load(path, allow_pickle=False) as file:
        assert file["descriptors"].dtype == np.float32
        assert file["descriptors"].tobytes() == rows.descriptors.tobytes()
        assert file["norms"].tobytes() == rows.norms.tobytes()
        assert file["image_id"].tolist() == ids
        assert file["image_size"].tolist() == rows.image_size.tolist()
        assert file["image_sha256"].tolist() == [d.tobytes().hex() for d in rows.image_sha256]
        assert file["status"].tolist() == rows.status.tolist()
        assert file["scales"].tolist() == [256, 384]
        assert file["labels"].tolist() == [i.partition("/")[0] for i in ids]
        assert str(file["fingerprint"]) == FINGERPRINT
        assert json.loads(str(file["recipe"])) == ROW_RECIPE
        assert json.loads(str(file["joined"])) is None
        assert {file[name].dtype.kind for name in file} == {"U", "f", "i", "u"}


def test_the_same_store_gives_the_same_file(store: Path, call: CliRunner, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.npz" for n in range(2)]
    for path in paths:
        run(call, "store", "export", str(store), "--output", str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("how", ["stack", "average", "max"])
def test_scales_may_be_joined(store: Path, call: CliRunner, tmp_path: Path, how: str) -> None:
    path = tmp_path / "s.npz"
    run(call, "store", "export", str(store), "--output", str(path), "--aggregate", how)
    raw, _ = photos()
    with np.load(path) as file:
        expected = joined(raw, how)
        assert file["descriptors"].shape == expected.shape
        assert file["descriptors"] == pytest.approx(expected, abs=2e-7, nan_ok=True)
        assert json.loads(str(file["joined"])) == {"aggregate": how, "normalise": "after"}
        assert "labels" not in file  # no data set is known


def test_csv_gives_every_number_back(store: Path, call: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    run(call, "store", "export", str(store), "--format", "csv", "--output", str(path), *LABELLED)
    rows, (_, ids) = held(store), photos()
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["image_id"] for row in found] == ids
    assert [row["labels"] for row in found] == [i.partition("/")[0] for i in ids]
    assert [(int(r["height"]), int(r["width"])) for r in found] == [*map(tuple, rows.image_size)]
    assert [bytes.fromhex(row["image_sha256"]) for row in found] == [
        d.tobytes() for d in rows.image_sha256
    ]
    assert [int(row["status"]) for row in found] == rows.status.tolist()
    for s, q in enumerate((256, 384)):
        norms = np.array([row[f"norm_{q}"] for row in found]).astype(np.float32)
        values = [[row[f"d{q}_{k}"] for k in range(10)] for row in found]
        assert np.array_equal(norms, rows.norms[:, s], equal_nan=True)
        assert np.array_equal(
            np.array(values).astype(np.float32), rows.descriptors[:, s], equal_nan=True
        )
    assert len(found[0]) == 6 + 2 + 20


def test_csv_quotes_what_a_name_may_hold(tmp_path: Path, call: CliRunner) -> None:
    raw, _ = photos()
    ids = ['a "b", c/1.jpg', "d\ne/2.jpg", "é/3.jpg"]
    store, path = small_store(tmp_path, raw[:3], ids), tmp_path / "s.csv"
    options = ("--format", "csv", "--aggregate", "average", "--scales", "384")
    run(call, "store", "export", str(store), "--output", str(path), *options)
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header[-12:] == ["width", "norm_384", *(f"d{k}" for k in range(10))]
    assert [line[0] for line in lines] == ids
    assert np.array([line[-10:] for line in lines]).astype(float) == pytest.approx(
        joined(raw[:3, 1:], "average"), abs=2e-7
    )


def test_labels_of_several_classes_stand_side_by_side(store: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.csv"
    _, ids = photos()
    lines = [f'"{i}",cat|dog' if n == 3 else f'"{i}",dog' for n, i in enumerate(ids)]
    names.write_text("\n".join(["path,label", *lines]) + "\n")
    with open_view(store, {"dataset": f"csv:{names}"}, Machine()) as view:
        export(view, tmp_path / "s.npz", "npz", joined=False, watch=Watch())
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert file["labels"][2:5].tolist() == ["dog", "cat|dog", "dog"]


def test_a_class_that_cannot_be_written_is_refused(tmp_path: Path, call: CliRunner) -> None:
    raw, _ = photos()
    store = small_store(tmp_path, raw[:4], [f"a|b/{n}.jpg" for n in range(4)])
    options = ["--output", str(tmp_path / "s.npz"), *LABELLED]
    check_refused(call, ["store", "export", str(store), *options], "The class 'a|b' has a '|'")
    assert not (tmp_path / "s.npz").exists()


def test_a_failure_leaves_what_stood_there(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "s.csv"
    path.parent.mkdir()
    path.write_text("before")

    def broken(self: exporting.Exported) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.Exported, "blocks", broken)
    with open_view(store, {}, Machine()) as view, pytest.raises(OSError, match="No space left"):
        export(view, path, "csv", joined=False, watch=Watch())
    assert path.read_text() == "before"
    assert [*path.parent.iterdir()] == [path]


def test_parquet_is_an_extra(
    store: Path, call: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = ("takes the package pyarrow", "pip install 'vggfeat[parquet]'", "npz or csv")
    check_refused(call, ["store", "export", str(store), "--format", "parquet"], *said)
    assert not [*tmp_path.glob("*.parquet")]


@pytest.mark.parametrize("how", [None, "stack"])
def test_parquet_gives_the_store_back(store: Path, tmp_path: Path, how: str | None) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = tmp_path / "s.parquet"
    values = {"dataset": "folder:photos"} | ({"aggregate": how} if how else {})
    with open_view(store, values, Machine()) as view:
        export(view, path, "parquet", joined=how is not None, watch=Watch())
    table, rows = parquet.read_table(path), held(store)
    found = {name: table[name].to_pylist() for name in table.column_names}
    assert found["image_id"] == list(rows.image_id)
    assert found["labels"][0] == "cat"
    assert found["image_size"] == rows.image_size.tolist()
    assert np.array_equal(np.array(found["norms"], np.float32), rows.norms, equal_nan=True)
    values_there = np.array(found["descriptors"], np.float32)
    if how is None:
        assert json.loads(table.schema.metadata[b"descriptor_shape"]) == [2, 10]
        assert values_there.tobytes() == rows.descriptors.tobytes()
    else:
        assert values_there == pytest.approx(joined(photos()[0], how), abs=2e-7, nan_ok=True)


def test_every_form_is_an_option() -> None:
    from vggfeat.cli.looking import store_export

    [option] = [one for one in store_export.params if one.name == "form"]
    assert list(option.type.choices) == list(FORMS)  # type: ignore[attr-defined]
