"""Keras 3, TensorFlow.js, ONNX and checkpoints: the same weights, or a refusal by name."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import photo
from tests.support import exported, layouts
from tests.support.layouts import Tensors, Writer
from vggfeat.errors import WeightsError
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.watch import Watch
from vggfeat.weights.find import find_weights, random_tensors
from vggfeat.weights.formats import files_of, read, recognise, sandbox

THIN = ARCHITECTURES["vgg16-thin"]
CONVOLUTIONS = [layer.name for layer in THIN.layers("pool5")]


@pytest.fixture
def truth() -> Tensors:
    return layouts.thin_truth()


@pytest.fixture(autouse=True)
def _one_thread(threads: Callable[[int], None]) -> None:
    """Small tensors are done sooner by one thread, above all on a busy machine."""
    threads(1)


def trunk(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("conv")}


def flat(path: Path, net: Architecture, tensors: Tensors) -> None:
    """torchvision's features alone, saved as such."""
    state = layouts.state(
        net, tensors | {n: t for n, t in layouts.thin_truth().items() if "fc" in n}
    )
    names = {name: name.removeprefix("features.") for name in state if name.startswith("features")}
    torch.save({short: state[name] for name, short in names.items()}, path)


def plain_npz(path: Path, _: Architecture, tensors: Tensors) -> None:
    with path.open("wb") as stream:
        arrays = {name: tensor.numpy() for name, tensor in layouts.bgr(tensors).items()}
        np.savez(stream, allow_pickle=False, **arrays)


def test_every_kind_of_file_is_recognised(tmp_path: Path, truth: Tensors) -> None:
    assert recognise(exported.tfjs(tmp_path / "js", truth)).name == "tfjs"
    for name, writer in {"keras": exported.keras3, "hdf5": exported.keras3_weights}.items():
        writer(tmp_path / name, THIN, truth)
        assert recognise(tmp_path / name).name == name


# --- the same weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "writer",
    [
        exported.keras3,
        partial(exported.keras3, packing=zipfile.ZIP_DEFLATED),
        exported.keras3_weights,
        exported.keras3_nested,
    ],
)
@pytest.mark.parametrize("top", [True, False])
def test_a_file_of_keras_3_gives_the_same_weights(
    tmp_path: Path, truth: Tensors, writer: Writer, top: bool
) -> None:
    tensors = truth if top else trunk(truth)
    writer(tmp_path / "w", THIN, tensors)
    port = read(tmp_path / "w", THIN, "fc8" if top else "pool5")
    assert (port.layout, port.channels, port.profile) == ("keras", "BGR", "oxford")
    assert [*port.tensors] == [*tensors]
    found = layouts.bgr(port.tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_automatic_names_count_from_anywhere(tmp_path: Path, truth: Tensors) -> None:
    """In Keras 2 the second model of a session goes on counting: conv2d_13, conv2d_14, ..."""
    with h5py.File(tmp_path / "w", "w") as file:
        counts = {"Conv2D": 13, "Dense": 3}
        for kind, _, kernel, bias in exported.keras_classes(truth):
            name = f"{kind.lower()}_{counts[kind]}"
            counts[kind] += 1
            file[f"{name}/{name}/kernel:0"], file[f"{name}/{name}/bias:0"] = kernel, bias
    found = layouts.bgr(read(tmp_path / "w", THIN).tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in truth.items())


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("kind", "error"),
    [("float32", 0.0), ("float16", 2**-11), ("uint16", 1 / 131_070), ("uint8", 1 / 510)],
)
def test_a_tfjs_model_gives_the_same_weights_to_half_a_step(
    tmp_path: Path, truth: Tensors, kind: str, error: float, graph: bool
) -> None:
    path = exported.tfjs(tmp_path / "js", truth, kind, graph=graph)
    port = read(path, THIN)
    assert (port.layout, port.channels, port.profile) == ("keras", "BGR", "oxford")
    found = layouts.bgr(port.tensors)
    for name, tensor in truth.items():
        span = tensor.max() - tensor.min() if kind.startswith("u") else 2 * tensor.abs().max()
        sums = 2**-22 if kind.startswith("u") else 0  # q · scale + min is computed in float32
        assert (found[name] - tensor).abs().max() <= (error + sums) * span, name


@pytest.mark.parametrize(
    ("rows_first", "products"),
    [(False, "Gemm"), (False, "MatMul"), (True, "Gemm"), (True, "MatMul")],
)
def test_an_onnx_graph_gives_the_same_weights(
    tmp_path: Path, truth: Tensors, rows_first: bool, products: str
) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "w.onnx"
    exported.onnx(path, THIN, truth, rows_first=rows_first, products=products)
    assert recognise(path).name == "onnx"
    port = read(path, THIN)
    assert (port.layout, port.channels, port.profile) == ("onnx", None, None)
    assert all(torch.equal(port.tensors[name], tensor) for name, tensor in truth.items())
    assert len(read(path, THIN, "pool3").tensors) == 14


def test_an_onnx_graph_of_8_bits_gives_the_same_weights_to_half_a_step(
    tmp_path: Path, truth: Tensors
) -> None:
    pytest.importorskip("onnx")
    exported.onnx(tmp_path / "w.onnx", THIN, truth, stored=True)
    found = read(tmp_path / "w.onnx", THIN).tensors
    for name, tensor in truth.items():
        step = (tensor.max() - tensor.min()) / 255 if name.endswith("weight") else 0
        assert (found[name] - tensor).abs().max() <= step * 1.001, name  # the zero is rounded too


@pytest.mark.slow
def test_torchs_own_exporter_gives_the_same_weights(tmp_path: Path, truth: Tensors) -> None:
    pytest.importorskip("onnx")
    torchvision = pytest.importorskip("torchvision")
    widths = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
    net = torchvision.models.VGG(torchvision.models.vgg.make_layers(widths))
    sizes = [(64 * 49, 512), (512, 512), (512, 1000)]
    for place, (inputs, outputs) in zip((0, 3, 6), sizes, strict=True):
        net.classifier[place] = torch.nn.Linear(inputs, outputs)
    net.load_state_dict(layouts.state(THIN, truth))
    image = torch.zeros(1, 3, 224, 224)
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(net.eval(), (image,), tmp_path / "w.onnx", dynamo=False)
    found = read(tmp_path / "w.onnx", THIN).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in truth.items())


@pytest.mark.parametrize("form", exported.WRAPPED)
def test_a_checkpoint_is_unwrapped(tmp_path: Path, truth: Tensors, form: str) -> None:
    torch.save(exported.wrapped(THIN, truth, form), tmp_path / "w")
    port = read(tmp_path / "w", THIN, "fc7")
    assert port.layout == "torchvision"
    assert all(torch.equal(tensor, truth[name]) for name, tensor in port.tensors.items())
    assert len(port.tensors) == 30


# --- the same descriptors -------------------------------------------------------------------------


def described(tmp_path: Path, weights: Path, **fields: str) -> tuple[bytes, dict[str, Any]]:
    """Return the descriptors of a photo as they are stored, and what the store says of itself."""
    if not (tmp_path / "photos").is_dir():
        (tmp_path / "photos").mkdir()
        Image.fromarray(photo(90, 100, seed=1)).save(tmp_path / "photos" / "a.png")
    values = {"dataset": f"folder:{tmp_path / 'photos'}", "models": THIN.name, "scales": [224]}
    recipe = Recipe.build({**values, "weights": str(weights), **fields}, "a test")
    [path] = extract(recipe, Machine(cache=tmp_path / "features"), Watch())
    with DescriptorStore.open(path) as store:
        rows = store.read().descriptors
        assert float(rows.max()) > 0
        made = json.loads(store.attribute("created_by"))
        return rows.tobytes(), made | {"recipe": json.loads(store.attribute("recipe"))}


@pytest.mark.slow
def test_an_8_bit_net_gives_the_same_descriptors_in_every_format(
    tmp_path: Path, truth: Tensors
) -> None:
    pytest.importorskip("onnx")
    short = exported.eight_bits(truth)
    path = exported.tfjs(tmp_path / "js", truth)
    exported.keras3(tmp_path / "w.keras", THIN, short)
    exported.keras3_weights(tmp_path / "w.weights.h5", THIN, short)
    exported.onnx(tmp_path / "w.onnx", THIN, short)
    torch.save(exported.wrapped(THIN, short, "lightning"), tmp_path / "w.ckpt")
    layouts.torchvision(tmp_path / "w.pth", THIN, short)
    rows, made = described(tmp_path, path)
    assert made["weights_rounded_to_bits"] == 8
    assert not any("rounded" in name for name in made["recipe"])
    for name, profile in {
        "w.keras": "oxford",
        "w.weights.h5": "oxford",
        "w.onnx": "oxford-rgb",
        "w.ckpt": "oxford-rgb",
        "w.pth": "oxford-rgb",
    }.items():
        found, said = described(tmp_path, tmp_path / name, profile=profile)
        assert found == rows, name
        assert said["weights_rounded_to_bits"] == 8
    layouts.torchvision(tmp_path / "full.pth", THIN, truth)
    found, said = described(tmp_path, tmp_path / "full.pth", profile="oxford-rgb")
    assert found != rows
    assert "weights_rounded_to_bits" not in said


@pytest.mark.slow
def test_a_trunk_gives_the_same_descriptors_in_every_format(tmp_path: Path, truth: Tensors) -> None:
    pytest.importorskip("onnx")
    writers: dict[str, tuple[Any, str]] = {
        "notop.h5": (layouts.keras_new, "oxford"),
        "notop.weights.h5": (exported.keras3_weights, "oxford"),
        "notop.keras": (exported.keras3, "oxford"),
        "features.pth": (flat, "oxford-rgb"),
        "trunk.npz": (plain_npz, "oxford-bgr"),
        "trunk.onnx": (exported.onnx, "oxford-rgb"),
    }
    rows = set()
    for name, (writer, profile) in writers.items():
        writer(tmp_path / name, THIN, trunk(truth))
        rows.add(described(tmp_path, tmp_path / name, profile=profile, tap="pool5")[0])
    path = exported.tfjs(tmp_path / "js", trunk(truth), "float32")
    rows.add(described(tmp_path, path, tap="pool5")[0])
    assert len(rows) == 1


# --- the identity of several files ----------------------------------------------------------------


def test_a_tfjs_models_identity_is_that_of_all_its_files(tmp_path: Path, truth: Tensors) -> None:
    path = exported.tfjs(tmp_path / "js", truth)
    files = files_of(path)
    assert [file.name for file in files[:3]] == ["model.json", *_shards(files, 1, 2)]
    whole = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    found = find_weights(THIN, str(path))
    assert (found.origin, found.sha256) == ("js/model.json", whole)
    last = files[-1].read_bytes()
    files[-1].write_bytes(last[:-1] + bytes([last[-1] ^ 1]))
    assert find_weights(THIN, str(path)).sha256 != whole
    files[-1].write_bytes(last)
    assert find_weights(THIN, str(path)).sha256 == whole


def _shards(files: list[Path], *numbers: int) -> list[str]:
    return [f"group1-shard{number}of{len(files) - 1}.bin" for number in numbers]


# --- refusals -------------------------------------------------------------------------------------


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    model = json.loads(path.read_text())
    how(model["weightsManifest"][0])
    path.write_text(json.dumps(model))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda g: g["paths"].append("more.bin"), "its file 'more.bin' is not beside it"),
        (lambda g: g["paths"].append("../secret"), "names the file '../secret', which is not"),
        (lambda g: g["paths"].append("/etc/passwd"), "'/etc/passwd', which is not beside it"),
        (lambda g: g["paths"].append("a\\b"), "which is no plain name"),
        (lambda g: g["paths"].append(7), "names the file 7"),
        (lambda g: g["paths"].pop(), r"its files hold [\d,]+ bytes, and its manifest says"),
        (lambda g: g["weights"].pop(), "its files hold more bytes"),
        (lambda g: g["weights"][0].update(dtype="string", quantization={}), "of no known kind"),
        (lambda g: g["weights"][0].update(shape=[1 << 40]), "which no VGG net has"),
        (lambda g: g["weights"][0].update(shape=[-1, 2]), "which no VGG net has"),
        (lambda g: g["weights"][0].update(shape=[float("inf")]), "of no known kind"),
        (lambda g: g["weights"].insert(0, 3), "of no known kind"),
        (lambda g: g.update(weights=3), "damaged"),
        (lambda g: g["weights"][1].update(name="block1_conv1/kernel"), "occurs twice"),
    ],
)
def test_a_tfjs_model_that_is_not_whole_is_refused_by_name(
    tmp_path: Path, truth: Tensors, how: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = exported.tfjs(tmp_path / "js", truth)
    (tmp_path / "secret").write_bytes(b"secret")
    change(path, how)
    with pytest.raises(WeightsError, match=message):
        find_weights(THIN, str(path)).load()


def test_a_missing_shard_is_named_before_anything_is_read(tmp_path: Path, truth: Tensors) -> None:
    path = exported.tfjs(tmp_path / "js", truth)
    missing = files_of(path)[3]
    missing.unlink()
    with pytest.raises(WeightsError, match=f"its file '{missing.name}' is not beside it"):
        find_weights(THIN, str(path))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"metadata.json": b"{}"}, "has no 'config.json'"),
        ({"metadata.json": b"{}", "config.json": b"{"}, "'config.json' is damaged"),
        ({"config.json": b"[" * 100_000}, "'config.json' is damaged"),
        ({"config.json": b"{}", "model.weights.npz": b""}, "has no 'model.weights.h5'"),
        ({"config.json": b"{}", "model.weights.h5": b"text"}, "cannot be used"),
        ({"config.json": b"7", **{f"a{i}": b"" for i in range(1000)}}, "holds 1,001 entries"),
        ({"config.json": bytes(65 << 20)}, "has more than 67,108,864 bytes"),
    ],
)
def test_a_keras_archive_of_something_else_is_refused(
    tmp_path: Path, entries: dict[str, bytes], message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "w", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_normalisations_among_automatic_names_are_refused(tmp_path: Path, truth: Tensors) -> None:
    exported.keras3_weights(tmp_path / "w", THIN, truth)
    with h5py.File(tmp_path / "w", "r+") as file:
        file["layers/batch_normalization/vars/0"] = np.ones(8, np.float32)
    with pytest.raises(WeightsError, match="layer 'batch_normalization': nothing tells where"):
        read(tmp_path / "w", THIN)


def test_two_nets_in_one_keras_file_are_refused(tmp_path: Path, truth: Tensors) -> None:
    with h5py.File(tmp_path / "w", "w") as file:
        exported.keras_weights(file, truth)
        del file["optimizer"]
        exported.keras_weights(file, truth, "layers/functional/")
    with pytest.raises(WeightsError, match="convolutions in 'layers', 'layers/functional/layers'"):
        read(tmp_path / "w", THIN)


def onnx_with(path: Path, truth: Tensors, how: Callable[[SimpleNamespace], object]) -> None:
    onnx = pytest.importorskip("onnx")
    exported.onnx(path, THIN, truth)
    model = onnx.load(str(path))
    how(model.graph)
    path.write_bytes(model.SerializeToString())


def _normalised(graph: SimpleNamespace) -> None:
    graph.node[0].op_type = "BatchNormalization"


def _elsewhere(graph: SimpleNamespace) -> None:
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/passwd")


def _computed(graph: SimpleNamespace) -> None:
    graph.node[0].input[1] = "y1"


def _grouped(graph: SimpleNamespace) -> None:
    graph.node[0].attribute.add(name="group", type=2, i=2)


def _huge(graph: SimpleNamespace) -> None:
    graph.initializer[0].dims[:] = [1 << 40]


def _of_others(graph: SimpleNamespace) -> None:
    graph.node[1].domain = "com.microsoft"


def _shifted(graph: SimpleNamespace) -> None:
    graph.node[1].op_type = "Sub"
    graph.node[1].input.append("c1")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (_normalised, "nodes of the kind BatchNormalization"),
        (_elsewhere, r"numbers in another file; .*external_data=False"),
        (_computed, "weight of a Conv is no constant but computed by Relu"),
        (_grouped, "a Conv has group = 2"),
        (_huge, "has the shape"),
        (_of_others, "nodes of the kind com.microsoft.Relu"),
        (_shifted, "computes Sub with constants"),
    ],
)
def test_an_onnx_graph_of_something_else_is_refused(
    tmp_path: Path, truth: Tensors, how: Callable[[SimpleNamespace], object], message: str
) -> None:
    onnx_with(tmp_path / "w", truth, how)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_without_the_package_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise ImportError")
    (tmp_path / "w").write_bytes(b"\x08\x09\x12\x04test")
    places = f"{tmp_path}{os.pathsep}{Path(__file__).resolve().parents[2]}"
    monkeypatch.setattr(sandbox, "_environment", lambda: {"PYTHONPATH": places})
    with pytest.raises(WeightsError, match=r"package onnx: pip install 'vggfeat\[onnx\]'"):
        read(tmp_path / "w", THIN)


def test_another_nets_graph_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net = ARCHITECTURES["vgg19-thin"]
    exported.onnx(tmp_path / "w", net, random_tensors(net, 0))
    for last in ("pool1", "fc7"):
        with pytest.raises(WeightsError, match="these are the shapes of vgg19-thin"):
            read(tmp_path / "w", THIN, last)


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.features(x)
        return found


def _saved_whole(path: Path) -> None:
    torch.save(_Net(), path)


def _saved_program(path: Path) -> None:
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(_Net()), path)


def _saved_with_a_path(path: Path) -> None:
    torch.save({"state_dict": {"features.0.weight": torch.ones(8, 3, 3, 3)}, "at": Path()}, path)


def _saved_two(path: Path) -> None:
    one = {"features.0.weight": torch.ones(8, 3, 3, 3)}
    torch.save({"model": one, "model_ema": one, "epoch": 3}, path)


def _saved_pair(path: Path) -> None:
    names = ("student.features.0.weight", "teacher.features.0.weight")
    torch.save({name: torch.ones(8, 3, 3, 3) for name in names}, path)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (
            _saved_whole,
            r"is a whole model, pickled with its class tests\S+_Net\..* Have it saved again where "
            r"it was made: torch\.save\(model\.state_dict\(\), 'weights.pth'\)",
        ),
        (_saved_program, r"is a TorchScript archive, which is a program\..* saved again where"),
        (_saved_with_a_path, r"holds a pathlib\S*Path as well\..* saved again where it was made"),
        (_saved_two, r"holds several models: 'model', 'model_ema'\..*\['model'\], 'weights.pth'"),
        (_saved_pair, r"holds several nets: 'student.', 'teacher.'\."),
    ],
)
def test_what_torch_saved_instead_is_refused_by_name(
    tmp_path: Path, save: Callable[[Path], None], message: str
) -> None:
    save(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message) as refused:
        read(tmp_path / "w.pth", THIN)
    assert "weights_only" not in str(refused.value)  # nor torch's own advice to run the file's code
    assert "jit.load" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x08\x01\x12\x80\x01", "is a TensorFlow SavedModel"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(30), "is a TensorFlow Lite model"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        recognise(tmp_path / "w")
