"""What a recipe needs on disk: found out once, for a run, a dry run and a prediction."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vggfeat.data.catalogue import published_dataset
from vggfeat.data.voc import CLASSES
from vggfeat.errors import DatasetNotFoundError, WeightsError, WeightsNotFoundError
from vggfeat.extraction import provide as supplies
from vggfeat.extraction.provide import AbsentDataset, at_hand, provide, provide_weights, survey
from vggfeat.recipe import Machine, Recipe
from vggfeat.watch import Watch
from vggfeat.weights.catalogue import PublishedWeights
from vggfeat.weights.local import place_of, published_file


def wanted(dataset: str, *weights: str) -> Recipe:
    models = ("vgg16", "vgg19")
    values = {"dataset": dataset, "models": models, "weights": weights, "scales": (256,)}
    return Recipe.build(values, "a test")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(data_root=tmp_path / "data")


@pytest.fixture
def fetched(tiny_voc: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fetched, in order; a data set comes as a tiny one, a file empty."""
    names: list[str] = []

    def fetch_file(file: PublishedWeights, watch: Watch) -> None:
        names.append(file.name)
        place_of(file).parent.mkdir(parents=True, exist_ok=True)
        place_of(file).touch()

    def fetch_dataset(name: str, root: Path, watch: Watch) -> None:
        names.append(name)
        place = root / published_dataset(name).place
        shutil.copytree(tiny_voc, place)
        for of_cats in (place / "ImageSets" / "Main").glob("cat_*.txt"):
            for of_another in CLASSES:
                if of_another != "cat":
                    name = of_cats.name.replace("cat", of_another)
                    shutil.copy(of_cats, of_cats.with_name(name))

    monkeypatch.setattr(supplies, "fetch_file", fetch_file)
    monkeypatch.setattr(supplies, "fetch_dataset", fetch_dataset)
    return names


def test_what_is_absent_is_said_and_left_alone(machine: Machine, fetched: list[str]) -> None:
    found = survey(wanted("voc2007", "oxford", "random:0"), machine)
    assert isinstance(found.dataset, AbsentDataset)
    assert {model: absent.what for model, absent in found.weights.items()} == {
        "vgg16": published_file("oxford", "vgg16")
    }
    names = ["voc2007", "VGG_ILSVRC_16_layers.caffemodel"]
    assert [absent.what.name for absent in found.absent(["vgg16", "vgg19"])] == names
    assert [absent.what.name for absent in found.absent(["vgg19"])] == names[:1]
    assert fetched == []
    assert not machine.data_root.exists()


def test_it_is_fetched_once_the_weights_first(machine: Machine, fetched: list[str]) -> None:
    both = wanted("voc2007", "oxford", "torchvision")
    assert len(provide(both, machine, Watch()).items) == 24
    assert fetched == [
        published_file("torchvision", "vgg19").name,
        published_file("oxford", "vgg16").name,
        "voc2007",
    ]
    fetched.clear()
    provide_weights(wanted("voc2007", "random:0"), machine, Watch())
    at_hand(published_file("oxford", "vgg16"), machine, Watch())
    assert fetched == []


def test_offline_the_first_thing_that_is_absent_is_the_error(
    machine: Machine, fetched: list[str], tiny_voc: Path
) -> None:
    offline = machine.model_copy(update={"offline": True})
    with pytest.raises(DatasetNotFoundError, match="'voc2007' not found"):
        provide(wanted("voc2007", "oxford"), offline, Watch())
    with pytest.raises(WeightsNotFoundError, match="`vggfeat weights fetch VGG_ILSVRC_16"):
        provide(wanted(f"voc:{tiny_voc}", "oxford"), offline, Watch())
    with pytest.raises(WeightsNotFoundError, match="`vggfeat weights fetch VGG_ILSVRC_16"):
        provide_weights(wanted("voc2007", "oxford"), offline, Watch())
    file = published_file("oxford", "vgg16")
    assert at_hand(file, offline, Watch()) == place_of(file)
    assert fetched == []


def test_what_is_not_public_is_an_error_before_anything_is_fetched(
    machine: Machine, fetched: list[str]
) -> None:
    with pytest.raises(DatasetNotFoundError):
        survey(wanted("folder:nowhere", "oxford"), machine)
    with pytest.raises(WeightsError, match=r"No weight file 'nowhere\.pth'"):
        provide(wanted("voc2007", "oxford", "nowhere.pth"), machine, Watch())
    assert fetched == []
