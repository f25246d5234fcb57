"""A result says of its files what identifies them, and nothing of the machine they were on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import photo
from tests.report.test_html import a_result, one_class
from tests.support import layouts
from vggfeat.cli import main
from vggfeat.data.folder import named_images
from vggfeat.extraction import plan
from vggfeat.extraction.workers import extract
from vggfeat.files.digests import sha256_of
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Machine, Recipe
from vggfeat.report.html import write_page
from vggfeat.report.result import Result
from vggfeat.report.tables import build_tables, read_results
from vggfeat.report.text import result_text
from vggfeat.report.typeset import FORMATS
from vggfeat.store.layout import StorePlan
from vggfeat.transfer.origin import as_run, place_of_run, places, way_upwards
from vggfeat.transfer.predict import open_trained, predict
from vggfeat.transfer.run import evaluate, write, write_report
from vggfeat.version import versions
from vggfeat.watch import Watch


@dataclass(frozen=True)
class Made:
    """A result of absolute paths, all below one folder."""

    folder: Path
    recipe: Recipe
    machine: Machine
    path: Path
    scores: np.ndarray


def make(folder: Path, dataset: str) -> Made:
    """Train on two classes of four images, with weights from a file."""
    for k, name in enumerate(("red", "green")):
        (folder / "photos" / name).mkdir(parents=True)
        for n in range(4):
            pixels = photo(90, 100, seed=n)
            pixels[:, :, k], pixels[:, :, 1 - k] = 255, 0
            Image.fromarray(pixels).save(folder / "photos" / name / f"{n}.png")
    rows = [f"{path},{path.parent.name}" for path in sorted((folder / "photos").glob("*/*.png"))]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    weights = folder / "mine.h5"
    layouts.keras_old(weights, ARCHITECTURES["vgg16-thin"], layouts.thin_truth())
    values = {"models": ["vgg16-thin"], "weights": [str(weights)], "scales": [224], "grid": [1.0]}
    recipe = Recipe.build({**values, "dataset": f"{dataset}", "name": "mine"}, "a test")
    machine = Machine(cache=folder / "features", results=folder / "results", workers=1)
    extract(recipe, machine, Watch())
    evaluation = evaluate(recipe, machine, Watch())
    path = write(evaluation, machine)
    return Made(folder, recipe, machine, path, evaluation.runs[0].fitted.scores)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("secret")
    return make(folder, f"folder:{folder / 'photos'}")


def published(made: Made) -> dict[str, str]:
    """All that others get to read."""
    result = Result.read(made.path)
    done = CliRunner().invoke(main, ["tables", "--results", str(made.path.parent)])
    texts = {form: write(build_tables({"mine": result})) for form, write in FORMATS.items()}
    page = write_report(made.path, made.machine).read_text("utf-8")
    return {
        "json": made.path.read_text(),
        "page": page,
        "terminal": result_text(result),
        "tables": done.stdout,
        **texts,
    }


def test_no_path_of_the_machine_is_published(made: Made) -> None:
    for what, text in published(made).items():
        assert str(made.folder) not in text, what
        assert made.folder.name not in text, what
    assert "<image id=" in published(made)["page"]  # the pictures were found all the same


@pytest.mark.slow
def test_a_list_of_absolute_paths_is_published_by_their_names(tmp_path: Path) -> None:
    made = make(tmp_path / "secret", f"csv:{tmp_path / 'secret' / 'list.csv'}")
    for what, text in published(made).items():
        assert str(tmp_path) not in text, what
    result = Result.read(made.path)
    shown = {example.id for record in result.classes for example in record.best}
    assert shown
    assert all(len(i.partition("/")[0]) == 8 and i.endswith(".png") for i in shown)  # 0.png twice
    assert "<image id=" in published(made)["page"]


def test_names_and_digests_of_the_files_are(made: Made) -> None:
    [store] = Result.read(made.path).stores
    recipe = Result.read(made.path).recipe
    assert (recipe.dataset, recipe.weights) == ("folder:photos", ("mine.h5",))
    assert (store.weights, store.weights_sha256) == ("mine.h5", sha256_of(made.folder / "mine.h5"))
    [folder] = made.machine.cache.iterdir()
    assert store.path == f"{folder.name}/descriptors.h5"
    assert store.manifest_sha256 == StorePlan.read(folder).manifest_sha256
    assert store.weights_rounded_to_bits is None
    page = published(made)["page"]
    for said in ("folder:photos", "mine.h5", store.weights_sha256, str(store.manifest_sha256)):
        assert said in page


def test_the_digest_of_the_images_is_that_of_those_that_are_used(made: Made) -> None:
    whole = Result.read(made.path).stores[0]
    fewer = made.recipe.model_copy(update={"limit": 1})
    [store] = evaluate(fewer, made.machine, Watch()).result.stores
    assert store.fingerprint == whole.fingerprint  # the same store serves
    assert store.images == 3
    assert store.manifest_sha256 != whole.manifest_sha256


@pytest.mark.slow
def test_weights_that_a_file_has_rounded_are_told(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = {**versions(), "weights_rounded_to_bits": 8}
    monkeypatch.setattr(plan, "versions", lambda: rounded)
    values = {"models": ["vgg16-thin"], "weights": ["random:0"], "scales": [224], "grid": [1.0]}
    recipe = Recipe.build({**values, "dataset": f"voc:{tiny_voc}"}, "a test")
    machine = Machine(cache=tmp_path / "features", results=tmp_path / "results", workers=1)
    extract(recipe, machine, Watch())
    result = Result.read(write(evaluate(recipe, machine, Watch()), machine))
    assert result.stores[0].weights_rounded_to_bits == 8
    said = "vgg16-thin has random weights (random:0, rounded to 8 bits): a substitute."
    assert said in result.warnings


def test_relative_paths_stay_as_they_were_given() -> None:
    values = {"models": ["vgg16"], "weights": ["mine/a.pth"]}
    for dataset in ("folder:data/photos", "folder:../photos", "caltech101"):
        recipe = Recipe.build({**values, "dataset": dataset}, "a test")
        assert recipe.published() == recipe


def test_the_same_recipe_has_its_name_and_fingerprint_and_may_replace_its_result(
    made: Made,
) -> None:
    again = write(evaluate(made.recipe, made.machine, Watch()), made.machine)
    assert again == made.path
    unnamed = made.recipe.model_copy(update={"name": None})
    result = evaluate(unnamed, made.machine, Watch()).result
    assert result.name == unnamed.file_name()
    assert result.recipe_fingerprint == Result.read(made.path).recipe_fingerprint


def test_predict_finds_weights_and_stores_where_they_were(made: Made) -> None:
    trained = open_trained(made.path)
    assert trained.recipe == made.recipe
    [folder] = made.machine.cache.iterdir()
    assert trained.stores[0].path == str(folder / "descriptors.h5")
    images = named_images([made.folder / "photos"])
    elsewhere = made.machine.model_copy(update={"cache": made.folder / "nothing"})
    found = predict(trained, images, elsewhere, Watch())
    wrong = [i for i, own in zip(found.ids, found.predicted, strict=True) if own[0] not in i]
    assert wrong == []


def test_without_the_classifiers_a_name_is_a_path_from_here(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mine.json"
    copy.write_bytes(made.path.read_bytes())
    assert as_run(copy) == Result.read(made.path)
    monkeypatch.chdir(tmp_path)
    assert "<image id=" not in write_report(copy, made.machine).read_text("utf-8")
    monkeypatch.chdir(made.folder)
    assert "<image id=" in write_report(copy, made.machine).read_text("utf-8")


def test_a_report_from_elsewhere_finds_the_images_and_stands_beside_the_result(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run had paths relative to its folder."""
    monkeypatch.chdir(made.folder)
    recipe = made.recipe.model_copy(update={"dataset": "folder:photos", "name": "relative"})
    machine = Machine(cache=tmp_path / "features", results=Path("results"), workers=1)
    extract(recipe, machine, Watch())
    path = write(evaluate(recipe, machine, Watch()), machine).resolve()
    published = Result.read(path)
    assert (published.ran_in, published.recipe.dataset) == ("..", "folder:photos")
    monkeypatch.chdir(tmp_path)
    page = write_report(path, Machine())
    assert page == path.with_suffix(".html")
    assert "<image id=" in page.read_text("utf-8")
    for beside in path.parent.glob("relative*.safetensors"):
        beside.unlink()  # the result alone tells it as well
    assert "<image id=" in write_report(path, Machine()).read_text("utf-8")


def test_classifiers_of_another_run_are_not_believed(made: Made, tmp_path: Path) -> None:
    copy = tmp_path / "mine.json"
    content = json.loads(made.path.read_bytes())
    content["recipe"]["seed"] = 7
    copy.write_text(json.dumps(content))
    (tmp_path / "mine.safetensors").write_bytes(made.path.with_suffix(".safetensors").read_bytes())
    assert as_run(copy) == Result.read(copy)
    assert as_run(copy).recipe.dataset == "folder:photos"


def test_a_result_of_format_4_with_its_paths_is_published_without(
    made: Made, tmp_path: Path
) -> None:
    content = json.loads(made.path.read_bytes()) | {"format_version": 4, "classifiers": {}}
    content["recipe"] |= made.recipe.model_dump(mode="json")
    [folder] = made.machine.cache.iterdir()
    content["stores"][0]["path"] = str(folder / "descriptors.h5")
    (tmp_path / "mine.json").write_text(json.dumps(content))
    result = as_run(tmp_path / "mine.json")
    assert result.recipe == made.recipe
    page = tmp_path / "mine.html"
    write_page(result, page)
    texts = [write(build_tables(read_results(tmp_path))) for write in FORMATS.values()]
    for text in (page.read_text("utf-8"), *texts):
        assert str(made.folder) not in text


def a_published(folder: Path, dataset: str, ran_in: str | None) -> Path:
    """A result of relative paths without its classifiers."""
    recipe = Recipe.build({"dataset": dataset, "models": ["vgg16"], "name": "sample"}, "a test")
    values = {"recipe": recipe, "ran_in": ran_in}
    return a_result(one_class("a")).model_copy(update=values).write(folder)


def looked_for(path: Path, machine: Machine) -> list[tuple[str, Path]]:
    return [(recipe.dataset, place.data_root) for recipe, place in places(path, machine)]


def test_images_are_looked_for_where_the_run_was_and_then_here(tmp_path: Path) -> None:
    path = a_published(tmp_path / "a" / "results", "folder:data/photos", "..")
    there = tmp_path / "a" / "results" / ".."
    here = ("folder:data/photos", Path("datasets"))
    assert looked_for(path, Machine()) == [
        (f"folder:{there / 'data/photos'}", there / "datasets"),
        here,
    ]
    asked = Machine(data_root=Path("/mnt"))
    assert [dataset for dataset, _ in looked_for(path, asked)] == [
        "folder:/mnt/data/photos",
        "folder:/mnt/photos",
        f"folder:{there / 'data/photos'}",
        "folder:data/photos",
    ]
    assert looked_for(a_published(tmp_path / "b", "folder:data/photos", None), Machine()) == [here]
    named = a_published(tmp_path / "c", "voc2007", ".")
    assert looked_for(named, Machine())[0] == ("voc2007", tmp_path / "c" / "datasets")
    assert looked_for(named, asked) == [("voc2007", Path("/mnt"))]


def test_a_result_tells_of_its_place_only_how_far_up_the_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    ways = {"results": "..", "out/deep": "../..", ".": ".", "../other": None, "/tmp/x": None}
    assert {w: way_upwards(Machine(results=Path(w))) for w in ways} == ways
    kept = place_of_run(Machine(results=tmp_path / "other", data_root=Path("/mnt")))
    assert kept == {"folder": "../run", "data_root": "/mnt"}
