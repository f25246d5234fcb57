"""Every recipe of `pipelines/`, run to its end on small data sets in true layout."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import photo
from tests.data.test_action import annotation
from vggfeat.cli import main
from vggfeat.data import caltech
from vggfeat.data.action import ACTIONS
from vggfeat.data.voc import CLASSES
from vggfeat.recipe import Recipe
from vggfeat.report.result import Result

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
REAL = sorted((PIPELINES / "real").rglob("*.toml"))  # whose images and weights nobody can fetch
RECIPES = sorted(
    set(PIPELINES.rglob("*.toml")) - set((PIPELINES / "examples").iterdir()) - set(REAL)
)
RESULTS = PIPELINES.parent / "results"
EACH = 10  # images of a part
CLASSES_OF = {"voc2007": 20, "voc2012": 20, "voc2012-action": 10, "caltech101": 3, "caltech256": 3}


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(70, 93, seed=seed)).save(path)


def write_lists(
    folder: Path, part: str, names: Sequence[str], rows: Sequence[str], *, labels: bool
) -> None:
    """Write a part's lists: each class is shown by every fifth row; one other row is difficult."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.txt").write_text("".join(f"{row.split()[0]}\n" for row in rows))
    for k, name in enumerate(names if labels else ()):
        signs = [1 if (i + k) % 5 == 0 else -1 for i in range(len(rows))]
        if "Main" in folder.parts:
            signs[(k + 1) % len(rows)] = min(signs[(k + 1) % len(rows)], 0)
        lines = (f"{row} {sign:2d}\n" for row, sign in zip(rows, signs, strict=True))
        (folder / f"{name}_{part}.txt").write_text("".join(lines))


def write_voc(root: Path, year: str, *, test_labels: bool) -> None:
    home = root / "VOCdevkit" / f"VOC{year}"
    for p, part in enumerate(("train", "val", "test")):
        ids = [f"{year}_{p}{n:05d}" for n in range(EACH)]
        for n, image in enumerate(ids):
            write_image(home / "JPEGImages" / f"{image}.jpg", seed=100 * p + n)
        write_lists(
            home / "ImageSets" / "Main", part, CLASSES, ids, labels=test_labels or part != "test"
        )


def write_actions(root: Path) -> None:
    home = root / "VOCdevkit" / "VOC2012"
    (home / "Annotations").mkdir(parents=True)
    for p, part in enumerate(("train", "val", "test")):
        ids = [f"2012_{p}{n:05d}" for n in range(EACH)]
        for n, image in enumerate(ids):
            box = [str(v) for v in (1 + n, 2, 60 + n, 64)]
            text = annotation([("dog", ("1", "1", "9", "9")), ("person", box)])
            (home / "Annotations" / f"{image}.xml").write_text(text)
        rows = [f"{image} 2" for image in ids]
        write_lists(
            home / "ImageSets" / "Action", part, ("other", *ACTIONS), rows, labels=part != "test"
        )


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_voc(root, "2007", test_labels=True)
    write_voc(root, "2012", test_labels=False)
    write_actions(root)
    for name in ("101", "256"):
        for k, label in enumerate(("ant", "bee", "cat")):
            for n in range(8):
                path = root / f"{name}_ObjectCategories" / label / f"image_{n:04d}.jpg"
                write_image(path, seed=10 * k + n)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where stores and results of all recipes stand together, as a user has them."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def call(
    data_root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    for name, protocol in caltech._PROTOCOLS.items():
        test = None if protocol.test is None else 2
        small = replace(protocol, classes=3, train=5, test=test)
        monkeypatch.setitem(caltech._PROTOCOLS, name, small)
    monkeypatch.chdir(home)

    def command(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, [*words], env={"VGGFEAT_DATA_ROOT": str(data_root)})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return command


def thin(path: Path) -> list[str]:
    """Return the options that put thin nets, random weights and small scales into a recipe."""
    models = [f"{m.removesuffix('-thin')}-thin" for m in Recipe.from_toml(path).models]
    scales = "224" if "scales-256.toml" in path.name else "224,256"
    return [
        *(word for model in models for word in ("--model", model)),
        *("--weights", "random:0", "--scales", scales),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_runs_to_its_end(path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    recipe = Recipe.from_toml(path)
    code, out, _ = call("run", str(path), *thin(path), "--dry-run", "--json")
    foreseen = json.loads(out)
    assert code == 0
    assert [one["region"] for one in foreseen] == [which.region for which in recipe.described]
    assert all(one["rows"] in {20, 24, 30} and not one["fetches"] for one in foreseen)
    code, _, told = call("run", str(path), *thin(path))
    assert code == 0, told
    result = Result.read(Path("results") / f"{recipe.name}.json")
    data = recipe.dataset.removesuffix("-val")
    assert len(result.classes) == CLASSES_OF[data]
    sizes = [store.recipe.get("region", "image") for store in result.stores]
    assert sizes == [which.region for which in recipe.described]
    stacked = len(result.recipe.scales) if recipe.aggregate == "stack" else 1
    assert result.descriptor_size == 512 * len(recipe.described) * stacked
    if recipe.dataset in {"voc2012", "voc2012-action"}:
        assert result.score is None  # the labels of test are not public
    else:
        assert result.score is not None
        assert 0 < result.score <= 1
    assert len(result.splits) == (3 if recipe.dataset.startswith("caltech") else 1)
    assert (Path("results") / f"{recipe.name}.html").stat().st_size > 10_000
    [again] = json.loads(call("run", str(path), *thin(path), "--dry-run", "--json")[1])[:1]
    assert again["complete"]


@pytest.mark.slow
def test_the_tables_of_all_recipes_are_complete_and_the_same_again(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    for path in RECIPES:  # those that the tests before have not run, if this one runs alone
        if not (Path("results") / f"{path.stem}.json").exists():
            assert call("run", str(path), *thin(path))[0] == 0
    rows = list(csv.DictReader(io.StringIO(call("tables", "all", "--format", "csv")[1])))
    runs = [row for row in rows if row["table"] == "imitations" or row["question"]]
    shown = {row["result"]: row for row in runs}
    assert len(shown) == len(runs)
    assert set(shown) == {path.stem for path in RECIPES}
    for path in RECIPES:
        recipe, row = Recipe.from_toml(path), shown[path.stem]
        result = Result.read(Path("results") / f"{path.stem}.json")
        assert row["weights"] == "random:0"
        if result.score is None:
            assert (row["score"], row["difference"]) == ("", "")
            continue
        assert float(row["score"]) == pytest.approx(100 * result.score, abs=0.051)
        if recipe.paper:
            assert (row["published"], row["difference"]) == ("", "")
            assert "random" in row["substitutes"]
        else:
            assert recipe.ablation is not None
            base = Result.read(Path("results") / f"{recipe.ablation.base}.json")
            assert base.score is not None
            assert float(row["difference"]) == pytest.approx(
                100 * (result.score - base.score), abs=0.051
            )
            assert (row["question"], row["answer"]) == (
                recipe.ablation.question,
                recipe.ablation.answer,
            )
        assert 0 <= float(row["interval_low"]) <= float(row["interval_high"]) <= 100
        assert float(row["chance"]) > 0
    for form in ("markdown", "latex", "csv", "html"):
        first, again = (call("tables", "all", "--format", form)[1] for _ in range(2))
        assert first == again
        escaped = "voc2007-vgg16-tap-fc7-linear", "caltech101-vgg16-thin-vgg19-thin"
        assert all(name in first for name in escaped)
    for _ in range(2):
        for path in Path("results").glob("*.json"):
            path.touch()  # other times, and another order in the folder, change nothing
        call("tables", "all", "--output", "results/TABLES.md")
        assert Path("results/TABLES.md").read_text() == call("tables")[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_named_as_its_file_and_weighs_what_the_paper_says(path: Path) -> None:
    recipe = Recipe.from_toml(path)
    assert recipe.name == path.stem
    assert (recipe.paper is None) == (recipe.ablation is not None)
    if recipe.ablation:
        base = Recipe.from_toml(PIPELINES / f"{recipe.ablation.base}.toml")
        changed = {k for k, v in recipe.canonical().items() if base.canonical()[k] != v}
        assert changed == {recipe.ablation.question}
    # App. B: five scales averaged for VOC, three stacked for Caltech
    voc = recipe.dataset.startswith("voc")
    if recipe.paper:
        assert recipe.scales == ((256, 384, 512, 640, 768) if voc else (256, 384, 512))
        assert recipe.aggregate == ("average" if voc else "stack")
        assert set(recipe.weights) == ({"random:0"} if "thin" in path.parts else {"oxford"})


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_a_recipe_of_a_real_net_is_named_as_its_file(path: Path) -> None:
    recipe = Recipe.from_toml(path)
    assert recipe.name == path.stem
    assert recipe.profile == "oxford-bgr"
    assert set(recipe.weights) <= {"weights/vgg19-8bit.pth", "weights/vgg16-trunk.npz"}
    assert all(recipe.last_layer(m) == "pool5" for m in recipe.models if m == "vgg16")
    if recipe.ablation:
        base = Recipe.from_toml(PIPELINES / "real" / f"{recipe.ablation.base}.toml")
        changed = {k for k, v in recipe.canonical().items() if base.canonical()[k] != v}
        assert changed == {recipe.ablation.question}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_a_committed_result_is_that_of_its_recipe(path: Path) -> None:
    result = Result.read(path)
    [recipe] = [Recipe.from_toml(own) for own in (*RECIPES, *REAL) if own.stem == path.stem]
    assert result.recipe.canonical() == recipe.canonical()
    assert (RESULTS / f"{path.stem}.html").is_file()


def test_every_cell_of_the_two_tables_has_its_recipe() -> None:
    cells = {
        (r.paper.table, r.paper.column, r.paper.row)
        for r in map(Recipe.from_toml, PIPELINES.glob("*.toml"))
        if r.paper and not r.dataset.endswith("-val")
    }
    recall = "mean class recall"
    columns = ("VOC-2007 mAP", "VOC-2012 mAP", f"Caltech-101 {recall}", f"Caltech-256 {recall}")
    rows = ("VGG Net-D (16)", "VGG Net-E (19)", "VGG Net-D & Net-E")
    expected = {(11, column, row) for column in columns for row in rows}
    fusion = "VGG Net-D & Net-E, "
    expected |= {
        (12, "VOC-2012 action mAP", fusion + how)
        for how in ("image-only", "image and bounding box")
    }
    assert cells == expected


def test_of_several_recipes_one_that_fails_does_not_stop_the_others(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    bad, good = tmp_path / "bad.toml", tmp_path / "good.toml"
    bad.write_text('dataset = "folder:nowhere"\nmodels = ["vgg16-thin"]\nweights = ["random:0"]\n')
    good.write_text(
        'dataset = "voc2007"\nmodels = ["vgg16-thin"]\nweights = ["random:0"]\nscales = [224]\n'
    )
    code, out, told = call("run", str(bad), str(good), "--dry-run")
    assert code == 1
    assert "30 images" in out
    assert f"vggfeat: '{bad}': " in told
    assert "1 of 2 recipes failed" in told
