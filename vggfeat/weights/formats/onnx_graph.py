"""VGG nets in ONNX: the constants of a chain of products. Only `sandbox`'s process imports this.

Exporters name constants as they like, so that their order in the graph says which layer each is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.weights.formats.plain import MOST_VALUES, FloatArray, Plain, Refused, as_float32

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_NODES = 20_000  # vgg19 has about 50
_LARGEST = (1 << 31) - 1  # bytes, of a message of protocol buffers
_PASSED = {"Flatten", "Reshape", "Relu", "Dropout", "Identity", "Squeeze", "Cast"}
_WINDOWS = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_UNREAD = {  # what changes the weights, or keeps them elsewhere
    *("BatchNormalization", "InstanceNormalization", "QLinearConv", "ConvInteger"),
    *("QLinearMatMul", "MatMulInteger", "If", "Loop", "Scan"),
}


@contextmanager
def weights(path: Path) -> Iterator[list[Plain]]:
    """Open an ONNX graph and give the weights of its layers, in their order.

    Args:
        path: Of a .onnx file that holds its numbers itself.

    Yields:
        "conv.0/kernel" (out, in, H, W), "conv.0/bias" (out,), ..., "fc.0/kernel" (out, in), or
        (out, in, H, W), the inputs of the first one in the order channel, row, column, ...

    Raises:
        Refused: If it holds anything but such a chain, or the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise Refused(
            "to read an ONNX graph takes the package onnx: pip install 'vggfeat[onnx]'"
        ) from None
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise Refused(f"it has more than {_LARGEST:,} bytes")
    graph = _Graph(onnx.load_model_from_string(content).graph, onnx)
    del content
    yield [
        Plain(name=name, shape=values.shape, load=lambda values=values: as_float32(values))  # type: ignore[misc]
        for name, values in graph.layers()
    ]


class _Graph:
    """The nodes of a graph, by what they give.

    Args:
        graph: A GraphProto.
        onnx: The package.
    """

    def __init__(self, graph: Any, onnx: Any) -> None:  # noqa: ANN401  (neither has annotations)
        if len(graph.node) > _MOST_NODES:
            raise Refused(f"it has {len(graph.node):,} nodes")
        self.onnx = onnx
        self.nodes = list(graph.node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.biases: set[int] = set()  # the id of each node that only adds a bias

    def layers(self) -> Iterator[tuple[str, Array]]:
        """Yield name and values of the constants of each product."""
        counts = {"conv": 0, "fc": 0}
        channels = 0
        for node in self.nodes:
            self._check(node, first=not counts["conv"])
            kernel = self._kernel(node)
            if kernel is None:
                continue
            connected = bool(counts["fc"]) or kernel.ndim == 2 or kernel.shape[-1] > 3
            if connected and not counts["fc"] and kernel.ndim == 2:
                kernel = self._channels_first(node, kernel, channels)
            kind = "fc" if connected else "conv"
            channels = kernel.shape[0]
            yield f"{kind}.{counts[kind]}/kernel", kernel
            bias = self._bias(node)
            if bias is not None:
                yield f"{kind}.{counts[kind]}/bias", bias.reshape(-1)
            counts[kind] += 1

    def _check(self, node: Any, *, first: bool) -> None:  # noqa: ANN401
        if node.op_type in _UNREAD or node.domain not in {"", "ai.onnx"}:
            kind = f"{node.domain}.{node.op_type}".strip(".")
            raise Refused(f"it has nodes of the kind {kind}, which are not read")
        if node.op_type in _ARITHMETIC and id(node) not in self.biases:
            constants = [self._constant(name) for name in node.input]
            if any(c is not None and c.dtype.kind == "f" and c.size > 1 for c in constants):
                where = "before its first convolution" if first else "between its layers"
                raise Refused(f"it computes {node.op_type} with constants {where}")

    def _kernel(self, node: Any) -> Array | None:  # noqa: ANN401
        """Return the weight of a product, (out, in, ...); None for any other node."""
        if node.op_type not in {"Conv", "Gemm", "MatMul"}:
            return None
        settings = self._settings(node)
        kernel = self._constant(node.input[1])
        if kernel is None or kernel.dtype.kind != "f":
            maker = self.producers.get(node.input[1])
            made = f" but computed by {maker.op_type}" if maker is not None else ""
            raise Refused(f"the weight of a {node.op_type} is no constant{made}")
        plain = {"group": 1, "alpha": 1.0, "beta": 1.0, "transA": 0}
        for name, value in plain.items():
            if settings.get(name, value) != value:
                raise Refused(f"a {node.op_type} has {name} = {settings[name]}")
        if node.op_type == "Conv":
            return kernel
        if kernel.ndim != 2:
            raise Refused(f"the weight of a {node.op_type} has the shape {kernel.shape}")
        return kernel if settings.get("transB") else kernel.T

    def _bias(self, node: Any) -> Array | None:  # noqa: ANN401
        """Return what is added to a product, by itself or by the node behind it."""
        if len(node.input) > 2 and node.input[2]:
            return self._constant(node.input[2])
        for other in self.nodes:
            if other.op_type == "Add" and node.output[0] in other.input:
                [term] = [name for name in other.input if name != node.output[0]] or [""]
                found = self._constant(term)
                if found is not None:
                    self.biases.add(id(other))
                return found
        return None

    def _channels_first(self, node: Any, kernel: Array, channels: int) -> Array:  # noqa: ANN401
        """Return the first product's weight, its inputs in the order channel, row, column."""
        name = node.input[0]
        for _ in range(_MOST_NODES):
            maker = self.producers.get(name)
            if maker is None or maker.op_type in _WINDOWS:
                return kernel
            if maker.op_type == "Transpose":
                turn = list(self._settings(maker).get("perm", []))
                if turn != [0, 2, 3, 1]:
                    raise Refused(f"its maps are turned by {turn} before they are flattened")
                break
            if maker.op_type not in _PASSED:
                raise Refused(f"a {maker.op_type} lies before its first product")
            name = maker.input[0]
        out, inputs = kernel.shape
        side = math.isqrt(inputs // channels) if channels else 0
        if not side or side * side * channels != inputs:
            raise Refused(f"its first product has {inputs:,} inputs of {channels:,} channels")
        turned = kernel.reshape(out, side, side, channels).transpose(0, 3, 1, 2)
        return turned.reshape(out, inputs)

    def _settings(self, node: Any) -> dict[str, Any]:  # noqa: ANN401
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def _constant(self, name: str) -> Array | None:
        """Return a constant, or one that is made of constants alone; None for anything else."""
        if name in self.initializers:
            return self._values(self.initializers[name])
        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant":
            value = self._settings(node).get("value")
            return None if value is None else self._values(value)
        if node is None or node.op_type not in {"Identity", "Transpose", "DequantizeLinear"}:
            return None
        return self._made(node)

    def _made(self, node: Any) -> Array | None:  # noqa: ANN401
        """Return what a node makes of constants."""
        values, settings = self._constant(node.input[0]), self._settings(node)
        if values is None or node.op_type == "Identity":
            return values
        if node.op_type == "Transpose":
            return values.transpose(settings.get("perm"))
        terms = [self._constant(term) for term in node.input[1:]]
        return _dequantised(values, terms, settings.get("axis", 1))

    def _values(self, tensor: Any) -> Array:  # noqa: ANN401
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise Refused(
                f"{tensor.name!r} has its numbers in another file; write one file, from torch by "
                "torch.onnx.export(..., external_data=False)"
            )
        if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) > MOST_VALUES:
            raise Refused(f"{tensor.name!r} has the shape {tuple(tensor.dims)}")
        found: Array = self.onnx.numpy_helper.to_array(tensor)
        return found


def _dequantised(values: Array, terms: list[Array | None], axis: int) -> FloatArray:
    """Return (values − zero point) · scale, of the whole or of each slice along an axis."""
    scale, zero = (*terms, None)[:2]
    if scale is None or scale.ndim > 1:
        raise Refused("a weight of fewer bits has no scale that is a constant")
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    whole = values.astype(np.float32)
    if zero is not None:
        whole -= zero.astype(np.float32).reshape(shape if zero.size > 1 else [1] * values.ndim)
    return whole * scale.astype(np.float32).reshape(shape)
