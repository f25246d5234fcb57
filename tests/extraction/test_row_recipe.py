"""What changes a row: its record, its fingerprint, and what a given store serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.weights.test_find import torchvision_layout
from vggfeat.data.records import Dataset, Item, Kind, Part, Split
from vggfeat.extraction.plan import job_of
from vggfeat.files.sources import FileSource
from vggfeat.nets import int8
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Described, Machine, Recipe, Region, fingerprint
from vggfeat.store.layout import StoreIdentity
from vggfeat.watch import Watch
from vggfeat.weights import find as nets_weights
from vggfeat.weights.catalogue import catalogue
from vggfeat.weights.find import random_tensors
from vggfeat.weights.local import place_of

THIN = ARCHITECTURES["vgg16-thin"]


@pytest.fixture
def files(tmp_path: Path) -> Dataset:
    """Three boxes of two files that stand for images; a plan hashes them and decodes none."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    boxes = [("a/1", (1, 2, 30, 40)), ("a/2", (5, 5, 9, 9)), ("b/1", (1, 1, 7, 8))]
    items = [Item(i, FileSource(tmp_path / f"{i[0]}.jpg"), box, image=i[0]) for i, box in boxes]
    images = tuple(item.image or item.id for item in items)
    nothing = Part(ids=(), labels=np.empty((0, 0), np.int8))
    ids, labels = tuple(item.id for item in items), np.empty((len(items), 0), np.int8)
    everything = Part(ids=ids, labels=labels, images=images)
    return Dataset(
        name="photos",
        kind=Kind.UNLABELLED,
        classes=(),
        items=tuple(items),
        splits=(Split(train=nothing, val=nothing, test=everything),),
    )


def planned(
    dataset: Dataset, machine: Machine, region: Region = "image", **changed: object
) -> StoreIdentity:
    values = {"dataset": "folder:photos", "models": ["vgg16"], "weights": ["random:0"]}
    recipe = Recipe.build({**values, "scales": [256, 384], **changed}, "a test")
    which = Described(recipe.models[0], region, recipe.tap[0])
    return job_of(recipe, machine, dataset, which, Watch()).identity


def fingerprints(plan: StoreIdentity) -> tuple[str, str]:
    """Return the first digits of both, as they are with Pillow 12 and torch 2."""
    library = str(plan.recipe["resampler"]).partition("-")[0]
    versions = {
        "decoder": "pillow-12",
        "resampler": {"pillow": "pillow-12"}.get(library, "torch-2"),
    }
    row = fingerprint({**plan.recipe, **versions})
    assert plan.row_fingerprint == fingerprint(plan.recipe)
    rest = {"scales": plan.scales, "manifest_sha256": plan.manifest_sha256}
    assert plan.fingerprint == fingerprint({"row_fingerprint": plan.row_fingerprint, **rest})
    return row[:16], fingerprint({"row_fingerprint": row, **rest})[:16]


# Of the version that introduced this test: every store that is on a disk has been made so.
GOLDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "by default": ({}, "ac93581d4ca0547b", "bc4a77919495fb15"),
    "another seed": ({"weights": ["random:7"]}, "f05aff909d0f354e", "0e7037093ee91af9"),
    "another net": ({"models": ["vgg19-thin"]}, "b934f1bf80d7b773", "f73437f1bc326d0d"),
    "floor": ({"pooling": "floor"}, "3923cfe429fd0054", "5cce6d7a9a826e2a"),
    "ceil, as trained": ({"pooling": "ceil"}, "ac93581d4ca0547b", "bc4a77919495fb15"),
    "torchvision": ({"profile": "torchvision"}, "4373a84a2a778253", "8e2ec29d52707eac"),
    "torchvision, ceil": (
        {"profile": "torchvision", "pooling": "ceil"},
        "02e1a982bf981c6f",
        "3d1191d5481da35f",
    ),
    "one side": (
        {"mirror": False, "interpolation": "bicubic", "tap": "pool5"},
        "7d0f242e2f1ab36a",
        "6cd1e8a7996bc377",
    ),
    "another resampler": (
        {"resampler": "torch", "precision": "bfloat16"},
        "9bf0c5bb5c42468c",
        "c98870319413f2a4",
    ),
    "boxes": ({"region": "box"}, "a948825c5bb45ec9", "8e8da83fdfc73ec9"),
    "8 bits": ({"precision": "int8"}, "0d30b43ec5dc9f1c", "50ed31c97e19e07d"),
}


@pytest.mark.parametrize(("changed", "row", "whole"), GOLDEN.values(), ids=GOLDEN)
def test_fingerprints_are_those_of_every_version_before(
    files: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    row: str,
    whole: str,
) -> None:
    monkeypatch.setattr(int8, "runtime", lambda: "openvino-2026")
    options = dict(changed)
    region = options.pop("region", "image")
    assert fingerprints(planned(files, Machine(cache=tmp_path), region, **options)) == (row, whole)


@pytest.mark.parametrize(
    ("profile", "row", "whole"),
    [
        ("oxford-bgr", "2373b5d1238bdb17", "5101250ec7355a3b"),
        ("oxford-rgb", "95e1d39f79122689", "056b8ec5e7d1dc5a"),
        ("torchvision", "40817f166ed58622", "5173675ced0bf6d6"),
    ],
)
def test_so_are_those_of_a_file_whose_profile_has_to_be_said(
    files: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    row: str,
    whole: str,
) -> None:
    path = tmp_path / "own.safetensors"
    save_file(torchvision_layout(random_tensors(THIN, 5)), path)
    monkeypatch.setattr(nets_weights, "sha256_of", lambda path: "2a" * 32)
    own: dict[str, Any] = {"models": ["vgg16-thin"], "weights": [str(path)], "profile": profile}
    assert fingerprints(planned(files, Machine(cache=tmp_path), **own)) == (row, whole)


@pytest.mark.parametrize(
    ("family", "row", "whole"),
    [
        ("oxford", "84d97b3bfe6ba40c", "b94660808c298402"),
        ("torchvision", "f75a5aff833b07d0", "bb40dba7eb82dbbd"),
    ],
)
def test_so_are_those_of_published_weights(
    files: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    row: str,
    whole: str,
) -> None:
    file = next(f for f in catalogue() if f.usable and (f.family, f.net) == (family, "vgg16"))
    digest = file.digests.get("sha256") or file.digests["sha256_prefix"].ljust(64, "0")
    place_of(file).parent.mkdir(parents=True)
    place_of(file).touch()
    monkeypatch.setattr(nets_weights, "sha256_of", lambda path: digest)
    plan = planned(files, Machine(cache=tmp_path), weights=[family])
    assert fingerprints(plan) == (row, whole)
