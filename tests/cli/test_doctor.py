from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from vggfeat.cli.doctor import Finding, examine
from vggfeat.files.digests import user_cache
from vggfeat.recipe import Machine


def found(machine: Machine) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(machine)}


def test_what_is_missing_says_what_to_type(tmp_path: Path) -> None:
    report = found(Machine(data_root=tmp_path / "none", cache=tmp_path / "features"))
    assert report["voc2007"].state == "missing"
    assert "--data-root" in report["voc2007"].remedy
    weights = report["oxford vgg16"]
    assert weights.state == "missing"
    assert str(user_cache() / "weights" / "VGG_ILSVRC_16_layers.caffemodel") in weights.detail
    assert weights.remedy == "type `vggfeat weights fetch VGG_ILSVRC_16_layers.caffemodel`"
    assert report["torch"].state == "ok"
    assert "cores" in report["processor"].detail


def test_a_remedy_is_not_looked_for_in_the_text(tmp_path: Path) -> None:
    root = tmp_path / "left; type this"  # a folder of the user's may be called so
    finding = found(Machine(data_root=root, cache=tmp_path))["voc2007"]
    assert finding.detail == f"not below '{root}'"
    assert finding.remedy == f"type `vggfeat datasets fetch voc2007 --data-root '{root}'`"


def test_what_is_there_is_counted(shared: Path, tmp_path: Path) -> None:
    report = found(Machine(data_root=shared / "voc2007-mini", cache=tmp_path))
    assert report["voc2007"].state == "partial"
    assert "train.txt names 60 images, 2,501 expected" in report["voc2007"].detail
    report = found(Machine(data_root=shared, cache=tmp_path))
    assert report["caltech101"].state == "ok"
    assert "9,144 images" in report["caltech101"].detail
    assert report["disk"].state == "ok"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    report = found(Machine(data_root=tmp_path, cache=tmp_path))
    assert (report["disk"].state, report["disk"].remedy) == ("missing", "--cache PATH")
