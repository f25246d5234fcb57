from __future__ import annotations

import dataclasses

import pytest

from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.weights import catalogue as published
from vggfeat.weights.catalogue import by_digest, catalogue


def test_the_catalogue_has_every_family_in_order() -> None:
    usable = [file for file in catalogue() if file.usable]
    order = [file.layout for file in usable if (file.family, file.net) == ("oxford", "vgg19")]
    assert order == ["caffe", "jcjohnson", "keras", "matconvnet", "matconvnet", "matconvnet"]
    nets = {file.net for file in usable if file.family == "torchvision"}
    assert nets == {
        *("vgg11", "vgg13", "vgg16", "vgg19"),
        *("vgg11-bn", "vgg13-bn", "vgg16-bn", "vgg19-bn"),
    }
    assert all(file.urls for file in catalogue() if "beta 17" not in file.citation)
    assert {file.reason for file in catalogue() if not file.usable} >= {
        "It has no fully connected layers (include_top=False).",
        "It describes the net and holds no weights.",
    }


def test_a_published_file_is_known_by_its_digest() -> None:
    full = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
    found = by_digest(full)
    assert found is not None
    assert found.name == "vgg16-397923af.pth"
    assert found.remote.size == found.size == 553_433_881
    prefix = by_digest("00b39a1b" + "0" * 56)
    assert prefix is not None
    assert (prefix.layout, prefix.channels, prefix.profile) == ("jcjohnson", "BGR", "oxford")
    assert by_digest("397923af" + "0" * 56) is None  # the full digest is known, and it is another
    assert by_digest("0" * 64) is None


def test_the_sizes_of_the_catalogue_fit_the_nets() -> None:
    for file in catalogue():
        if file.usable and file.size is not None:
            stored = 4 * ARCHITECTURES[file.net].parameters
            low = 0.9 if file.layout == "matconvnet" else 1.0  # MATLAB compresses
            assert low < file.size / stored < 1.001, file.name


def test_a_slip_in_the_catalogue_is_noticed() -> None:
    good = catalogue()[0]
    for change in (
        {"net": "vgg61"},
        {"digests": {"md5": "abc"}},
        {"digests": {"crc32": "00000000"}},
        {"urls": ("ftp://x",)},
        {"usable": False},
        {"profile": None},
        {"layout": "tensorflow"},
        {"name": "../x"},
    ):
        with pytest.raises(ValueError, match=r"catalogue.toml: "):
            published._check([dataclasses.replace(good, **change)])
    with pytest.raises(ValueError, match="name"):
        published._check([good, good])
