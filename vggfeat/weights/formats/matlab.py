"""MatConvNet nets in MATLAB v5 files. Only `sandbox`'s process imports this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from vggfeat.weights.formats.plain import Plain, Refused, as_float32

Array = np.ndarray[Any, Any]

_MEAN = np.array([123.68, 116.779, 103.939])  # the authors', RGB
_NEAR = 0.01


@contextmanager
def matconvnet(path: Path) -> Iterator[list[Plain]]:
    """Read a MatConvNet net in MATLAB v5 and give its weights.

    Args:
        path: A "simple" net: a cell array `layers`, and the mean under `meta.normalization` or,
            in older files, `normalization`.

    Yields:
        "conv1_1.weight" (H, W, in, out), "conv1_1.bias" (out,), ...

    Raises:
        Refused: If it holds another kind of net, or another mean than the authors'.
    """
    with path.open("rb") as stream:
        content = scipy.io.loadmat(stream, variable_names=["layers", "normalization", "meta"])
    layers = content.get("layers")
    if layers is None or layers.dtype != object:
        raise Refused("it has no cell array 'layers', as MatConvNet's simple nets do")
    meta = content.get("meta")
    normalization = content.get("normalization") if meta is None else _field(meta, "normalization")
    check_mean(_field(normalization, "averageImage"))
    yield [array for layer in layers.ravel() for array in _layer(layer)]


def _layer(layer: Array) -> Iterator[Plain]:
    pair = _field(layer, "weights")
    weight, bias = (
        pair.ravel()
        if pair is not None and pair.dtype == object and pair.size == 2
        else (_field(layer, "filters"), _field(layer, "biases"))
    )
    if weight is None or bias is None or not weight.size:
        return
    name = _field(layer, "name")
    if name is None or name.dtype.kind != "U" or name.size != 1:
        raise Refused("a layer has no name")
    yield Plain(name=f"{name.item()}.weight", shape=weight.shape, load=partial(as_float32, weight))
    yield Plain(
        name=f"{name.item()}.bias", shape=(bias.size,), load=partial(as_float32, bias.ravel())
    )


def _field(struct: Any, name: str) -> Array | None:  # noqa: ANN401  (whatever a file holds)
    """Return a field of a 1×1 struct."""
    if not isinstance(struct, np.ndarray) or name not in (struct.dtype.names or ()):
        return None
    found = struct[name].item() if struct.size == 1 else None
    return found if isinstance(found, np.ndarray) else None


def check_mean(image: Array | None) -> None:
    """Refuse a net that was not trained with the authors' mean in the order RGB.

    Args:
        image: (H, W, 3) of one colour, or three numbers of any shape.

    Raises:
        Refused: Says what the mean is.
    """
    if image is None or image.dtype.kind != "f" or not image.size:
        raise Refused("it has no averageImage, so its preprocessing is not known")
    colours = image.reshape(-1, 3) if 3 in {image.size, *image.shape[-1:]} else None
    if colours is None or (np.ptp(colours, axis=0) > _NEAR).any():
        raise Refused(f"its averageImage {image.shape} is not of one colour, as the authors' is")
    mean = colours[0].astype(float)
    if np.abs(mean[::-1] - _MEAN).max() <= _NEAR:
        raise Refused("its averageImage is in the order BGR, and MatConvNet's nets read RGB")
    if not np.abs(mean - _MEAN).max() <= _NEAR:  # also where it is NaN
        said = ", ".join(f"{value:g}" for value in mean)
        raise Refused(f"its averageImage is ({said}), not the authors' (123.68, 116.779, 103.939)")
