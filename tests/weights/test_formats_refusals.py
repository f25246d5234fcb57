"""Files that cannot serve are refused by reason, whatever is wrong with them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

from tests.support import exported, layouts
from tests.support.layouts import Tensors, Writer, field
from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.weights.find import random_tensors
from vggfeat.weights.formats import read, recognise, sandbox

THIN = ARCHITECTURES["vgg16-thin"]


@pytest.fixture
def truth() -> Tensors:
    return layouts.thin_truth()


@pytest.fixture(autouse=True)
def _one_thread(threads: Callable[[int], None]) -> None:
    """Small tensors are done sooner by one thread, above all on a busy machine."""
    threads(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is text"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "is a gzip archive.*Unpack it"),
        (bytes(257) + b"ustar" + bytes(300), "is a tar archive"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive of something else"),
        (b"\x93NUMPY\x01\x00" + bytes(60), "a single NumPy array"),
        (bytes(100) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "is a TensorFlow checkpoint"),
        (b'name: "VGG"\nlayers {\n  name: "conv1_1"\n}\n', "is a prototxt"),
        (pickle.dumps([1, 2]), "is a pickle that is no torch file.*never loaded"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"MATLAB 6.0 MAT-file".ljust(128), "MATLAB file of an unknown version"),
        (np.arange(1000).tobytes(), "of no format that is known"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "vgg16.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        recognise(path)
    with pytest.raises(WeightsError, match=message):
        read(path, THIN)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "no regular file"), (".", "no regular"), ("no", "cannot be")):
        with pytest.raises(WeightsError, match=message):
            recognise(tmp_path / name)


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (layouts.keras_old, r"only the convolutions: no 'fc1/kernel'"),
        (layouts.torchvision, r"only the convolutions: no 'classifier.0.weight'"),
        (layouts.caffe_v1, r"only the convolutions: no 'fc6.weight'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_without_its_top_is_refused_by_name(
    tmp_path: Path, writer: Writer, message: str, truth: Tensors
) -> None:
    notop = {name: tensor for name, tensor in truth.items() if name.startswith("conv")}
    if writer is layouts.torchvision:
        state = layouts.state(THIN, truth)
        torch.save({n: t for n, t in state.items() if n.startswith("features")}, tmp_path / "w")
    else:
        writer(tmp_path / "w", THIN, notop)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_torchvisions_features_with_a_classifier_of_nan_are_refused(
    tmp_path: Path, truth: Tensors
) -> None:
    state = layouts.state(THIN, truth)
    for name, tensor in state.items():
        if name.startswith("classifier"):
            tensor.fill_(torch.nan)
    torch.save(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=r"not finite \(6 of 32.*connected layers were left out"):
        read(tmp_path / "w", THIN)


@pytest.mark.parametrize("writer", [layouts.caffe_v1, layouts.keras_old, layouts.torchvision])
def test_another_net_is_named(tmp_path: Path, writer: Writer) -> None:
    net = ARCHITECTURES["vgg19-thin"]
    writer(tmp_path / "w", net, layouts.with_biases(random_tensors(net, 0)))
    with pytest.raises(
        WeightsError, match=r"not hold vgg16-thin: these are the shapes of vgg19-thin"
    ):
        read(tmp_path / "w", THIN)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s: s.pop("classifier.3.weight"), r"has no 'classifier.3.weight' \(1 of 32"),
        (lambda s: s["features.5.bias"].fill_(torch.inf), r"features.5.bias holds values.*not fin"),
        (
            lambda s: s.update({"features.2.weight": torch.zeros(9, 8, 3, 3)}),
            r"needs \(8, 8, 3, 3\)",
        ),
        (
            lambda s: s.update({"classifier.6.bias": torch.zeros(1000, dtype=torch.int64)}),
            r"torch.int64",
        ),
        (
            lambda s: s.update({"features.3.weight": torch.zeros(8)}),
            r"also has 'features.3.weight'",
        ),
        (
            lambda s: s.update({"features.0.weight": torch.empty(8, 3, 3, 3, device="meta")}),
            r"features.0.weight has shape",
        ),
        (
            lambda s: s.update({"features.0.weight": torch.zeros(1).expand(10**6, 10**6)}),
            r"has shape \(1000000, 1000000\)",
        ),
    ],
)
def test_a_state_that_is_not_exactly_the_nets_is_refused(
    tmp_path: Path, break_it: Callable[[Tensors], object], message: str, truth: Tensors
) -> None:
    state = layouts.state(THIN, truth)
    break_it(state)
    torch.save(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.zeros(3)], "holds a list"),
        ({"layer1.0.conv1.weight": torch.zeros(3)}, "names of no known layout: 'layer1.0"),
        ({"state_dict": {"features.0.weight": 1}}, "has only the convolutions|has no 'features.0"),
    ],
)
def test_other_torch_files_are_refused(tmp_path: Path, state: object, message: str) -> None:
    torch.save(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_keras_kernels_in_theanos_order_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    monkeypatch.setattr(
        layouts,
        "keras_kernel",
        lambda layer, w: w.reshape(len(w), -1).T if layer.startswith("fc") else w,
    )
    layouts.keras_old(tmp_path / "th", THIN, truth)
    with pytest.raises(WeightsError, match="in Theano's order"):
        read(tmp_path / "th", THIN)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (layouts.MEAN[::-1], "in the order BGR"),
        ((122.7, 116.7, 104.0), r"is \(122.7, 116.7, 104\), not the authors'"),
        ((np.nan, 116.779, 103.939), "not the authors'"),
    ],
)
def test_a_matconvnet_net_of_another_mean_is_refused(
    tmp_path: Path, mean: tuple[float, ...], message: str, truth: Tensors
) -> None:
    layers = layouts.cell(*layouts.matconvnet_layers(truth))
    image = np.array(mean, dtype=np.float32).reshape(1, 1, 3)
    scipy.io.savemat(
        tmp_path / "v5.mat", {"layers": layers, "normalization": {"averageImage": image}}
    )
    layouts.matconvnet_73(tmp_path / "v73.mat", THIN, truth, mean=mean)
    for name in ("v5.mat", "v73.mat"):
        with pytest.raises(WeightsError, match=message):
            read(tmp_path / name, THIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layers": layouts.cell({"name": "conv1_1"})}, "has no averageImage"),
        ({"layers": np.zeros((1, 3))}, "has no cell array 'layers'"),
        ({"params": np.zeros((1, 3))}, "has no cell array 'layers'"),
        (
            {
                "layers": layouts.cell({"name": "conv1_1"}),
                "normalization": {"averageImage": np.random.default_rng(0).random((9, 9, 3))},
            },
            "not of one colour",
        ),
    ],
)
def test_a_matlab_file_of_something_else_is_refused(
    tmp_path: Path, content: dict[str, object], message: str
) -> None:
    scipy.io.savemat(tmp_path / "x.mat", content)
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "x.mat", THIN)


def test_older_matconvnet_fields_are_read_from_v73_as_well(tmp_path: Path, truth: Tensors) -> None:
    layouts.matconvnet_73(tmp_path / "w", THIN, truth, old=True)
    found = read(tmp_path / "w", THIN).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in truth.items())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (field(6, field(1, 2) + b"\x2d" + bytes(4)), "not packed"),
        (field(6, field(1, 2) + field(5, bytes(7))), "end within one"),
        (field(6, field(1, 2) + field(5, bytes(4))), r"shape \(2, 0, 0, 0\) has 1 numbers"),
        (field(6, field(7, field(1, bytes([1] * 9))) + field(5, bytes(4))), "more than 8 axes"),
        (field(6, field(5, b"") + field(5, b"")), "several pieces"),
        (field(6, field(1, 2)), "has no numbers"),
        (field(6, 3), "a blob is written as a number"),
        (b"\x33" + bytes(9), "wire type 3"),
        (b"\x32\xff\xff\xff\x7f", r"field 6 has 268,435,455 bytes, and 0 are left"),
        (b"\x32" + b"\xff" * 10 + b"\x00", "more than 64 bits"),
        (b"\x28\x80", "ends within a number"),
        (b"\x28\x00" * 200_001, "more fields than any"),
    ],
)
def test_a_caffemodel_that_is_damaged_is_refused_by_reason(
    tmp_path: Path, layer: bytes, message: str
) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(field(1, b"VGG") + field(2, field(4, b"conv1_1") + layer))
    with pytest.raises(WeightsError, match=message):
        read(path, THIN)


def test_a_layer_that_occurs_twice_is_refused(tmp_path: Path, truth: Tensors) -> None:
    path = tmp_path / "x.caffemodel"
    layouts.caffe_v1(path, THIN, truth)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(WeightsError, match=r"the blob 'conv1_1.weight' occurs twice"):
        read(path, THIN)


def test_a_header_of_safetensors_that_lies_is_refused(tmp_path: Path, truth: Tensors) -> None:
    path = tmp_path / "w"
    layouts.torchvision_safetensors(path, THIN, truth)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match=r"bytes, and .* by its header"):
        read(path, THIN)
    path.write_bytes((2 << 20).to_bytes(8, "little") + b"{" + bytes(3 << 20))
    with pytest.raises(WeightsError, match="header of 2,097,152 bytes is longer"):
        read(path, THIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "vggfeat-weights 9"}, "'vggfeat-weights 9'"),
        ({"channels": "GBR"}, "channels 'GBR'"),
        ({"net": "vgg19"}, "says that it is 'vgg19'"),
    ],
)
def test_our_own_file_has_to_say_what_it_is(
    tmp_path: Path, change: dict[str, str], message: str, truth: Tensors
) -> None:
    save_file(truth, tmp_path / "w", {**layouts.OWN, "net": THIN.name, **change})
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_an_hdf5_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w", "w") as file:
        file["data/conv1_1/0"] = np.zeros((8, 3, 3, 3), dtype=np.float32)
    with pytest.raises(WeightsError, match=r"has no 'block1_conv1/kernel'"):
        read(tmp_path / "w", THIN)


# --- the other process ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_that_takes_too_much_memory_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = {"layers": np.zeros((1, 50_000_000), dtype=np.float32)}
    scipy.io.savemat(tmp_path / "x.mat", bomb, do_compression=True)
    assert (tmp_path / "x.mat").stat().st_size < 300_000
    monkeypatch.setattr(sandbox, "MEMORY", 256 << 20)
    with pytest.raises(WeightsError, match="takes more than 256 MiB of memory"):
        read(tmp_path / "x.mat", THIN)


def test_a_reader_that_takes_too_long_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    layouts.frossard(tmp_path / "w", THIN, truth)
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 0.05)
    with pytest.raises(WeightsError, match="took longer than"):
        read(tmp_path / "w", THIN)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", "stopped: Segmentation fault"),
        ("import os; os.kill(os.getpid(), 24)", "seconds of computing"),
        ("import no_such_package", "its reader failed: ModuleNotFoundError"),
    ],
)
def test_a_crash_of_the_reader_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str, truth: Tensors
) -> None:
    layouts.frossard(tmp_path / "w", THIN, truth)
    package = tmp_path / "package" / "vggfeat_crash"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    monkeypatch.setattr(sandbox, "__name__", "vggfeat_crash")
    monkeypatch.setattr(sandbox, "_environment", lambda: {"PYTHONPATH": str(package.parent)})
    with pytest.raises(WeightsError, match=message):
        read(tmp_path / "w", THIN)


def test_the_other_process_imports_nothing_that_lies_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "torch", "vggfeat"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    layouts.frossard(tmp_path / "w", THIN, truth)
    assert read(Path("w"), THIN).layout == "frossard"


@pytest.mark.parametrize(
    "writer", [layouts.frossard, layouts.matconvnet, layouts.keras_old, exported.keras3]
)
def test_the_other_process_needs_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer, truth: Tensors
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(7)")
    writer(tmp_path / "w", THIN, truth)
    places = f"{tmp_path}{os.pathsep}{Path(__file__).resolve().parents[2]}"
    monkeypatch.setattr(sandbox, "_environment", lambda: {"PYTHONPATH": places})
    assert read(tmp_path / "w", THIN).profile == "oxford"
