from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA

from tests.cli.test_commands import check_refused, run
from tests.support.small_store import photos, small_store
from vggfeat.errors import InputError
from vggfeat.looking import page
from vggfeat.looking.projection import principal_components, project
from vggfeat.looking.view import open_view
from vggfeat.recipe import Machine
from vggfeat.watch import Watch


@pytest.fixture
def call() -> CliRunner:
    return CliRunner()


class Blocks:
    """Rows that are read again in every pass."""

    def __init__(self, x: npt.NDArray[np.float64]) -> None:
        self.x = x
        self.passes: list[str] = []

    def __call__(self, title: str) -> Iterator[npt.NDArray[np.float64]]:
        self.passes.append(title)
        yield from (self.x[start : start + 64] for start in range(0, len(self.x), 64))


def rows(n: int, size: int, rank: int, seed: int = 0) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(seed)
    x: npt.NDArray[np.float64] = random.normal(size=(n, rank)) @ random.normal(size=(rank, size))
    return x + 5


@pytest.mark.parametrize(
    ("n", "size", "rank"), [(300, 60, 60), (40, 200, 200), (5, 100, 100), (200, 64, 2), (4, 2, 2)]
)
def test_components_are_those_of_scikit_learn(n: int, size: int, rank: int) -> None:
    x = rows(n, size, rank)
    points, components, shares = principal_components(Blocks(x))
    reference = PCA(2, svd_solver="full").fit(x)
    assert components == pytest.approx(reference.components_, abs=1e-9)
    assert points == pytest.approx(reference.transform(x), abs=1e-7)
    assert shares == pytest.approx(reference.explained_variance_ratio_, abs=1e-12)


def test_components_are_the_same_again_and_need_few_passes() -> None:
    x = rows(500, 128, 128)
    blocks = Blocks(x)
    first, second = principal_components(blocks), principal_components(Blocks(x.copy()))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    assert blocks.passes[0] == "mean"
    assert blocks.passes[-1] == "place"
    assert len(blocks.passes) < 12


def test_points_on_a_line_have_one_component() -> None:
    points, _, shares = principal_components(Blocks(rows(90, 30, 1)))
    assert shares == pytest.approx([1, 0], abs=1e-12)
    assert np.abs(points[:, 1]).max() < 1e-7


def test_equal_descriptors_have_no_map() -> None:
    with pytest.raises(InputError, match="descriptors of all images are equal"):
        principal_components(Blocks(np.full((9, 5), 0.3)))


def test_the_map_of_a_store_is_that_of_its_joined_descriptors(store: Path) -> None:
    raw, ids = photos()
    with open_view(store, {"dataset": "folder:photos"}, Machine()) as view:
        found = project(view, "pca", Watch())
    sound = [row for row in range(40) if row != 9]
    x = raw[sound].reshape(39, 20)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    reference = PCA(2, svd_solver="full").fit(x / np.where(norms > 0, norms, 1))
    assert found.ids == tuple(ids[row] for row in sound)
    assert found.left_out == (ids[9],)
    expected = reference.transform(x / np.where(norms > 0, norms, 1))
    assert found.points == pytest.approx(expected, abs=1e-5)  # the store has float32
    assert found.explained == pytest.approx(tuple(reference.explained_variance_ratio_), abs=1e-6)
    assert found.classes[0] == ("cat",)


def test_the_command_writes_a_page_or_prints_coordinates(
    store: Path, call: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (str(store), "--dataset", "folder:photos")
    done = run(call, "map", *options)
    path = Path("results") / f"{store.parent.name}-map.html"
    assert done.stdout == f"{path}\n"
    said = re.search(r"explain: ([\d.]+) % and ([\d.]+) %, together", done.stderr)
    text = path.read_text()
    assert said is not None
    assert f"component 1: {said[1]} % of the variance" in text
    assert "Left out as unreadable: 1, the first is cat/" in text
    assert text.count('class="ink0') == 2  # of the legend and of the plot: cat
    assert text.count('class="ink1') == 2  # dog
    assert "<script" not in text
    path.unlink()
    record = json.loads(run(call, "map", *options, "--json").stdout)
    assert not path.exists()
    assert record["method"] == "pca"
    assert record["aggregate"] == "stack"
    assert len(record["images"]) == 39
    assert set(record["images"][0]) == {"image", "x", "y", "classes"}
    assert sum(record["explained_variance"]) == pytest.approx(
        (float(said[1]) + float(said[2])) / 100, abs=1e-3
    )


def test_many_classes_have_a_plot_each(
    tmp_path: Path, call: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_INKS", 2)
    monkeypatch.setattr(page, "_MARKS", 2)
    raw, _ = photos(42)
    store = small_store(tmp_path, raw, [f"class{n % 6}/{n:02d}.jpg" for n in range(42)])
    run(call, "map", str(store), "--dataset", "folder:x", "--output", str(tmp_path / "m.html"))
    text = (tmp_path / "m.html").read_text()
    assert "6 classes are too many to tell by their colours" in text
    assert text.count("<figure>") == text.count('<use href="#cloud"/>') == 6
    assert text.count("<image ") == 1
    assert "<b>class3</b> <span>6 images</span>" in text  # row 9, unreadable, is its seventh


def test_umap_is_an_extra(
    store: Path, call: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    said = ("takes the package umap-learn", "pip install 'vggfeat[map]'", "--method pca")
    check_refused(call, ["map", str(store), "--method", "umap"], *said)
    asked: list[dict[str, Any]] = []

    class Stand:
        """In the place of the package, which the tests do not need."""

        def __init__(self, **settings: Any) -> None:  # noqa: ANN401
            asked.append(settings)

        def fit_transform(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            assert x.shape == (39, 20)
            assert x.dtype == np.float32
            return x[:, :2]

    stand = ModuleType("umap")
    stand.UMAP = Stand  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", stand)
    output = str(tmp_path / "m.html")
    done = run(call, "map", str(store), "--method", "umap", "--json", "--output", output)
    assert json.loads(done.stdout)["explained_variance"] is None
    assert asked == [{"n_neighbors": 15, "metric": "cosine", "random_state": 0, "n_jobs": 1}]
    assert "UMAP 1" in Path(output).read_text()


@pytest.mark.slow
def test_umap_itself_keeps_two_groups_apart(tmp_path: Path) -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed")
    random = np.random.default_rng(0)
    raw = np.abs(random.normal(size=(60, 1, 8))) * 0.1
    raw[:30, 0, 0] += 3
    raw[30:, 0, 7] += 3
    store = small_store(tmp_path, raw, [f"{n:02d}.jpg" for n in range(60)])
    with open_view(store, {}, Machine()) as view:
        points = project(view, "umap", Watch()).points
    centres = points[:30].mean(axis=0), points[30:].mean(axis=0)
    apart = np.linalg.norm(centres[0] - centres[1])
    assert apart > 4 * max(points[:30].std(axis=0).max(), points[30:].std(axis=0).max())


def test_two_images_make_no_map(tmp_path: Path, call: CliRunner) -> None:
    raw, _ = photos()
    store = small_store(tmp_path, raw[8:11], ["a.jpg", "b.jpg", "c.jpg"])
    check_refused(call, ["map", str(store)], "has 2 readable images", "three or more")
