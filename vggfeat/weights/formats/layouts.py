"""The names and axes of each layout, and how a file's layout is recognised."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import Architecture
from vggfeat.weights.formats.sniff import Channels, Format, LayoutName

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED = "vggfeat-weights 1"  # the format that our own files name in their metadata

_KERAS_LEAF = re.compile(r"(?:.*_)?(?P<kind>W|b|kernel|bias)(?:_\d+)?(?::\d+)?|\d+")
_KERAS_KINDS = {"W": "kernel", "b": "bias", "0": "kernel", "1": "bias"}
_KERAS_CONVOLUTION = re.compile(r"block\d_conv\d|conv2d(_\d+)?")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Whose names and axes a file has.

    Attributes:
        name: Of the layout.
        names: Gives the file's name of each of our tensors, for a net.
        channels: The order that conv1_1 reads, where the layout says so.
        profile: The preprocessing, where the layout says so.
        inputs_first: Axes are (kernel, kernel, in, out), and a matrix is (in, out) with fc6's
            inputs in the order row, column, channel; else (out, in, kernel, kernel), (out, in),
            and channel, row, column.
        trunk: How the file's names of the convolutions begin, and of nothing else.
        unify: Brings the several styles of names that a layout has into one, in place.
    """

    name: LayoutName
    names: Callable[[Architecture], dict[str, str]]
    channels: Channels | None = None
    profile: str | None = None
    inputs_first: bool = False
    trunk: str = "conv"
    unify: Callable[[Path, dict[str, Tensor]], None] | None = None


def wanted(net: Architecture, last: str = "fc8") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every tensor of a net, up to the layer or pool `last`."""
    for layer in net.layers(last):
        yield from layer.tensors()


def _torch_names(fc: tuple[str, str, str], net: Architecture) -> dict[str, str]:
    """Number the layers as torchvision's `features` do: ReLUs and pools count as well."""
    prefixes = dict(zip(("fc6", "fc7", "fc8"), fc, strict=True))
    norms: dict[str, str] = {}
    index = 0
    for number, block in enumerate(net.blocks, 1):
        for position in range(1, len(block) + 1):
            prefixes[f"conv{number}_{position}"] = f"features.{index}"
            norms[f"conv{number}_{position}"] = f"features.{index + 1}"
            index += 3 if net.batch_norm else 2
        index += 1
    parts = {"mean": "running_mean", "variance": "running_var"}
    names = {}
    for name, _ in wanted(net):
        layer, _, part = name.partition(".")
        if part.startswith("norm."):
            part = part.removeprefix("norm.")
            names[name] = f"{norms[layer]}.{parts.get(part, part)}"
        else:
            names[name] = f"{prefixes[layer]}.{part}"
    return names


def _keras_names(net: Architecture) -> dict[str, str]:
    fc = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    names = {}
    for name, _ in wanted(net):
        layer, _, part = name.partition(".")
        layer = fc.get(layer, layer.replace("conv", "block").replace("_", "_conv"))
        names[name] = f"{layer}/{'kernel' if part == 'weight' else part}"
    return names


def _frossard_names(net: Architecture) -> dict[str, str]:
    suffixes = {"weight": "W", "bias": "b"}
    names = {}
    for name, _ in wanted(net):
        layer, _, part = name.partition(".")
        names[name] = f"{layer}_{suffixes.get(part, part)}"
    return names


def _own_names(net: Architecture) -> dict[str, str]:
    return {name: name for name, _ in wanted(net)}


def _numbered_names(net: Architecture) -> dict[str, str]:
    """Number the convolutions, and the fully connected layers, where only their order is told."""
    counts = {"conv": 0, "fc": 0}
    names = {}
    for layer in net.layers():
        kind = "fc" if layer.connected else "conv"
        for name, _ in layer.tensors():
            part = name.partition(".")[2]
            names[name] = f"{kind}.{counts[kind]}/{'kernel' if part == 'weight' else part}"
        counts[kind] += 1
    return names


def _unify_keras(path: Path, found: dict[str, Tensor]) -> None:
    """Make "block1_conv1/kernel" of its several forms, or "conv.0/kernel" of automatic names.

    They are "block1_conv1/block1_conv1_W_1:0" and its later forms, TensorFlow.js' "conv2d_3/0",
    and Keras 3's "layers/conv2d_3/vars/0", where a model within a model has a place of its own.
    """
    parts = {name: found_parts for name in found if (found_parts := _keras_parts(name))}
    homes = {place for place, layer, _ in parts.values() if _KERAS_CONVOLUTION.fullmatch(layer)}
    if len(homes) > 1:
        some = ", ".join(sorted(map(repr, homes)))
        raise WeightsError(f"'{path}' has convolutions in {some}.", "Expected one net.")
    for name, (place, layer, kind) in parts.items():
        tensor = found.pop(name)
        if homes and place not in homes:
            continue  # of what was put around the net
        if f"{layer}/{kind}" in found:
            raise WeightsError(f"'{path}' has {layer}/{kind} twice.", "Expected one net.")
        found[f"{layer}/{kind}"] = tensor
    if not any(name.startswith("block") for name in found):
        _number_keras(path, found)


def _keras_parts(name: str) -> tuple[str, str, str] | None:
    """Return the place of a layer within the file, its name, and kernel or bias."""
    *above, leaf = name.replace("\\", "/").split("/")
    if above[-1:] == ["vars"]:
        above.pop()
        place = "/".join(above[:-1])
    else:
        place = ""
    match = _KERAS_LEAF.fullmatch(leaf)
    if not above or match is None:
        return None
    kind = match["kind"] or leaf
    return place, above[-1], _KERAS_KINDS.get(kind, kind)


def _number_keras(path: Path, found: dict[str, Tensor]) -> None:
    """Give layers with automatic names, which count up as they are made, their numbers."""
    layers = {name.rpartition("/")[0] for name in found}
    norm = next((layer for layer in layers if layer.startswith("batch_normalization")), None)
    if norm is not None and "conv2d" in {layer.partition("_")[0] for layer in layers}:
        raise WeightsError(
            f"'{path}' has automatic names and a layer {norm!r}: nothing tells where it stands.",
            "Expected convolutions and fully connected layers alone, or the layers' own names.",
            "Save the VGG net without what was put on top of it.",
        )
    for theirs, ours in (("conv2d", "conv"), ("dense", "fc")):
        matches = (re.fullmatch(rf"{theirs}(?:_(\d+))?", layer) for layer in layers)
        numbers = {int(match[1] or 0): match[0] for match in matches if match}
        for number, (_, layer) in enumerate(sorted(numbers.items())):
            for kind in ("kernel", "bias"):
                if f"{layer}/{kind}" in found:
                    found[f"{ours}.{number}/{kind}"] = found.pop(f"{layer}/{kind}")


_CLASSIFIER = ("classifier.0", "classifier.3", "classifier.6")
_JCJOHNSON = ("classifier.1", "classifier.4", "classifier.6")
_TIMM = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
_TORCHVISION = Layout(
    name="torchvision", names=partial(_torch_names, _CLASSIFIER), trunk="features."
)
LAYOUTS: dict[LayoutName, Layout] = {  # those that a format brings along
    "caffe": Layout(name="caffe", names=_own_names, channels="BGR", profile="oxford"),
    "matconvnet": Layout(
        name="matconvnet", names=_own_names, channels="RGB", profile="oxford", inputs_first=True
    ),
    "keras": Layout(
        name="keras",
        names=_keras_names,
        channels="BGR",
        profile="oxford",
        inputs_first=True,
        trunk="block",
        unify=_unify_keras,
    ),
    "onnx": Layout(name="onnx", names=_numbered_names, trunk="conv."),
    "frossard": Layout(  # RGB says its author's page
        name="frossard", names=_frossard_names, channels="RGB", profile="oxford", inputs_first=True
    ),
}


def layout_of(
    path: Path,
    form: Format,
    found: dict[str, Tensor],
    metadata: Mapping[str, str],
    net: Architecture,
) -> Layout:
    """Return the layout of a file, by its format and names.

    Args:
        path: For messages.
        form: As `recognise` says.
        found: Its tensors; Keras' names, of which there are several styles, become one style.
        metadata: Of a safetensors file.
        net: The net that is expected.

    Raises:
        WeightsError: If its names are of no known layout, or it says that it is another net.
    """
    if form.layout is not None:
        return _of_format(path, LAYOUTS[form.layout], found)
    if "vggfeat" in metadata.get("format", ""):
        return _converted(path, metadata, net)
    if "head.fc.weight" in found or "pre_logits.fc1.weight" in found:
        return Layout(name="timm", names=partial(_torch_names, _TIMM), trunk="features.")
    if "classifier.1.weight" in found and "classifier.0.weight" not in found:
        names = partial(_torch_names, _JCJOHNSON)
        return Layout(
            name="jcjohnson", names=names, channels="BGR", profile="oxford", trunk="features."
        )
    if "conv1_1.weight" in found:
        return Layout(name="plain", names=_own_names)
    if "features.0.weight" in found or not found:
        return _TORCHVISION
    some = ", ".join(repr(name) for name in list(found)[:3])
    raise WeightsError(
        f"'{path}' has names of no known layout: {some}, …",
        "Expected torchvision's (features.0.weight …), jcjohnson's, timm's or the authors' "
        "(conv1_1.weight …).",
        "Is it a VGG net, and the bare dictionary of its tensors?",
    )


def _of_format(path: Path, layout: Layout, found: dict[str, Tensor]) -> Layout:
    if layout.unify is not None:
        layout.unify(path, found)
    if layout.name == "keras" and "conv.0/kernel" in found:
        return replace(layout, names=_numbered_names, trunk="conv.")
    return layout


def _converted(path: Path, metadata: Mapping[str, str], net: Architecture) -> Layout:
    channels, profile = metadata.get("channels"), metadata.get("profile")
    if metadata["format"] != CONVERTED or channels not in {"RGB", "BGR"} or not profile:
        raise WeightsError(
            f"'{path}' says of itself that it is {metadata['format']!r}, channels {channels!r}.",
            f"Expected {CONVERTED!r}.",
            "Convert the original file again.",
        )
    if metadata.get("net") != net.name:  # shapes alone do not tell vgg11 from vgg11-lrn
        raise WeightsError(
            f"'{path}' does not hold {net.name}: it says that it is {metadata.get('net')!r}.",
            remedy="Pass its --model, or another file.",
        )
    order: Channels = "RGB" if channels == "RGB" else "BGR"
    return Layout(name="vggfeat", names=_own_names, channels=order, profile=profile)
