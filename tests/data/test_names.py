from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.data import open_dataset
from vggfeat.data.catalogue import published, published_dataset, published_for
from vggfeat.data.names import (
    NAMED,
    PATTERNS,
    NamedDataset,
    Wanted,
    known,
    place_of,
    proxy_of,
    slug,
)
from vggfeat.data.records import Dataset, Item, Kind, Part, Split
from vggfeat.errors import DatasetNotFoundError, RecipeError
from vggfeat.files.sources import FileSource
from vggfeat.recipe import Machine, Recipe

PACKAGE = Path(__file__).resolve().parents[2] / "vggfeat"
FIVE, THREE = (256, 384, 512, 640, 768), (256, 384, 512)
RECALL = "mean_class_recall"

# --- the records --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scales", "aggregate", "measure", "regions"),
    [
        ("voc2007", FIVE, "average", "voc2007", ("image",)),
        ("voc2012", FIVE, "average", "voc2010", ("image",)),
        ("voc2012-val", FIVE, "average", "voc2010", ("image",)),
        ("voc2012-action", FIVE, "average", "voc2010", ("image", "box")),
        ("voc2012-action-val", FIVE, "average", "voc2010", ("image", "box")),
        ("caltech101", THREE, "stack", RECALL, ("image",)),
        ("caltech256", THREE, "stack", RECALL, ("image",)),
        ("voc:not/there", FIVE, "average", "voc2007", ("image",)),
        ("folder:not/there", THREE, "stack", RECALL, ("image",)),
        ("csv:not/there.csv", THREE, "stack", RECALL, ("image",)),
    ],
)
def test_a_recipe_that_says_nothing_gets_what_the_paper_says_of_the_data_set(
    name: str, scales: tuple[int, ...], aggregate: str, measure: str, regions: tuple[str, ...]
) -> None:
    recipe = Recipe.build({"dataset": name, "models": ["vgg16"]}, "a test")
    assert (recipe.scales, recipe.aggregate) == (scales, aggregate)
    assert (recipe.measure, recipe.regions) == (measure, regions)


def test_every_data_set_that_can_be_fetched_has_a_record_and_the_other_way_round() -> None:
    entries = {dataset.name for dataset in published()}
    assert {record.published for record in NAMED.values()} == entries
    assert all(NAMED[name].published == name for name in entries)
    assert not any(record.published for record in PATTERNS.values())


def test_a_proxy_is_fetched_and_described_as_what_it_stands_for() -> None:
    proxies = {name: record.proxy_of for name, record in NAMED.items() if record.proxy_of}
    assert proxies == {"voc2012-val": "voc2012", "voc2012-action-val": "voc2012-action"}
    for name, official in proxies.items():
        assert published_for(name) == published_dataset(official) == published_dataset(name)
        ours, theirs = NAMED[name], NAMED[official]
        assert (ours.scales, ours.aggregate, ours.measure) == (
            *(theirs.scales, theirs.aggregate, theirs.measure),
        )
        assert ours.regions == theirs.regions
        assert proxy_of(name) == official


@pytest.mark.parametrize("name", ["caltech101-val", "voc2007-val", "folder:x", "voc2070"])
def test_no_other_name_is_a_proxy_or_published(name: str) -> None:
    assert proxy_of(name) is None
    assert published_for(name) is None
    with pytest.raises(RecipeError, match=f"No published data set '{name}'. .*Valid: caltech101"):
        published_dataset(name)


@pytest.mark.parametrize("record", [*NAMED.values(), *PATTERNS.values()], ids=lambda r: r.opener)
def test_what_a_record_names_is_there(record: NamedDataset) -> None:
    for place in filter(None, (record.opener, record.measured_by)):
        module, _, function = place.partition(":")
        source = (PACKAGE / "data" / f"{module}.py").read_text()
        assert f"\ndef {function}(" in source


@pytest.mark.parametrize("name", ["voc:", "voc", "csv:", "folder", "fodler:x", "", ":x"])
def test_half_a_pattern_is_no_name(name: str) -> None:
    with pytest.raises(RecipeError, match=r"Unknown data set .*Valid: .*voc:PATH"):
        known(name)


def test_what_a_data_set_is_stands_in_its_record_alone() -> None:
    """Nobody guesses it from the beginning or the end of the name."""
    names = "|".join({*(name[:3] for name in NAMED), *PATTERNS})
    guess = re.compile(rf"startswith\(\W*({names})|(startswith|endswith|removesuffix)\(\W*-val")
    for path in PACKAGE.rglob("*.py"):
        assert not guess.search(path.read_text()), path
        assert '"-val"' not in path.read_text(), path


# --- a new one ----------------------------------------------------------------------------------


def test_a_record_and_an_opener_make_a_data_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two files to touch; a third, the catalogue, if it shall be fetched."""

    def open_mine(wanted: Wanted) -> Dataset:
        ids = ("a", "b", "c")
        parts = [Part(ids=(i,), labels=np.ones((1, 1), np.int8)) for i in ids]
        split = Split(train=parts[0], val=parts[1], test=parts[2])
        items = tuple(Item(i, FileSource(wanted.root / i)) for i in ids)
        return Dataset(
            name=wanted.name, kind=Kind.ONE_CLASS, classes=("k",), items=items, splits=(split,)
        )

    module = ModuleType("vggfeat.data.mine")
    vars(module)["open_mine"] = open_mine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    record = NamedDataset(
        opener="mine:open_mine",
        scales=(300,),
        aggregate="max",
        measure="sklearn",
        one_class=True,
    )
    monkeypatch.setitem(cast("dict[str, NamedDataset]", NAMED), "mine", record)
    recipe = Recipe.build({"dataset": "mine", "models": ["vgg16"]}, "a test")
    assert (recipe.scales, recipe.aggregate, recipe.measure) == ((300,), "max", "sklearn")
    assert open_dataset("mine", tmp_path).splits[0].ids == ("a", "b", "c")
    assert published_for("mine") is None


# --- what is loaded -----------------------------------------------------------------------------

HEAVY = ("sklearn", "defusedxml", "torch", "requests", "vggfeat.data.voc", "vggfeat.data.records")


@pytest.mark.parametrize(
    "statement",
    [
        "import vggfeat.recipe",
        "import vggfeat.data",
        "from vggfeat import Recipe as R; R.build(dict(dataset='voc2007', models='vgg16'), '')",
    ],
)
def test_a_recipe_loads_no_opener(statement: str) -> None:
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


# --- names of files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("folder:/photos/My Cats", "folder-my-cats-"),
        ("folder:/photos/My Cats/", "folder-my-cats-"),
        ("voc:data/VOC2012_Sub.v1", "voc-voc2012-sub-v1-"),
        ("folder:/", "folder-"),
        ("folder:猫", "folder-"),
        ("folder:/photos/caf\udce9", "folder-caf-"),  # a name that is not UTF-8
    ],
)
def test_a_slug_has_the_last_part_and_6_digits_of_the_whole(name: str, beginning: str) -> None:
    result = slug(name)
    assert result.startswith(beginning)
    digits = result.removeprefix(beginning)
    assert len(digits) == 6
    assert set(digits) <= set("0123456789abcdef")


def test_a_named_data_set_is_its_own_slug() -> None:
    assert slug("voc2007") == "voc2007"


def test_equal_last_parts_have_different_slugs() -> None:
    assert len({slug(f"{kind}:/{place}/x") for kind in ("voc", "folder") for place in "ab"}) == 4


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_any_name_has_a_slug_that_may_stand_in_a_file_name(path: str) -> None:
    assert set(slug(f"folder:{path}")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("kind", ["folder", "csv", "voc"])
def test_a_tilde_is_the_home_folder_behind_a_colon(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    named = Recipe.build({"dataset": f"{kind}:~/photos/", "models": ["vgg16"]}, "a test").dataset
    assert named == f"{kind}:{tmp_path}/photos"  # as if the shell had written it
    assert place_of(f"{kind}:~/photos") == tmp_path / "photos"
    with pytest.raises(DatasetNotFoundError, match=f"Looked for '{tmp_path}/photos"):
        open_dataset(f"{kind}:~/photos", Path("unused"))


def test_a_tilde_elsewhere_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("./~/photos", "photos/~", "photos~", "~nobody-of-that-name/photos"):
        assert place_of(f"folder:{name}") == Path(name)
    (tmp_path / "photos").mkdir()
    with pytest.raises(RecipeError, match="Did you mean 'folder:~/photos'"):
        known("~/photos")


def test_a_tilde_is_the_home_folder_in_paths_of_recipe_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell expands `--cache=~/store`, a variable or a recipe."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = {"data_root": Path("~/data"), "cache": Path("~/store"), "results": Path("~")}
    machine = Machine.build(folders)
    assert (machine.data_root, machine.cache) == (tmp_path / "data", tmp_path / "store")
    assert machine.results == tmp_path
    values = {"dataset": "voc2007", "models": ["vgg16"], "weights": ["~/vgg16.pth"]}
    assert Recipe.build(values, "a test").weights == (f"{tmp_path}/vgg16.pth",)
