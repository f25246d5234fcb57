"""Stores that are given by their paths: every field of their rows against what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from tests.support.layouts import jcjohnson
from tests.support.store_writer import make_plan, make_rows
from tests.weights.test_find import torchvision_layout
from vggfeat.data.folder import named_images
from vggfeat.errors import RecipeError, StaleStoreError, StoreError, WeightsError
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.extraction.workers import extract
from vggfeat.files.digests import sha256_of
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.writer import ShardFolder
from vggfeat.transfer.given import values_from_stores
from vggfeat.transfer.predict import open_trained, predict
from vggfeat.transfer.run import evaluate, write
from vggfeat.watch import Watch
from vggfeat.weights.catalogue import catalogue
from vggfeat.weights.find import find_weights, random_tensors

THIN = ARCHITECTURES["vgg16-thin"]
OWN = {"weights": "own.pth", "weights_family": "own"}
DATASET = "voc2012-action"  # the one with boxes


def made(folder: Path, stored: dict[str, Any], created_by: dict[str, str] | None = None) -> Path:
    """Write a store of made-up rows, whose recipe is that of random:0 but for some fields."""
    plan = make_plan(rows=3, shard_rows=8)
    wanted = Recipe.build({"dataset": DATASET, "models": ["vgg16-thin"]}, "a test")
    row = RowRecipe.of(
        wanted, Described("vgg16-thin", "image", "fc7"), find_weights(THIN, "random:0")
    ).as_json()
    origin = created_by or {"weights": "random:0", "weights_family": "random"}
    plan = replace(plan, recipe=row | stored, created_by={**plan.created_by, **origin})
    shards = ShardFolder(folder, plan)
    shards.commit(0, make_rows(plan, 0), {})
    return shards.assemble()


def completed(paths: list[Path], **asked: object) -> Recipe:
    values = values_from_stores(paths, {"dataset": DATASET, **asked})
    return Recipe.build(values, "a test")


def row_of(path: Path) -> RowRecipe:
    with DescriptorStore.open(path) as store:
        return RowRecipe.read(store.recipe, path)


# For each field: a store's value (and its weights), the option that asks for it, one that asks for
# another, and what is said of that. What no option asks for is taken as it is.
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "net": (
        {"net": "vgg19-thin"},
        {"models": ("vgg19-thin",)},
        {"models": ("vgg16-thin",)},
        "net 'vgg19-thin' there, 'vgg16-thin' asked for",
    ),
    "tap": (
        {"tap": "fc6"},
        {"tap": "fc6"},
        {"tap": "fc7"},
        "tap 'fc6' there, 'fc7' asked for",
    ),
    "weights_sha256": (
        {},
        {"weights": ("random:0",)},
        {"weights": ("random:7",)},
        "weights 'random:0' there, 'random:7' asked for",
    ),
    "profile": (
        {"profile": "torchvision"},
        {"profile": "torchvision"},
        {"profile": "oxford"},
        "profile 'torchvision' there, 'oxford' asked for",
    ),
    "channels": (
        {"channels": "BGR", "weights_sha256": "a" * 64},
        {"profile": "oxford-bgr"},
        {"profile": "oxford-rgb"},
        "channels 'BGR' there, 'RGB' asked for",
    ),
    "mirror": (
        {"mirror": False},
        {"mirror": False},
        {"mirror": True},
        "mirror False there, True asked for",
    ),
    "interpolation": (
        {"interpolation": "bicubic"},
        {"interpolation": "bicubic"},
        {"interpolation": "bilinear"},
        "interpolation 'bicubic' there, 'bilinear' asked for",
    ),
    "resampler": (
        {"resampler": "torch-1"},
        {"resampler": "torch"},
        {"resampler": "pillow"},
        "resampler 'torch-1' there, 'pillow-",
    ),
    "precision": (
        {"precision": "bfloat16"},
        {"precision": "bfloat16"},
        {"precision": "float32"},
        "precision 'bfloat16' there, 'float32' asked for",
    ),
    "pooling": (
        {"pooling": "floor"},
        {"pooling": "floor"},
        {"pooling": "ceil"},
        "pooling 'floor' there, as the weights have it asked for",
    ),
    "region": (
        {"region": "box"},
        {"regions": ("box",)},
        {"regions": ("image",)},
        "region 'box' there, 'image' asked for",
    ),
    "decoder": ({"decoder": "pillow-9"}, {}, {}, ""),
    "max_aspect": ({"max_aspect": 3}, {}, {}, ""),
    "max_pixels": ({"max_pixels": 1}, {}, {}, ""),
    "format_version": ({"format_version": 0}, {}, {}, ""),
    "calibration": ({"precision": "int8", "calibration": "c" * 64}, {"precision": "int8"}, {}, ""),
}


@pytest.mark.parametrize("field", RowRecipe.model_fields)
def test_a_store_is_what_was_asked_for_in_every_field(tmp_path: Path, field: str) -> None:
    stored, truth, other, message = FIELDS[field]
    path = made(tmp_path / "store", stored, OWN if field == "channels" else None)
    row = row_of(path)
    for asked in ({}, truth):
        recipe = completed([path], **asked)
        assert recipe.scales == (256, 384)
        assert recipe.described == (Described(row.net, row.region, row.tap),)
        weights = find_weights(ARCHITECTURES[row.net], "random:0", recipe.profile)
        if field == "channels":
            assert (recipe.weights, recipe.profile) == (("own.pth",), "oxford-bgr")
            weights = replace(weights, sha256="a" * 64, channels="BGR")
        else:
            assert recipe.weights == ("random:0",)
        assert row.differences(row.asked(recipe, weights)) == {}
    if other:
        with pytest.raises(StaleStoreError, match=message):
            completed([path], **other)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"weights": ("random:7",)}, "weights 'random:0' there, 'random:7' asked for"),
        ({"weights": ("oxford",)}, "weights 'random:0' there, 'oxford' asked for"),
        ({"profile": "torchvision"}, "profile 'oxford' there, 'torchvision' asked for"),
        ({"pooling": "floor"}, "pooling as the weights have it there, 'floor' asked for"),
        ({"mirror": False, "tap": "fc6"}, "tap 'fc7' there, 'fc6' asked for; mirror True there"),
    ],
)
def test_a_store_of_the_defaults_is_refused_for_anything_else(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    path = made(tmp_path / "store", {})
    assert completed([path], pooling="ceil", profile="oxford").pooling == "ceil"
    with pytest.raises(StaleStoreError, match=message):
        completed([path], **asked)


def test_stores_that_no_one_recipe_makes_are_refused_together(tmp_path: Path) -> None:
    first = made(tmp_path / "1", {})
    others: list[tuple[dict[str, Any], str]] = [
        ({"mirror": False}, "mirror False there, True in another of the stores"),
        ({"profile": "torchvision"}, "profile 'oxford' there, 'torchvision' in another"),
        (
            {"pooling": "floor"},
            "pooling as the weights have it there, 'floor' in another of",
        ),
    ]
    for number, (stored, message) in enumerate(others):
        second = made(tmp_path / f"of 19, {number}", {"net": "vgg19-thin", **stored})
        with pytest.raises(StaleStoreError, match=message):
            completed([first, second])
    random_1 = {"weights_sha256": find_weights(THIN, "random:1").sha256}
    made_by_1 = {"weights": "random:1", "weights_family": "random"}
    boxes = made(
        tmp_path / "boxes",
        {"region": "box", **random_1},
        made_by_1,
    )
    with pytest.raises(StaleStoreError, match="'random:1' there, 'random:0' in another of"):
        completed([first, boxes])
    other = made(tmp_path / "other", {"net": "vgg19-thin", **random_1}, made_by_1)
    turned = completed([first, other], models=("vgg19-thin", "vgg16-thin"))
    assert turned.weights == ("random:1", "random:0")  # and `evaluate` asks for that order
    same = completed([first, made(tmp_path / "same", {"region": "box"})])
    assert same.described == (
        Described("vgg16-thin", "image", "fc7"),
        Described("vgg16-thin", "box", "fc7"),
    )


def test_stores_of_several_taps_are_a_recipe_of_these(tmp_path: Path) -> None:
    first, second = made(tmp_path / "1", {}), made(tmp_path / "2", {"tap": "pool5"})
    assert completed([first, second]).tap == ("fc7", "pool5")
    assert completed([second, first]).described == (
        Described("vgg16-thin", "image", "pool5"),
        Described("vgg16-thin", "image", "fc7"),
    )
    assert completed([first, second], tap=("pool5", "fc7")).tap == ("pool5", "fc7")
    with pytest.raises(StaleStoreError, match="tap 'pool5' there, 'fc7' asked for"):
        completed([first, second], tap=("fc7",))
    of_19 = made(tmp_path / "of 19", {"net": "vgg19-thin", "tap": "pool5"})
    recipe = completed([first, of_19])
    assert recipe.tap == ("vgg16-thin:fc7", "vgg19-thin:pool5")
    assert recipe.described == (
        Described("vgg16-thin", "image", "fc7"),
        Described("vgg19-thin", "image", "pool5"),
    )
    with pytest.raises(StaleStoreError, match="tap 'fc7' there, 'pool5' asked for"):
        completed([first, of_19], tap=("pool5",))


@pytest.mark.slow
def test_a_classifier_of_two_nets_with_a_tap_each_predicts(tmp_path: Path) -> None:
    photos, machine = tmp_path / "photos", Machine(cache=tmp_path / "f", results=tmp_path / "r")
    for k, name in enumerate(("red", "green")):
        (photos / name).mkdir(parents=True)
        for n in range(4):
            pixels = photo(90, 100, seed=n)
            pixels[:, :, k], pixels[:, :, 1 - k] = 255, 0
            Image.fromarray(pixels).save(photos / name / f"{n}.png")
    values = {
        "dataset": f"folder:{photos}",
        "models": ("vgg11-thin", "vgg13-thin"),
        "weights": ("random:7",),
        "tap": ("vgg11-thin:pool5", "vgg13-thin:fc6"),
        "scales": (224,),
        "grid": (1.0,),
    }
    recipe = Recipe.build(values, "a test")
    paths = extract(recipe, machine, Watch())
    evaluation = evaluate(recipe, machine, Watch())
    assert evaluation.result.descriptor_size == 64 + 512
    given = Recipe.build(
        values_from_stores(paths, {"dataset": recipe.dataset, "grid": (1.0,)}), "a test"
    )
    same = evaluate(given, machine, Watch(), paths)
    assert np.array_equal(same.runs[0].fitted.scores, evaluation.runs[0].fitted.scores)
    trained = open_trained(write(evaluation, machine))
    items = named_images([photos / i for i in evaluation.runs[0].samples["test"].ids])
    elsewhere = machine.model_copy(update={"cache": tmp_path / "nothing"})
    found = predict(trained, items, elsewhere, Watch())
    assert np.abs(found.scores - evaluation.runs[0].fitted.scores).max() < 1e-6


def published_store(folder: Path, family: str, net: str, stored: dict[str, Any]) -> Path:
    file = next(f for f in catalogue() if f.usable and (f.family, f.net) == (family, net))
    digest = file.digests.get("sha256") or file.digests["sha256_prefix"].ljust(64, "0")
    row = {"net": net, "weights_sha256": digest, "profile": file.profile, **stored}
    return made(folder, row, {"weights": file.name, "weights_family": family})


def test_published_weights_need_not_be_at_hand(tmp_path: Path) -> None:
    ours = published_store(tmp_path / "1", "oxford", "vgg16", {"pooling": "floor"})
    theirs = published_store(tmp_path / "2", "torchvision", "vgg19", {})
    for asked in ({}, {"weights": ("oxford", "torchvision"), "models": ("vgg16", "vgg19")}):
        both = completed([ours, theirs], **asked)
        assert (both.weights, both.profile) == (("oxford", "torchvision"), None)
        assert both.pooling == "floor"  # the one's own choice is what the other was trained with
    with pytest.raises(StaleStoreError, match="profile 'oxford' there, 'torchvision' asked for"):
        completed([ours], weights=("oxford",), profile="torchvision")
    with pytest.raises(StaleStoreError, match=r"'VGG_ILSVRC_16.* there, 'torchvision' asked for"):
        completed([ours], weights=("torchvision",))


def test_a_file_that_is_asked_for_is_looked_up(tmp_path: Path) -> None:
    for seed in (5, 6):
        torch.save(torchvision_layout(random_tensors(THIN, seed)), tmp_path / f"{seed}.pth")
    row = {"channels": "BGR", "weights_sha256": sha256_of(tmp_path / "5.pth")}
    path = made(tmp_path / "store", row, OWN)
    moved = (str(tmp_path / "5.pth"),)
    recipe = completed([path], weights=moved)  # its statement is the store's
    assert (recipe.weights, recipe.profile) == (moved, "oxford-bgr")
    with pytest.raises(StaleStoreError, match=r"weights 'own.pth' there, '6.pth' asked for"):
        completed([path], weights=(str(tmp_path / "6.pth"),))
    with pytest.raises(StaleStoreError, match="channels 'BGR' there, 'RGB' asked for"):
        completed([path], weights=moved, profile="oxford-rgb")
    message = r"cannot be told: No weight file 'own.pth'.*own are own.pth, sha256 .*Leave --weigh"
    with pytest.raises(WeightsError, match=message):
        completed([path], weights=("own.pth",))


def test_an_order_that_was_stated_without_need_is_still_that_of_the_rows(tmp_path: Path) -> None:
    jcjohnson(tmp_path / "own.pth", THIN, random_tensors(THIN, 5))
    row = {"channels": "BGR", "weights_sha256": sha256_of(tmp_path / "own.pth")}
    path = made(tmp_path / "store", row, OWN)  # as versions before have written it
    own = {"weights": (str(tmp_path / "own.pth"),)}
    assert completed([path], **own).profile == "oxford-bgr"
    assert completed([path], **own, profile="oxford-bgr").weights == own["weights"]


def test_what_this_version_does_not_know_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"its recipe has flavour = 'new'.*version of vggfeat"):
        completed([made(tmp_path / "1", {"flavour": "new"})])
    with pytest.raises(StoreError, match="its recipe has tap = 'fc9'"):
        completed([made(tmp_path / "2", {"tap": "fc9"})])
    with pytest.raises(RecipeError, match="Did you mean 'vgg16'"):
        completed([made(tmp_path / "3", {})], models=("vgg61",))


def test_the_record_is_read_as_it_was_written() -> None:
    wanted = Recipe.build(
        {"dataset": DATASET, "models": ["vgg16-thin"], "pooling": "floor", "regions": ["box"]}, ""
    )
    box = Described("vgg16-thin", "box", "fc7")
    row = RowRecipe.of(wanted, box, find_weights(THIN, "random:0"), "c" * 64)
    assert RowRecipe.read(row.as_json(), Path()) == row
    assert (row.pooling, row.region, row.calibration) == ("floor", "box", "c" * 64)
    plain = row.model_copy(update={"pooling": None, "region": "image", "calibration": None})
    assert row.as_json().keys() - plain.as_json().keys() == {"pooling", "region", "calibration"}


def test_a_classifier_of_a_given_store_predicts(tmp_path: Path) -> None:
    photos, machine = tmp_path / "photos", Machine(cache=tmp_path / "f", results=tmp_path / "r")
    for k, name in enumerate(("red", "green")):
        (photos / name).mkdir(parents=True)
        for n in range(3):
            pixels = photo(90, 100, seed=n)
            pixels[:, :, k], pixels[:, :, 1 - k] = 255, 0
            Image.fromarray(pixels).save(photos / name / f"{n}.png")
    given = {"dataset": f"folder:{photos}", "grid": (1.0,)}
    unusual = {"weights": ("random:7",), "profile": "torchvision", "pooling": "ceil", "tap": "fc6"}
    whole = {**given, **unusual, "models": ("vgg16-thin",), "scales": (224,), "mirror": False}
    [path] = extract(Recipe.build(whole, "a test"), machine, Watch())
    evaluation = evaluate(
        Recipe.build(values_from_stores([path], given), "a test"), machine, Watch(), [path]
    )
    said = evaluation.result.recipe.model_dump(mode="json")
    assert {name: said[name] for name in unusual} == {**unusual, "weights": ["random:7"]}
    trained = open_trained(write(evaluation, machine))
    ids = evaluation.runs[0].samples["test"].ids
    items = named_images([photos / i for i in ids])
    elsewhere = machine.model_copy(update={"cache": tmp_path / "nothing"})
    found = predict(trained, items, elsewhere, Watch())
    assert np.abs(found.scores - evaluation.runs[0].fitted.scores).max() < 1e-6
