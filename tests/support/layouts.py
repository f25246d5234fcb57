"""Files in the true layout of every port, written from tensors whose conv1_1 reads RGB.

Each writer says by itself, apart from the package's tables, how its makers named and turned the
weights: names and axes from torchvision's vgg.py, jcjohnson's and timm's models, BVLC's
caffe.proto, MatConvNet's import-caffe.py, Keras' vgg16.py and Frossard's vgg16.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.weights.find import random_tensors

Array = np.ndarray[Any, Any]
Tensors = dict[str, Tensor]
Writer = Callable[[Path, Architecture, Tensors], None]

MEAN = (123.68, 116.779, 103.939)


def bgr(tensors: Tensors) -> Tensors:
    return tensors | {"conv1_1.weight": tensors["conv1_1.weight"].flip(1)}


def layers(tensors: Tensors) -> Iterator[tuple[str, Array, Array]]:
    """Yield (name, weight, bias) of every layer."""
    for name in tensors:
        if name.endswith(".weight") and ".norm." not in name:
            layer = name.removesuffix(".weight")
            yield layer, tensors[name].numpy(), tensors[f"{layer}.bias"].numpy()


def with_biases(tensors: Tensors, seed: int = 0) -> Tensors:
    """Give the biases and statistics values that tell them from one another."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor if tensor.ndim == 4 else torch.rand(tensor.shape, generator=generator) * 0.2
        for name, tensor in tensors.items()
    }


@cache
def thin_truth() -> Tensors:
    """Return seeded weights of the thin net, conv1_1 reading RGB."""
    return with_biases(random_tensors(ARCHITECTURES["vgg16-thin"], 11))


# --- torch --------------------------------------------------------------------------------------

# torchvision's numbers of the convolutions, without and with batch normalisation
FEATURES = {
    ("vgg11", False): (0, 3, 6, 8, 11, 13, 16, 18),
    ("vgg11", True): (0, 4, 8, 11, 15, 18, 22, 25),
    ("vgg13", False): (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    ("vgg16", False): (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    ("vgg16", True): (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    ("vgg19", False): (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
CLASSIFIER = ("classifier.0", "classifier.3", "classifier.6")


def state(
    net: Architecture, tensors: Tensors, fc: tuple[str, str, str] = CLASSIFIER, *, flat: bool = True
) -> Tensors:
    """Return a state dictionary; `flat` for linear layers instead of convolutions."""
    numbers = FEATURES[net.name.split("-")[0], net.batch_norm]
    prefixes = [f"features.{n}" for n in numbers] + list(fc)
    found = {}
    for (layer, weight, bias), prefix in zip(layers(tensors), prefixes, strict=True):
        linear = flat and layer.startswith("fc")
        shape = (len(weight), -1) if linear else weight.shape
        found[f"{prefix}.weight"] = torch.from_numpy(weight.reshape(shape).copy())
        found[f"{prefix}.bias"] = torch.from_numpy(bias.copy())
        if f"{layer}.norm.weight" in tensors:
            norm = f"features.{int(prefix.removeprefix('features.')) + 1}"
            found[f"{norm}.weight"] = tensors[f"{layer}.norm.weight"]
            found[f"{norm}.bias"] = tensors[f"{layer}.norm.bias"]
            found[f"{norm}.running_mean"] = tensors[f"{layer}.norm.mean"]
            found[f"{norm}.running_var"] = tensors[f"{layer}.norm.variance"]
            found[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    return found


def torchvision(path: Path, net: Architecture, tensors: Tensors) -> None:
    torch.save(state(net, tensors), path)


def torchvision_legacy(path: Path, net: Architecture, tensors: Tensors) -> None:
    torch.save(state(net, tensors), path, _use_new_zipfile_serialization=False)


def torchvision_safetensors(path: Path, net: Architecture, tensors: Tensors) -> None:
    save_file(state(net, tensors), path)


def jcjohnson(path: Path, net: Architecture, tensors: Tensors) -> None:
    torch.save(state(net, bgr(tensors), ("classifier.1", "classifier.4", "classifier.6")), path)


def timm(path: Path, net: Architecture, tensors: Tensors) -> None:
    found = state(net, tensors, ("pre_logits.fc1", "pre_logits.fc2", "head.fc"), flat=False)
    found["head.fc.weight"] = found["head.fc.weight"].flatten(1)  # the others are convolutions
    save_file(found, path)


# --- Caffe --------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """Return one field of a protocol buffer: a number, or bytes of a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob_v1(values: Array, *, data: int = 5, kind: str = "<f4") -> bytes:
    shape = (1,) * (4 - values.ndim) + values.shape
    dims = b"".join(field(i, n) for i, n in enumerate(shape, 1))
    return dims + field(data, values.astype(kind).tobytes())


def blob_new(values: Array) -> bytes:
    shape = field(7, field(1, b"".join(map(varint, values.shape))))
    return shape + field(5, values.tobytes())


def _caffe_layers(tensors: Tensors) -> Iterator[tuple[str, Array, Array]]:
    for layer, weight, bias in layers(bgr(tensors)):
        yield layer, weight.reshape(len(weight), -1) if layer.startswith("fc") else weight, bias


def caffe_v1(path: Path, _: Architecture, tensors: Tensors) -> None:
    net = field(1, b"VGG_ILSVRC_16_layers") + field(3, b"data")
    net += b"".join(field(4, n) for n in (10, 3, 224, 224))
    for layer, weight, bias in _caffe_layers(tensors):
        kind = field(5, 14 if layer.startswith("fc") else 4)
        text = field(2, b"below") + field(3, layer.encode()) + field(4, layer.encode()) + kind
        rate = varint(7 << 3 | 5) + struct.pack("<f", 1)  # blobs_lr
        net += field(2, text + field(6, blob_v1(weight)) + field(6, blob_v1(bias)) + rate)
        net += field(2, field(4, f"relu{layer}".encode()) + field(5, 18))
    path.write_bytes(net)


def caffe_new(path: Path, _: Architecture, tensors: Tensors) -> None:
    net = field(1, b"VGG")
    for layer, weight, bias in _caffe_layers(tensors):
        text = field(1, layer.encode()) + field(2, b"Convolution") + field(10, 1)
        net += field(100, text + field(7, blob_new(weight)) + field(7, blob_new(bias)))
        net += field(100, field(1, b"relu") + field(2, b"ReLU"))
    path.write_bytes(net)


def caffe_double(path: Path, _: Architecture, tensors: Tensors) -> None:
    net = b""
    for layer, *arrays in _caffe_layers(tensors):
        blobs = b"".join(field(6, blob_v1(a, data=8, kind="<f8")) for a in arrays)
        net += field(2, field(4, layer.encode()) + blobs)
    path.write_bytes(net)


# --- MatConvNet ---------------------------------------------------------------------------------


def cell(*items: object) -> Array:
    found = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        found[0, i] = item
    return found


def _hwio(weight: Array) -> Array:
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def matconvnet_layers(tensors: Tensors, *, old: bool = False) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for layer, weight, bias in layers(tensors):
        row: dict[str, object] = {"name": layer, "type": "conv", "pad": np.ones((1, 4))}
        if old:
            row |= {"filters": _hwio(weight), "biases": bias.reshape(1, -1)}
        else:
            row["weights"] = cell(_hwio(weight), bias.reshape(-1, 1))
        found += [row, {"name": f"relu_{layer}", "type": "relu"}]
    return found


def matconvnet(path: Path, _: Architecture, tensors: Tensors) -> None:
    normalization = {
        "imageSize": np.array([[224.0, 224, 3]]),
        "averageImage": np.array(MEAN, dtype=np.float32).reshape(1, 1, 3),
    }
    meta = {"normalization": normalization, "classes": {"name": cell("n01440764", "n01443537")}}
    content = {"layers": cell(*matconvnet_layers(tensors)), "meta": meta}
    with path.open("wb") as stream:
        scipy.io.savemat(stream, content, do_compression=True)


def matconvnet_old(path: Path, _: Architecture, tensors: Tensors) -> None:
    image = np.broadcast_to(np.array(MEAN, dtype=np.float32), (24, 24, 3))
    content = {
        "layers": cell(*matconvnet_layers(tensors, old=True)),
        "normalization": {"averageImage": image, "keepAspect": 1.0},
        "classes": {"description": cell("tench")},
    }
    with path.open("wb") as stream:
        scipy.io.savemat(stream, content)


def matconvnet_73(
    path: Path, _: Architecture, tensors: Tensors, *, old: bool = False, mean: object = MEAN
) -> None:
    """As MATLAB's `save -v7.3`: axes in reverse, cells as references into #refs#."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def put(group: Any, name: str, value: object) -> None:  # noqa: ANN401  (h5py has none)
            if isinstance(value, str):
                data = np.array([[ord(c)] for c in value], dtype=np.uint16)
                group[name] = data
            elif isinstance(value, dict):
                inner = group.create_group(name)
                for key, item in value.items():
                    put(inner, key, item)
            elif isinstance(value, np.ndarray) and value.dtype == object:
                found = []
                for item in value.ravel():
                    place = f"r{len(refs)}"
                    put(refs, place, item)
                    found.append([refs[place].ref])
                group.create_dataset(name, data=found, dtype=h5py.ref_dtype)
            else:
                array = np.asarray(value)
                packed = {"compression": "gzip", "shuffle": True} if array.size > 1000 else {}
                group.create_dataset(name, data=array.T, **packed)

        put(file, "layers", cell(*matconvnet_layers(tensors, old=old)))
        image = np.array(mean, dtype=np.float64).reshape(1, 1, 3)
        put(file, "meta", {"normalization": {"averageImage": image}})
    with path.open("r+b") as stream:  # MATLAB's header lies in front of HDF5's
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


# --- Keras --------------------------------------------------------------------------------------


def keras_name(layer: str) -> str:
    fc = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    return fc.get(layer, f"block{layer[4:5]}_conv{layer[6:]}")


def keras_kernel(layer: str, weight: Array) -> Array:
    """Kernels (kh, kw, in, out); matrices (in, out), the rows of fc1 in the order H, W, C."""
    if not layer.startswith("fc"):
        return _hwio(weight)
    return _hwio(weight).reshape(-1, len(weight))


def keras_old(path: Path, _: Architecture, tensors: Tensors) -> None:
    """The published files: Keras 1."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"input_1", b"block1_conv1"])
        file.create_group("input_1").attrs["weight_names"] = np.array([], dtype=float)
        for layer, weight, bias in layers(bgr(tensors)):
            name = keras_name(layer)
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}_W_1:0".encode()])
            group[f"{name}_W_1:0"] = keras_kernel(layer, weight)
            group[f"{name}_b_1:0"] = bias


def keras_new(path: Path, _: Architecture, tensors: Tensors) -> None:
    """A whole model of Keras 2."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = '{"class_name": "Functional"}'
        top = file.create_group("model_weights")
        top.create_group("flatten")
        file["optimizer_weights/iteration:0"] = np.int64(3)
        for layer, weight, bias in layers(bgr(tensors)):
            name = keras_name(layer)
            top[f"{name}/{name}/kernel:0"] = keras_kernel(layer, weight)
            top[f"{name}/{name}/bias:0"] = bias


# --- Frossard, and our own ----------------------------------------------------------------------


def frossard_arrays(tensors: Tensors) -> dict[str, Array]:
    found = {}
    for layer, weight, bias in layers(tensors):
        found[f"{layer}_W"] = keras_kernel(layer, weight)
        found[f"{layer}_b"] = bias
    return found


def frossard(path: Path, _: Architecture, tensors: Tensors) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **frossard_arrays(tensors))


def frossard_packed(path: Path, _: Architecture, tensors: Tensors) -> None:
    arrays = {n: np.asfortranarray(a) for n, a in frossard_arrays(tensors).items()}
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


OWN = {
    "format": "vggfeat-weights 1",
    "profile": "oxford",
    "channels": "BGR",
    "origin": "x.caffemodel",
    "origin_sha256": "0" * 64,
    "layout": "caffe",
}


def vggfeat(path: Path, net: Architecture, tensors: Tensors) -> None:
    found = {name: tensor.contiguous() for name, tensor in bgr(tensors).items()}
    save_file(found, path, {**OWN, "net": net.name})


# writer → the layout, channels and profile that its file has to be recognised as having
WRITERS: dict[Writer, tuple[str, str | None, str | None]] = {
    torchvision: ("torchvision", None, None),
    torchvision_legacy: ("torchvision", None, None),
    torchvision_safetensors: ("torchvision", None, None),
    jcjohnson: ("jcjohnson", "BGR", "oxford"),
    timm: ("timm", None, None),
    caffe_v1: ("caffe", "BGR", "oxford"),
    caffe_new: ("caffe", "BGR", "oxford"),
    caffe_double: ("caffe", "BGR", "oxford"),
    matconvnet: ("matconvnet", "RGB", "oxford"),
    matconvnet_old: ("matconvnet", "RGB", "oxford"),
    matconvnet_73: ("matconvnet", "RGB", "oxford"),
    keras_old: ("keras", "BGR", "oxford"),
    keras_new: ("keras", "BGR", "oxford"),
    frossard: ("frossard", "RGB", "oxford"),
    frossard_packed: ("frossard", "RGB", "oxford"),
    vggfeat: ("vggfeat", "BGR", "oxford"),
}
