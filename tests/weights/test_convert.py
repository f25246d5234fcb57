from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.support import layouts
from tests.support.layouts import Tensors
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.weights.convert import convert, converted_metadata
from vggfeat.weights.formats import Port, read

THIN = ARCHITECTURES["vgg16-thin"]


@pytest.fixture
def truth() -> Tensors:
    return layouts.thin_truth()


def test_a_conversion_keeps_everything_and_is_done_once(tmp_path: Path, truth: Tensors) -> None:
    layouts.keras_old(tmp_path / "keras.h5", THIN, truth)
    port = read(tmp_path / "keras.h5", THIN)
    target = tmp_path / "cache" / "new.safetensors"
    said = {"origin": "keras.h5", "origin_sha256": "ab" * 32, "profile": "oxford"}
    assert convert(port, THIN, **said, target=target) == target
    before = target.stat()
    assert converted_metadata(target) == {
        **said,
        "format": "vggfeat-weights 1",
        "net": "vgg16-thin",
        "channels": "BGR",
        "layout": "keras",
    }
    again = read(target, THIN)
    assert (again.layout, again.channels, again.profile) == ("vggfeat", "BGR", "oxford")
    assert list(again.tensors) == list(truth)
    assert all(torch.equal(again.tensors[name], port.tensors[name]) for name in truth)
    with safe_open(target, framework="pt") as file:  # by the library's own reader
        assert torch.equal(file.get_tensor("fc6.weight"), truth["fc6.weight"])
    convert(port, THIN, **said, target=target)
    assert target.stat().st_ino == before.st_ino
    convert(port, THIN, **{**said, "origin": "other.h5"}, target=target)
    assert target.stat().st_ino != before.st_ino
    assert [path.name for path in target.parent.iterdir()] == ["new.safetensors"]


def test_a_conversion_needs_a_settled_order(tmp_path: Path, truth: Tensors) -> None:
    port = Port(layout="torchvision", channels=None, profile=None, tensors=truth)
    said = {"origin": "x", "origin_sha256": "", "profile": "torchvision"}
    with pytest.raises(ValueError, match="settle"):
        convert(port, THIN, **said, target=tmp_path / "w")
    convert(dataclasses.replace(port, channels="RGB"), THIN, **said, target=tmp_path / "w")
    assert read(tmp_path / "w", THIN).profile == "torchvision"


def test_a_file_that_is_no_whole_conversion_says_nothing(tmp_path: Path, truth: Tensors) -> None:
    path = tmp_path / "w"
    assert converted_metadata(path) is None
    layouts.torchvision_safetensors(path, THIN, truth)
    assert converted_metadata(path) is None
    layouts.vggfeat(path, THIN, truth)
    assert converted_metadata(path) is not None
    path.write_bytes(path.read_bytes()[:-1])
    assert converted_metadata(path) is None
    path.write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00[[[[[")
    assert converted_metadata(path) is None
