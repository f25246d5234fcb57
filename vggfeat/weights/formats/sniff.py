"""The formats of weight files: how each is recognised, read and laid out. No torch here."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from vggfeat.errors import WeightsError
from vggfeat.files import kinds
from vggfeat.files.kinds import Kind
from vggfeat.weights.formats.caffe import begins_a_net
from vggfeat.weights.formats.tfjs import begins_a_model

LayoutName = Literal[
    "torchvision",
    "jcjohnson",
    "timm",
    "caffe",
    "matconvnet",
    "keras",
    "frossard",
    "onnx",
    "plain",
    "vggfeat",
]
Channels = Literal["RGB", "BGR"]

_TAIL = 8
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number
_TABLE_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # at the end of a TensorFlow checkpoint or index
_LONGEST_HEADER = 100_000_000  # of safetensors, by its specification

_FROSSARD = re.compile(r"(conv\d_\d|fc\d)_[Wb]\.npy")
# ModelProto begins with ir_version = 1, 3 and more for ten years, and one of the next fields.
_ONNX = re.compile(rb"\x08[\x03-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]")

# What a user may have got hold of instead, in the order in which it is tried.
_OTHERS = (
    *kinds.ARCHIVES,
    Kind("a zip archive of something else", "Unpack it first, if it holds a weight file.", b"PK"),
    Kind("a single NumPy array, or a pickle", "Use the .npz file, or another port.", b"\x93NUMPY"),
    Kind("a pickle that is no torch file", "It could run code, so it is never loaded.", b"\x80"),
    kinds.POINTER,
    Kind(
        "a TensorFlow SavedModel", "Save it from Keras: model.save('vgg.keras').", b"\x08\x01\x12"
    ),
    Kind("a GGUF file", "These hold language models.", b"GGUF"),
    Kind("a MATLAB file of an unknown version", "Save it with -v7 or -v7.3.", b"MATLAB"),
    kinds.EMPTY,
    Kind(
        "a TensorFlow Lite model",
        "Use the model that it was made from.",
        lambda head: head[4:8] == b"TFL3",
    ),
    kinds.TAR,
)
_TEXTS = (
    kinds.PAGE,
    Kind(
        "a prototxt, which describes a net and has no weights",
        "Use the .caffemodel.",
        lambda head: kinds.is_text(head) and b"layer" in head.lower() and b"{" in head,
    ),
    Kind("text", "Fetch the weight file itself.", kinds.is_text),
)
_CHECKPOINT = Kind("a TensorFlow checkpoint", "These are not read; use another port.", b"")
_UNKNOWN = Kind("of no format that is known", "Is it damaged, or cut short at its beginning?", b"")


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        name: In messages, and to the process that reads it.
        holds: What a file of it is, for messages.
        begins: Tells by its first bytes (4096 at most) and its size whether a file is one.
        reader: "module:function" of this package. Of a sandboxed format, path → context manager
            of its arrays, a list of `plain.Plain`; of any other, path → tensors and metadata, by
            name.
        sandboxed: Whether the reader is C code of others, which runs in a process of its own.
        layout: Whose names and axes its files have, a name in `layouts.LAYOUTS`; None where their
            names tell.
    """

    name: str
    holds: str
    begins: Callable[[bytes, int], bool]
    reader: str
    sandboxed: bool = False
    layout: LayoutName | None = None

    def load_reader(self) -> Callable[[Path], Any]:
        """Import `reader`, whose packages are needed for this format only."""
        module, _, function = self.reader.partition(":")
        found: Callable[[Path], Any] = getattr(import_module(f"{__package__}.{module}"), function)
        return found


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= min(_LONGEST_HEADER, size - 8)


def _first_member(head: bytes) -> str:
    """Return the name of a zip's first entry, which torch and NumPy write in a fixed way."""
    if not head.startswith(b"PK\x03\x04"):
        return ""
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode("utf-8", "replace")


FORMATS = (  # in the order in which they are tried
    Format(
        name="frossard",
        holds="Frossard's NumPy archive",
        begins=lambda head, size: _FROSSARD.fullmatch(_first_member(head)) is not None,
        reader="numpy:arrays",
        sandboxed=True,
        layout="frossard",
    ),
    Format(
        name="npz",
        holds="a NumPy archive of weights",
        begins=lambda head, size: _first_member(head).endswith(".npy"),
        reader="numpy:arrays",
        sandboxed=True,
    ),
    Format(
        name="pth",
        holds="a state dictionary saved by torch.save",
        begins=lambda head, size: (
            head.startswith(_LEGACY_TORCH)
            or _first_member(head).endswith(("/data.pkl", "/data/0"))  # the latter of TorchScript
        ),
        reader="sources:torch_file",
    ),
    Format(
        name="hdf5",
        holds="Keras weights in HDF5",
        begins=lambda head, size: head.startswith(_HDF5),
        reader="hdf5:keras",
        sandboxed=True,
        layout="keras",
    ),
    Format(
        name="keras",
        holds="a model of Keras 3",
        begins=lambda head, size: (
            _first_member(head) in {"metadata.json", "config.json", "model.weights.h5"}
        ),
        reader="keras3:model",
        sandboxed=True,
        layout="keras",
    ),
    Format(
        name="tfjs",
        holds="a TensorFlow.js model with its files beside it",
        begins=lambda head, size: begins_a_model(head),
        reader="sources:tfjs",
        layout="keras",
    ),
    Format(
        name="onnx",
        holds="an ONNX graph of a VGG net",
        begins=lambda head, size: _ONNX.match(head) is not None,
        reader="onnx_graph:weights",
        sandboxed=True,
        layout="onnx",
    ),
    Format(
        name="mat73",
        holds="a MatConvNet net",
        begins=lambda head, size: head.startswith(b"MATLAB 7.3") and head[512:520] == _HDF5,
        reader="hdf5:matconvnet",
        sandboxed=True,
        layout="matconvnet",
    ),
    Format(
        name="mat5",
        holds="a MatConvNet net",
        begins=lambda head, size: (
            head.startswith(b"MATLAB 5.0") and head[126:128] in {b"IM", b"MI"}
        ),
        reader="matlab:matconvnet",
        sandboxed=True,
        layout="matconvnet",
    ),
    Format(
        name="safetensors",
        holds="a safetensors file",
        begins=_is_safetensors,
        reader="sources:safetensors",
    ),
    Format(
        name="caffemodel",
        holds="a Caffe model",
        begins=lambda head, size: begins_a_net(head),
        reader="sources:caffe",
        layout="caffe",
    ),
)


def format_named(name: str) -> Format:
    """Return the format of that name."""
    return next(form for form in FORMATS if form.name == name)


def recognise(path: Path) -> Format:
    """Return the format of a file, by its content.

    Args:
        path: Its name and suffix do not matter.

    Raises:
        WeightsError: If it is none that is known; says what it is, where that can be seen.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            raise WeightsError(f"'{path}' is no regular file.", "Expected a weight file.")
        with path.open("rb") as stream:
            head = stream.read(kinds.HEAD)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL))
            tail = stream.read(_TAIL)
    except OSError as error:
        raise WeightsError(
            f"'{path}' cannot be read: {error.strerror}.", "Expected a weight file."
        ) from error
    form = next((form for form in FORMATS if form.begins(head, size)), None)
    if form is None:
        other = _something_else(head, tail)
        raise WeightsError(
            f"'{path}' is {other.what}.",
            "Expected a torch file, safetensors, caffemodel, .mat, .h5, .keras, .npz, .onnx or "
            "TensorFlow.js' model.json.",
            other.remedy,
        )
    return form


def _something_else(head: bytes, tail: bytes) -> Kind:
    checkpoint = (_CHECKPOINT,) if tail == _TABLE_MAGIC else ()
    choices: tuple[Kind, ...] = (*_OTHERS, *checkpoint, *_TEXTS, _UNKNOWN)
    return next(kind for kind in choices if kind.fits(head))
