"""Published weights: fetched, found, verified, converted, and used."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from tests.files.test_fetch import Server, serve, server
from tests.support.layouts import state
from vggfeat.cli import doctor, main
from vggfeat.errors import WeightsError, WeightsNotFoundError
from vggfeat.files.digests import user_cache
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Machine
from vggfeat.weights import catalogue as catalogue_module
from vggfeat.weights import find as weights_module
from vggfeat.weights import local as shelf
from vggfeat.weights.catalogue import PublishedWeights
from vggfeat.weights.convert import converted_metadata
from vggfeat.weights.find import find_weights, random_tensors

__all__ = ["server"]  # a fixture

THIN = ARCHITECTURES["vgg16-thin"]
NAME = "thin-port.pth"


@pytest.fixture(scope="module")
def content() -> bytes:
    stream = io.BytesIO()
    torch.save(state(THIN, random_tensors(THIN, 5)), stream)
    return stream.getvalue()


@pytest.fixture
def published(
    server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PublishedWeights]:
    """A catalogue of one file for the thin net, which the local server has."""
    file = PublishedWeights(
        family="torchvision",
        net="vgg16-thin",
        name=NAME,
        urls=(server.at(f"/{NAME}", serve(content)),),
        size=len(content),
        digests={"sha256_prefix": hashlib.sha256(content).hexdigest()[:8]},
        profile="torchvision",
        layout="torchvision",
        channels="RGB",
        licence="a licence",
        citation="a test",
    )
    useless = PublishedWeights(
        family="torchvision",
        net="vgg16-thin",
        name="useless.pth",
        urls=(server.url("/nothing"),),
        digests={},
        licence="a licence",
        citation="a test",
        usable=False,
        reason="Its layers are NaN.",
    )
    for module in (catalogue_module, shelf, weights_module, doctor):
        monkeypatch.setattr(module, "catalogue", lambda: (file, useless))
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    yield file


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def verified(*names: str, code: int = 0) -> tuple[str, str]:
    """Return the state of the one file, and why with what to type, as the line has it."""
    [row] = json.loads(run("weights", "verify", *names, "--json", code=code).stdout)
    assert set(row) == {"name", "state", "detail", "remedy"}
    line = "; ".join(filter(None, (row["detail"], row["remedy"])))
    said = run("weights", "verify", *names, code=code).stdout
    assert said == f"{row['state']:8} {row['name']}: {line}\n"
    return row["state"], line


@pytest.mark.slow
def test_what_is_absent_is_fetched_and_then_used(
    published: PublishedWeights, content: bytes, server: Server, tiny_voc: Path, tmp_path: Path
) -> None:
    options = ["--model", "vgg16-thin", "--weights", "torchvision", "--scales", "224"]
    options += ["--dataset", f"voc:{tiny_voc}", "--cache", str(tmp_path / "features")]
    said = run("extract", *options, "--offline", code=1).stderr
    assert f"Type `vggfeat weights fetch {NAME}`" in said
    assert not server.requests
    said = run("extract", *options).stderr
    assert "licence: a licence" in said
    assert len(server.requests) == 1
    path = user_cache() / "weights" / NAME
    assert path.read_bytes() == content
    record = json.loads(path.with_name(f"{NAME}.json").read_text())
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    run("extract", *options)
    assert len(server.requests) == 1


def test_fetch_prints_the_path_and_refuses_what_is_useless(published: PublishedWeights) -> None:
    done = run("weights", "fetch", "torchvision", "--model", "vgg16-thin")
    assert done.stdout.strip() == str(user_cache() / "weights" / NAME)
    assert "a licence" in done.stderr
    assert "Add --model" in run("weights", "fetch", "torchvision", code=1).stderr
    assert "Its layers are NaN" in run("weights", "fetch", "useless.pth", code=1).stderr
    wrong = run("weights", "fetch", "thin-prot.pth", code=1).stderr
    assert f"Did you mean '{NAME}'" in wrong
    rows = json.loads(run("weights", "list", "--json").stdout)
    assert [row["here"] != "" for row in rows] == [True, False]
    assert rows[1]["note"] == "Its layers are NaN."


def test_verify_says_good_damaged_partial_and_absent(
    published: PublishedWeights, content: bytes
) -> None:
    folder = user_cache() / "weights"
    path = folder / NAME
    state, detail = verified(NAME, code=1)
    assert (state, f"type `vggfeat weights fetch {NAME}`" in detail) == ("absent", True)
    assert verified()[0] == "absent"  # not asked for by name: no failure
    folder.mkdir(parents=True)
    (folder / f".{NAME}.part").write_bytes(content[:1000])
    state, detail = verified(code=1)
    assert (state, "which goes on from there" in detail) == ("partial", True)
    (folder / f".{NAME}.part").unlink()
    path.write_bytes(content[:-1] + b"?")
    state, detail = verified(code=1)
    assert (state, f"mv '{path}'" in detail) == ("damaged", True)
    [finding] = [f for f in doctor.examine(Machine()) if f.what == "torchvision vgg16-thin"]
    assert (finding.state, "mv" in finding.remedy) == ("damaged", True)
    path.write_bytes(content)
    state, detail = verified(NAME)
    assert state == "good"
    assert "8 digits" in detail
    [finding] = [f for f in doctor.examine(Machine()) if f.what == "torchvision vgg16-thin"]
    assert finding.state == "ok"


def test_what_nobody_offers_any_more_is_said_apart_from_what_is_there(
    published: PublishedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is to be typed then, so that no remedy could be read out of the line."""
    gone = replace(published, urls=())
    for module in (catalogue_module, shelf, weights_module, doctor):
        monkeypatch.setattr(module, "catalogue", lambda: (gone,))
    place = user_cache() / "weights" / NAME
    remedy = f"it is no longer offered; a copy belongs at '{place}'"
    [finding] = [f for f in doctor.examine(Machine()) if f.what == "torchvision vgg16-thin"]
    assert finding.detail == f"{NAME}: there is no '{place}'"
    assert finding.remedy == remedy
    assert verified(NAME, code=1) == ("absent", f"there is no '{place}'; {remedy}")


def test_a_file_of_the_published_name_must_be_that_file(
    published: PublishedWeights, content: bytes
) -> None:
    with pytest.raises(WeightsNotFoundError, match=rf"Looked in .* for {NAME}"):
        find_weights(THIN, "torchvision")
    path = user_cache() / "weights" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content + b"\n")
    with pytest.raises(WeightsError, match=r"is not the published file of that name"):
        find_weights(THIN, "torchvision")
    path.write_bytes(content)
    assert find_weights(THIN, "torchvision").profile.name == "torchvision"


def test_a_known_file_is_known_under_any_name(
    published: PublishedWeights, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "renamed"
    path.write_bytes(content)
    assert find_weights(THIN, str(path)).profile.name == "torchvision"
    with pytest.raises(WeightsError, match=r"is thin-port.pth, whose profile is 'torchvision'"):
        find_weights(THIN, str(path), "oxford-bgr")
    with pytest.raises(WeightsError, match=r"weights of vgg16-thin, not of vgg19-thin"):
        find_weights(ARCHITECTURES["vgg19-thin"], str(path))


def test_a_conversion_is_made_once_and_gives_the_same_tensors(
    published: PublishedWeights, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(content)
    made = Path(run("weights", "convert", str(path), "--model", "vgg16-thin").stdout.strip())
    assert made.parent == user_cache() / "weights"
    metadata = converted_metadata(made)
    assert metadata is not None
    assert metadata["profile"] == "torchvision"
    assert metadata["origin_sha256"] == hashlib.sha256(content).hexdigest()
    before = made.stat()
    again = run("weights", "convert", str(path), "--model", "vgg16-thin").stdout.strip()
    assert (again, made.stat().st_mtime_ns) == (str(made), before.st_mtime_ns)
    theirs, ours = find_weights(THIN, str(path)).load(), find_weights(THIN, str(made))
    assert ours.profile.name == "torchvision"
    loaded = ours.load()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in theirs.items())
    with pytest.raises(WeightsError, match=r"converted from mine.pth, whose profile"):
        find_weights(THIN, str(made), "oxford-rgb")


def test_a_conversion_turns_bgr_once(tmp_path: Path) -> None:
    layers = state(THIN, random_tensors(THIN, 5))
    torch.save(layers, tmp_path / "bgr.pth")
    arguments = ["--model", "vgg16-thin", "--profile", "oxford-bgr"]
    made = run("weights", "convert", str(tmp_path / "bgr.pth"), *arguments).stdout.strip()
    loaded = find_weights(THIN, made).load()
    assert torch.equal(loaded["conv1_1.weight"], layers["features.0.weight"].flip(1))


@pytest.mark.parametrize("source", ["oxford", "random:0"])
def test_what_is_no_file_is_not_converted(source: str) -> None:
    said = run("weights", "convert", source, "--model", "vgg16", code=1).stderr
    assert "No weights 'oxford'" in said or "is no file" in said
