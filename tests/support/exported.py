"""Weight files as exporters write them: Keras 3, TensorFlow.js, ONNX and torch checkpoints.

Names and axes by Keras' saving_lib.py (`_save_container_state`: a layer goes by its class and a
number), TensorFlow.js' converter (quantization.py, write_weights.py) and the ONNX operators.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from tests.support.layouts import (
    Array,
    Tensors,
    bgr,
    keras_kernel,
    keras_name,
    layers,
    state,
)
from vggfeat.nets.architectures import Architecture

# --- rounded to 8 bits ----------------------------------------------------------------------------


def quantised(values: Array) -> tuple[Array, float, float]:
    """Return q (uint8), scale and min, for values ≈ q · scale + min."""
    least, most = float(values.min()), float(values.max())
    scale = (most - least) / 255 or 1.0
    return np.round((values - least) / scale).astype(np.uint8), scale, least


def dequantised(q: Array, scale: float, least: float) -> Array:
    return q.astype(np.float32) * np.float32(scale) + np.float32(least)


def eight_bits(tensors: Tensors) -> Tensors:
    """Return the tensors as a file of 8 bits gives them back."""
    return {n: torch.from_numpy(dequantised(*quantised(t.numpy()))) for n, t in tensors.items()}


# --- TensorFlow.js --------------------------------------------------------------------------------


def keras_arrays(tensors: Tensors) -> Iterable[tuple[str, Array]]:
    for layer, weight, bias in layers(bgr(tensors)):
        yield f"{keras_name(layer)}/kernel", keras_kernel(layer, weight)
        yield f"{keras_name(layer)}/bias", bias


def tfjs(
    folder: Path,
    tensors: Tensors,
    kind: str = "uint8",
    *,
    shard: int = 100_000,
    graph: bool = False,
) -> Path:
    """Write model.json and shards; numbers that were `eight_bits` come back as they are."""
    content, weights = b"", []
    for their_name, values in keras_arrays(tensors):
        layer, _, part = their_name.partition("/")
        product = "MatMul" if values.ndim == 2 else "Conv2D"
        node = f"vgg/{layer}/{product if part == 'kernel' else 'BiasAdd'}/ReadVariableOp"
        entry: dict[str, Any] = {"name": node if graph else their_name, "dtype": "float32"}
        entry["shape"] = list(values.shape)
        if kind == "float32":
            content += values.tobytes()
        elif kind == "float16":
            entry["quantization"] = {"dtype": kind, "original_dtype": "float32"}
            content += values.astype(np.float16).tobytes()
        else:
            top = np.iinfo(kind).max
            scale = (float(values.max()) - float(values.min())) / top or 1.0
            q = np.round((values - float(values.min())) / scale).astype(kind)
            content += q.tobytes()
            entry["quantization"] = {"dtype": kind, "scale": scale, "min": float(values.min())}
        weights.append(entry)
    parts = [content[at : at + shard] for at in range(0, len(content), shard)]
    names = [f"group1-shard{i}of{len(parts)}.bin" for i in range(1, len(parts) + 1)]
    folder.mkdir(exist_ok=True)
    for name, piece in zip(names, parts, strict=True):
        (folder / name).write_bytes(piece)
    model = {
        "format": "graph-model" if graph else "layers-model",
        "modelTopology": {"keras_version": "2.2.4-tf"},
        "weightsManifest": [{"paths": names, "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


# --- Keras 3 --------------------------------------------------------------------------------------


def keras_classes(tensors: Tensors) -> Iterable[tuple[str, str, Array, Array]]:
    """Yield class, the layer's own name, kernel and bias, in the order of the model."""
    for layer, weight, bias in layers(bgr(tensors)):
        kind = "Dense" if layer.startswith("fc") else "Conv2D"
        yield kind, keras_name(layer), keras_kernel(layer, weight), bias


def keras_weights(file: h5py.File, tensors: Tensors, place: str = "") -> None:
    counts: dict[str, int] = {}
    file.create_group(f"{place}layers/input_layer/vars")
    for kind, _, kernel, bias in keras_classes(tensors):
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        name = kind.lower() + (f"_{number}" if number else "")
        group = file.create_group(f"{place}layers/{name}/vars")
        group["0"], group["1"] = kernel, bias
    file["optimizer/vars/0"] = np.float32(0.1)
    file["optimizer/vars/1"] = np.zeros((3, 3, 3, 8), np.float32)


def keras3_weights(path: Path, _: Architecture, tensors: Tensors) -> None:
    """As `save_weights("x.weights.h5")`."""
    with h5py.File(path, "w") as file:
        keras_weights(file, tensors)


def keras3_nested(path: Path, _: Architecture, tensors: Tensors) -> None:
    """The same of a model within a model, which has a head of its own."""
    with h5py.File(path, "w") as file:
        keras_weights(file, tensors, "layers/functional/")
        group = file.create_group("layers/dense/vars")
        group["0"], group["1"] = np.ones((64, 10), np.float32), np.zeros(10, np.float32)
        norm = file.create_group("layers/batch_normalization/vars")
        for number in range(4):
            norm[str(number)] = np.ones(64, np.float32)


def keras_config(tensors: Tensors) -> dict[str, Any]:
    found: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"name": "input_1"}}]
    for kind, name, *_ in keras_classes(tensors):
        found.append({"class_name": kind, "config": {"name": name}, "name": name})
    found.append({"class_name": "Lambda", "config": {"name": "x", "function": "evil"}})
    return {"class_name": "Functional", "config": {"name": "vgg", "layers": found}}


def keras3(
    path: Path, _: Architecture, tensors: Tensors, packing: int = zipfile.ZIP_STORED
) -> None:
    """As `model.save("x.keras")`."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        keras_weights(file, tensors)
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.3.3"}))
        archive.writestr("config.json", json.dumps(keras_config(tensors)))
        archive.writestr("model.weights.h5", content.getvalue())


# --- ONNX -----------------------------------------------------------------------------------------


class _Graph:
    """Nodes and constants, as they are made.

    Args:
        stored: Keep 8 bits of each weight, and a DequantizeLinear behind it.
    """

    def __init__(self, *, stored: bool) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.stored = stored

    def node(self, kind: str, *inputs: str, **settings: Any) -> str:  # noqa: ANN401  (onnx's own)
        from onnx import helper

        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **settings))
        return name

    def constant(self, values: Array) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, values: Array) -> str:
        if not self.stored:
            return self.constant(values)
        q, scale, least = quantised(values)
        terms = (q, np.asarray(np.float32(scale)), np.asarray(np.uint8(round(-least / scale))))
        return self.node("DequantizeLinear", *map(self.constant, terms))


def onnx(
    path: Path,
    _: Architecture,
    tensors: Tensors,
    *,
    rows_first: bool = False,
    products: str = "Gemm",
    stored: bool = False,
) -> None:
    """Write a graph as torch's exporter does, or (`rows_first`, MatMul) tf2onnx."""
    import onnx as package
    from onnx import TensorProto, helper

    graph = _Graph(stored=stored)
    last = graph.node("Transpose", "image", perm=[0, 3, 1, 2]) if rows_first else "image"
    block = "1"
    for layer, weight, bias in layers(tensors):
        if layer.startswith("conv"):
            if layer[4] != block:
                last = graph.node("MaxPool", last, kernel_shape=[2, 2], strides=[2, 2])
            block = layer[4]
            kernel, shift = graph.weight(weight), graph.constant(bias)
            last = graph.node("Conv", last, kernel, shift, pads=[1, 1, 1, 1])
        else:
            turn = [0, 2, 3, 1] if rows_first else [0, 1, 2, 3]
            if layer == "fc6":
                last = graph.node("Transpose", last, perm=turn) if rows_first else last
                last = graph.node("Flatten", graph.node("Identity", last))
            matrix = weight.transpose(turn).reshape(len(weight), -1)
            last = _product(graph, last, matrix, bias, products)
        last = graph.node("Relu", last)
    shape = [1, 224, 224, 3] if rows_first else [1, 3, 224, 224]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    scores = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    made = helper.make_graph(graph.nodes, "vgg", [image], [scores], graph.constants[::-1])
    package.save(helper.make_model(made, producer_name="test"), str(path))


def _product(graph: _Graph, last: str, matrix: Array, bias: Array, kind: str) -> str:
    if kind == "Gemm":
        return graph.node("Gemm", last, graph.weight(matrix), graph.constant(bias), transB=1)
    last = graph.node("MatMul", last, graph.weight(matrix.T))
    return graph.node("Add", graph.constant(bias), last)


# --- torch ----------------------------------------------------------------------------------------


def wrapped(net: Architecture, tensors: Tensors, form: str) -> object:
    """Return what a training script may have saved, by the name of its form."""
    bare = state(net, tensors)
    forms: dict[str, Any] = {
        "state_dict": {"epoch": 3, "state_dict": bare, "optimizer": {"state": {0: {}}}},
        "model": {"model": bare, "args": {"lr": 0.1}, "loss": torch.tensor(0.3)},
        "model_state_dict": {"model_state_dict": bare, "optimizer_state_dict": _adam(bare)},
        "net": {"net": bare},
        "inner": {"model": {"state_dict": bare}},
        "lightning": {
            "state_dict": _below("model.", bare) | {"loss.weight": torch.ones(10)},
            "pytorch-lightning_version": "2.4.0",
            "optimizer_states": [_adam(bare)],
            "loops": {"fit_loop": {"state_dict": {}}},
        },
        "module.": _below("module.", bare),
        "model.": _below("model.", bare),
        "net.": _below("net.", bare),
        "_orig_mod.": _below("_orig_mod.", bare),
        "backbone.": _below("backbone.", bare) | {"head.weight": torch.ones(10, 512)},
        "model.module._orig_mod.": _below("model.module._orig_mod.", bare),
        "features.module.": {
            name.replace("features.", "features.module."): tensor for name, tensor in bare.items()
        },
    }
    return forms[form]


WRAPPED = (
    *("state_dict", "model", "model_state_dict", "net", "inner", "lightning", "module.", "model."),
    *("net.", "_orig_mod.", "backbone.", "model.module._orig_mod.", "features.module."),
)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _adam(tensors: Tensors) -> dict[str, Any]:
    moments = {i: {"exp_avg": t.clone(), "step": 3} for i, t in enumerate(tensors.values())}
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}
