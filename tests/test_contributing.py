"""What the page on adding things says is done, word by word, on a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import photo
from vggfeat.nets.architectures import architecture
from vggfeat.weights.find import random_tensors

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
STEP = re.compile(
    r"```(?:python|html)\n# (?P<file>\S+), (?P<place>[^\n]+)\n(?P<text>.*?)```", re.DOTALL
)
MOST_FILES = {
    "A data set": 3,
    "An architecture": 3,
    "A tap": 1,
    "A measure": 1,
    "A precision": 2,
    "A weight format": 2,
    "A plot on the page": 3,
}


@dataclass(frozen=True)
class Step:
    """One block of the page: a text, and where it goes."""

    file: str
    place: str
    text: str

    def take(self, root: Path) -> None:
        """Do what the block says in a copy of the project."""
        path = root / self.file
        if self.place == "new":
            assert not path.exists()
            path.write_text(self.text, "utf-8")
            return
        where, _, anchor = self.place.partition(" ")
        lines = path.read_text("utf-8").splitlines(keepends=True)
        opens = f"{anchor.strip('`')}"
        at = next(n for n, line in enumerate(lines) if line.startswith(opens))
        if where == "below" and anchor == "MEASURES":  # a comprehension over a tuple
            at = next(n for n, line in enumerate(lines[at:], at) if line.rstrip().endswith("in ("))
        lines.insert(at if where == "above" else at + 1, self.text)
        path.write_text("".join(lines), "utf-8")


def steps(section: str) -> list[Step]:
    return [Step(*found) for found in STEP.findall(SECTIONS[section])]


def commands(section: str) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(("section", "most"), MOST_FILES.items())
def test_adding_a_thing_touches_few_files(section: str, most: int) -> None:
    files = {step.file for step in steps(section)}
    assert 1 <= len(files) <= most
    assert commands(section)
    row = re.search(rf"^\| \[{section.lower()}\]\([^)]*\) \| (\d)", PAGE, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == len(files)


def test_every_block_is_a_step_and_every_section_is_held() -> None:
    blocks = re.findall(r"```(?:python|html)\n", PAGE)
    assert len(blocks) == sum(len(steps(section)) for section in MOST_FILES)
    assert {*SECTIONS} == {*MOST_FILES, "The house"}


@dataclass(frozen=True)
class Copy:
    """A copy of the package to which all that the page adds has been added."""

    folder: Path
    said: dict[str, str]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("contributing")
    shutil.copytree(ROOT / "vggfeat", folder / "vggfeat", copy_function=shutil.copy2)
    for section in MOST_FILES:
        for step in steps(section):
            step.take(folder)
    _flowers(folder / "flowers")
    _lines(folder / "net.lines")
    said: dict[str, str] = defaultdict(str)
    environment = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    for section in MOST_FILES:
        for words in commands(section):
            assert words[0] == "vggfeat"
            done = subprocess.run(
                [sys.executable, "-P", "-m", *words],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{words}: {done.stderr}"
            said[section] += done.stdout
    return Copy(folder, dict(said))


def _flowers(folder: Path) -> None:
    folder.mkdir()
    rows = []
    for k, name in enumerate(("iris", "rose")):
        for n, part in enumerate(("train", "train", "val", "test", "test")):
            pixels = photo(90, 120, seed=10 * k + n)
            pixels[:, :, k] //= 3
            Image.fromarray(pixels).save(folder / f"{name}{n}.jpg", quality=90)
            rows.append(f"{name}{n}.jpg {name} {part}\n")
    (folder / "flowers.txt").write_text("".join(rows))


def _lines(path: Path) -> None:
    """Write a thin net by torchvision's names: those of its layers, in their order."""
    net = architecture("vgg11-thin")
    numbers = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    index = 0
    for number, block in enumerate(net.blocks, 1):
        for position in range(1, len(block) + 1):
            numbers[f"conv{number}_{position}"] = f"features.{index}"
            index += 2
        index += 1
    with path.open("w") as stream:
        stream.write("#weights\n")
        for name, tensor in random_tensors(net, 3).items():
            layer, _, part = name.partition(".")
            shape = tuple(tensor.shape)
            if layer.startswith("fc") and part == "weight":
                shape = (shape[0], shape[1] * shape[2] * shape[3])
            row = [f"{numbers[layer]}.{part}", shape, tensor.flatten().tolist()]
            stream.write(json.dumps(row) + "\n")


@pytest.mark.slow
def test_what_the_page_adds_works(extended: Copy) -> None:
    said = extended.said
    assert "written: results/flowers-vgg16-thin-" in said["A data set"]
    assert "recall" in said["A data set"]
    assert "conv5_1" in said["An architecture"]
    assert "vgg8-thin" in said["An architecture"]
    assert "decile" in said["A measure"]
    for section in ("A tap", "A precision"):
        [store] = [Path(line) for line in said[section].splitlines()]
        assert (extended.folder / store).is_file()
    assert Path(said["A weight format"].strip()).is_file()
    assert Path(said["A weight format"].strip()).name.startswith("net-")
    page = (extended.folder / "results" / "flowers.html").read_text("utf-8")
    assert re.search(r'<meter max="100" value="100.0">3</meter>', page)
