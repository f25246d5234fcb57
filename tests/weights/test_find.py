from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import photo
from tests.support.layouts import caffe_v1, frossard, jcjohnson, keras_old
from vggfeat.data import open_dataset
from vggfeat.errors import WeightsError
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.watch import Watch
from vggfeat.weights.find import find_weights, random_tensors

THIN = ARCHITECTURES["vgg16-thin"]
GOLDEN = "dab2b6e088a70e37a737c45bc4a6e7defa3d587247fc508ad4cb144e06e6b005"  # of random:0, scheme 1
# torchvision's numbering of the 13 convolutions of configuration D
NAMES = dict(
    zip(
        (layer.name for layer in THIN.layers()),
        [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
        + ["classifier.0", "classifier.3", "classifier.6"],
        strict=True,
    )
)


def torchvision_layout(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.partition(".")
        flat = layer.startswith("fc") and kind == "weight"
        state[f"{NAMES[layer]}.{kind}"] = (tensor.flatten(1) if flat else tensor).contiguous()
    return state


def test_random_weights_are_the_same_for_ever() -> None:
    digest = hashlib.sha256()
    for name, tensor in random_tensors(THIN, 0).items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest() == GOLDEN


def test_random_weights_are_he_initialised() -> None:
    tensors = random_tensors(ARCHITECTURES["vgg19-thin"], 3)
    fc6 = tensors["fc6.weight"]
    assert float(fc6.mean()) == pytest.approx(0, abs=1e-4)
    assert float(fc6.var()) * 64 * 49 == pytest.approx(2, rel=0.01)
    assert not torch.equal(tensors["conv5_3.weight"], tensors["conv5_4.weight"])


def test_seed_and_net_decide_the_identity() -> None:
    first, second = (find_weights(THIN, f"random:{seed}") for seed in (0, 1))
    assert first.sha256 != second.sha256
    assert first.profile.name == "oxford"
    assert find_weights(THIN, "random:0", "torchvision").profile.name == "torchvision"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("profile", ["oxford-bgr", "oxford-rgb", "torchvision"])
def test_a_file_in_torchvisions_layout_is_read_bit_for_bit(
    tmp_path: Path, suffix: str, profile: str
) -> None:
    tensors = random_tensors(THIN, 5)
    path = tmp_path / f"own{suffix}"
    state = torchvision_layout(tensors)
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    found = find_weights(THIN, str(path), profile)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = found.load()
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        flipped = (
            name == "conv1_1.weight" and profile == "oxford-bgr"
        )  # the file's conv1_1 reads BGR
        assert torch.equal(loaded[name], tensor.flip(1) if flipped else tensor), name


def test_a_channel_order_that_nothing_tells_must_be_said(tmp_path: Path) -> None:
    torch.save(torchvision_layout(random_tensors(THIN, 5)), tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"RGB or BGR.*--profile oxford-bgr or --profile oxford"):
        find_weights(THIN, str(tmp_path / "own.pth"), "oxford").load()
    stated = [find_weights(THIN, str(tmp_path / "own.pth"), f"oxford-{o}") for o in ("rgb", "bgr")]
    assert [weights.channels for weights in stated] == ["RGB", "BGR"]
    assert {weights.profile.name for weights in stated} == {"oxford"}


@pytest.mark.parametrize("write", [caffe_v1, keras_old, frossard])
def test_a_format_of_the_authors_ports_alone_needs_no_profile(
    tmp_path: Path, write: Callable[[Path, Architecture, dict[str, Tensor]], None]
) -> None:
    tensors = random_tensors(THIN, 5)
    write(tmp_path / "file", THIN, tensors)
    found = find_weights(THIN, str(tmp_path / "file"))
    assert (found.profile.name, found.channels) == ("oxford", None)
    assert torch.equal(found.load()["conv1_1.weight"], tensors["conv1_1.weight"])
    with pytest.raises(WeightsError, match=r"whose profile is 'oxford', not 'torchvision'"):
        find_weights(THIN, str(tmp_path / "file"), "torchvision")


def test_a_stated_order_that_contradicts_the_layout_is_refused(tmp_path: Path) -> None:
    caffe_v1(tmp_path / "file", THIN, random_tensors(THIN, 5))
    with pytest.raises(WeightsError, match="conv1_1 reads BGR by its layout"):
        find_weights(THIN, str(tmp_path / "file"), "oxford-rgb").load()
    jcjohnson(tmp_path / "port", THIN, random_tensors(THIN, 5))
    with pytest.raises(WeightsError, match=r"layout of jcjohnson, whose profile is 'oxford'"):
        find_weights(THIN, str(tmp_path / "port"), "torchvision").load()


def test_a_file_that_nobody_knows_needs_its_profile_said(tmp_path: Path) -> None:
    torch.save(torchvision_layout(random_tensors(THIN, 5)), tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"not in the catalogue.*--profile oxford or"):
        find_weights(THIN, str(tmp_path / "own.pth"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s: s.pop("classifier.3.weight"), r"has no 'classifier.3.weight' \(1 of 32"),
        (lambda s: s["features.0.weight"].fill_(float("nan")), "not finite"),
        (
            lambda s: s.update({"features.2.weight": torch.zeros(9, 8, 3, 3)}),
            r"needs \(8, 8, 3, 3\)",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_reason(tmp_path: Path, break_it: object, message: str) -> None:
    state = torchvision_layout(random_tensors(THIN, 5))
    assert callable(break_it)
    break_it(state)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=message):
        find_weights(THIN, str(tmp_path / "wrong.pth"), "torchvision").load()


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]  # what pickle calls


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_file_that_holds_code_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_torch: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    if with_torch:
        torch.save({"features.0.weight": _Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(
        WeightsError, match=r"no file of plain tensors|a pickle that is no torch file"
    ):
        find_weights(THIN, str(path), "oxford").load()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", np.arange(1000).tobytes()])
def test_rubbish_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"rubbish{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="rubbish"):
        find_weights(THIN, str(path), "oxford").load()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oxfrod", "Did you mean 'oxford'"),
        ("nowhere/vgg.pth", "No weight file"),
        ("oxford", "There are no published weights 'oxford' for 'vgg16-thin'"),
    ],
)
def test_absent_weights_say_what_to_do(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        find_weights(THIN, name)


def test_published_weights_that_are_absent_say_where_they_belong() -> None:
    with pytest.raises(
        WeightsError,
        match=r"Looked in .*weights.* for VGG_ILSVRC_16_layers.caffemodel, vgg16-00b39a1b.pth",
    ):
        find_weights(ARCHITECTURES["vgg16"], "oxford")


def one_photo(tmp_path: Path, weights: Path, profile: str) -> tuple[Recipe, Machine]:
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(90, 100, seed=1)).save(tmp_path / "photos" / "a.png")
    values = {"dataset": f"folder:{tmp_path / 'photos'}", "models": "vgg16-thin"}
    values |= {"weights": str(weights), "profile": profile}
    return Recipe.build({**values, "scales": [224]}, "a test"), Machine(cache=tmp_path / "features")


def test_a_refused_file_leaves_no_store_behind(tmp_path: Path) -> None:
    state = torchvision_layout(random_tensors(THIN, 5))
    torch.save({f"{name}_x": tensor for name, tensor in state.items()}, tmp_path / "own.pth")
    recipe, machine = one_photo(tmp_path, tmp_path / "own.pth", "torchvision")
    with pytest.raises(WeightsError, match="names of no known layout"):
        extract(recipe, machine, Watch())
    assert not machine.cache.exists()


def test_a_store_job_travels_to_another_process_and_loads_the_same(
    tmp_path: Path, elsewhere: Callable[[Any], Any]
) -> None:
    path = tmp_path / "own.pth"
    torch.save(torchvision_layout(random_tensors(THIN, 5)), path)
    recipe, machine = one_photo(tmp_path, path, "oxford-bgr")
    dataset = open_dataset(recipe.dataset, tmp_path, seed=0)
    job = job_of(recipe, machine, dataset, Described("vgg16-thin", "image", "fc7"), Watch())
    there = elsewhere(job)
    assert there == job
    loaded = there.weights.load()
    assert loaded.keys() == job.weights.load().keys()
    assert all(torch.equal(loaded[name], t) for name, t in job.weights.load().items())
    assert torch.equal(loaded["conv1_1.weight"], random_tensors(THIN, 5)["conv1_1.weight"].flip(1))
    drawn = elsewhere(find_weights(THIN, "random:3"))
    assert torch.equal(drawn.load()["fc7.weight"], random_tensors(THIN, 3)["fc7.weight"])


@pytest.mark.slow
def test_a_statement_that_changes_no_row_changes_no_identity(tmp_path: Path) -> None:
    """jcjohnson's layout says that conv1_1 reads BGR, caffe's as well; torchvision's does not."""
    caffe_v1(tmp_path / "caffe", THIN, random_tensors(THIN, 5))
    jcjohnson(tmp_path / "jcjohnson", THIN, random_tensors(THIN, 5))
    torch.save(torchvision_layout(random_tensors(THIN, 5)), tmp_path / "torchvision")
    said = {
        name: [find_weights(THIN, str(tmp_path / name), p) for p in ("oxford", "oxford-bgr")]
        for name in ("caffe", "jcjohnson", "torchvision")
    }
    said["random"] = [find_weights(THIN, "random:0", p) for p in ("oxford", "oxford-bgr")]
    channels = {name: [weights.channels for weights in pair] for name, pair in said.items()}
    assert channels == {
        "caffe": [None, None],
        "jcjohnson": [None, None],
        "torchvision": [None, "BGR"],
        "random": [None, None],
    }
    for name in ("caffe", "jcjohnson", "random"):
        first, second = (weights.load() for weights in said[name])
        assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(WeightsError, match="conv1_1 reads BGR by its layout"):
        find_weights(THIN, str(tmp_path / "jcjohnson"), "oxford-rgb").load()
