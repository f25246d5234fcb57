"""What the README and the recipes say is true of the program."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import document
from docs import make_cli
from tests.cli.test_commands import commands
from tests.conftest import photo
from vggfeat.cli import main
from vggfeat.data.folder import named_images
from vggfeat.data.voc import CLASSES
from vggfeat.extraction.images import MAX_ASPECT, decode, read_bytes
from vggfeat.nets.profile import PROFILES
from vggfeat.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FOOTGUNS = (ROOT / "docs" / "footguns.md").read_text()
BLOCK = re.compile(r"(?P<mark><!-- needs downloads -->\n)?```sh\n(?P<text>.*?)```", re.DOTALL)


def shell_lines(*, offline: bool) -> list[str]:
    """The commands of the README, those that need downloads or those that do not."""
    return [
        line.partition("  #")[0].strip()
        for block in BLOCK.finditer(README)
        if bool(block["mark"]) is not offline
        for line in block["text"].splitlines()
    ]


def test_the_two_first_commands_are_targets_that_ci_runs() -> None:
    assert [line for line in shell_lines(offline=True) if line.startswith("make")] == [
        "make demo",
        "make test",
    ]
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make demo", "make test", "make test-slow"} <= set(ci)
    targets = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{t}:", targets, re.MULTILINE) for t in ("demo", "test", "test-slow"))


@pytest.mark.parametrize("command", commands(main), ids=" ".join)
def test_every_command_is_in_the_readme(command: tuple[str, ...]) -> None:
    assert f"`vggfeat {' '.join(command)}" in README


def test_the_page_on_the_command_line_is_what_the_help_says() -> None:
    assert make_cli.PAGE.read_text() == make_cli.page(), "docs/cli.md is old; type: make docs"


@pytest.mark.parametrize("command", commands(main), ids=" ".join)
def test_every_command_is_on_the_page_on_the_command_line(command: tuple[str, ...]) -> None:
    name = f"vggfeat {' '.join(command)}"
    page = make_cli.PAGE.read_text()
    assert f"](#{name.replace(' ', '-')})" in page
    assert f"\n## {name}\n\n```text\nUsage: {name} " in page


def test_the_page_on_the_command_line_hangs_on_nothing_of_the_machine(tmp_path: Path) -> None:
    """Nor does making it load torch, or write anything."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from docs import make_cli; sys.stdout.write(make_cli.page())"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "COLUMNS": "40",
        "VGGFEAT_SCALES": "224",
        "VGGFEAT_CACHE": "elsewhere",
        "VGGFEAT_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout.decode() == make_cli.PAGE.read_text()
    assert list(tmp_path.iterdir()) == []


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    lines = [line for offline in (True, False) for line in shell_lines(offline=offline)]
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("vggfeat")]
    assert len(ours) >= 5
    for words in ours:
        command: click.Command = main
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_readmes_offline_commands_run_on_a_folder_of_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for the thin net: the full one would take minutes here."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("cats", "dogs")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(5):
            path = tmp_path / "photos" / name / f"{n}.jpg"
            Image.fromarray(photo(90, 120, seed=10 * k + n)).save(path)
    ran = 0
    for line in shell_lines(offline=True):
        if line.startswith("vggfeat"):
            words = shlex.split(line.replace("--model vgg16 ", "--model vgg16-thin "))[1:]
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
            ran += 1
    assert ran == 2
    assert len(list(Path("results").glob("folder-photos-*.json"))) == 1
    [path] = Path("features").glob("*/descriptors.h5")
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        code = block.replace("features/…/descriptors.h5", str(path))
        code = code.replace("000005", "cats/0.jpg").replace("000007", "dogs/3.jpg")
        exec(compile(code, "README.md", "exec"), {})


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the pages: photos of two classes, and new ones."""
    monkeypatch.chdir(tmp_path)
    names = [f"photos/{k}/{n}.jpg" for k in ("cats", "dogs") for n in range(5)]
    for seed, name in enumerate([*names, "new.jpg", "holiday/a.jpg", "holiday/b.jpg"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(90, 120, seed=seed)).save(tmp_path / name)
    return tmp_path / "photos"


@pytest.mark.slow
def test_the_page_on_python_runs_as_it_stands(
    photos: Path, forwards: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    said: list[str] = []
    namespace: dict[str, object] = {}
    described = []
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(compile(block, "python.md", "exec"), namespace)
        said.append(capsys.readouterr().out)
        described.append(sum(forwards))
        forwards.clear()
    assert said[0].split() == printed_beside(blocks[0])
    assert said[1] == "(10, 1024) float32\n"
    assert said[2] == "(3, 1024)\n"
    assert described[3] == 10 * 2 * 2  # images, scales, sides: the search adds none
    assert "mean_class_recall" in said[4]
    assert "(2, 2, 512)" in said[5]
    ap2007, ap2010 = map(float, said[6].split())
    assert (ap2007, ap2010) == pytest.approx((28 / 33, 5 / 6))
    assert said[7].startswith("('cats', 'dogs') (10, 2)\nphotos/cats/0.jpg (")
    assert len(described) == 8
    assert described[7] == 0


def printed_beside(block: str) -> list[str]:
    """What the comments behind its calls of print say, word by word."""
    lines = [line.partition("  # ") for line in block.splitlines()]
    return [
        word
        for code, _, said in lines
        if code.lstrip().startswith("print(")
        for word in said.split()
    ]


def test_the_page_on_footguns_prints_what_stands_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", FOOTGUNS, re.DOTALL)
    for block in blocks:
        exec(compile(block, "footguns.md", "exec"), namespace)
        assert capsys.readouterr().out.split() == printed_beside(block), block
    assert len(blocks) > 10


def test_every_section_on_footguns_says_what_we_do_and_how_to_check() -> None:
    for section in FOOTGUNS.split("\n## ")[1:]:
        assert section.count("\n- **vggfeat** ") == section.count("\n- **Yours:** ") == 1, section


def test_the_page_on_footguns_knows_the_preprocessing() -> None:
    for name, places in (("oxford", 0), ("torchvision", 1)):
        profile = PROFILES[name]
        most = 1 if profile.unit_range else 255
        ends = zip(profile.mean, profile.std, strict=True)
        low, high = zip(*((-m / s, (most - m) / s) for m, s in ends), strict=True)
        assert f"about −{-min(low):.{places}f} to {max(high):.{places}f}" in FOOTGUNS
    least = min(PROFILES["torchvision"].std)
    assert f"a factor of about {255 * least:.0f} apart (255 · {least})" in FOOTGUNS
    assert f"at most {100 / 11:.1f} points of one class" in FOOTGUNS
    assert f"crops centrally to {MAX_ASPECT}:1" in FOOTGUNS


def test_the_page_on_footguns_knows_the_authors_conv1_1(shared: Path) -> None:
    with np.load(shared / "vgg16-partial" / "vgg16_conv1-2_fp32_plus_biases.npz") as file:
        energy = np.square(file["block1_conv1_W"].astype(float)).sum(axis=(0, 2, 3))
    bgr = [f"{value:.2f}" for value in energy]
    assert f"{', '.join(bgr)} in a file that reads BGR" in FOOTGUNS
    assert f"{', '.join(bgr[::-1])} in one that reads RGB" in FOOTGUNS


def test_the_page_on_footguns_counts_difficult_images_right(shared: Path) -> None:
    lists = shared / "voc2007-imagesets" / "VOC2007" / "ImageSets" / "Main"
    words = {name: (lists / f"{name}_test.txt").read_text().split()[1::2] for name in CLASSES}
    count = Counter(label for labels in words.values() for label in labels)
    sofa = Counter(words["sofa"])
    said = " ".join(FOOTGUNS.split())
    assert f"{count['0']} of the {count.total():,} test labels of VOC 2007" in said
    assert f"{sofa['0']} of them of sofa, beside {sofa['1']} images" in said
    assert f"it is {sofa.total() - sofa['0']:,}, not {sofa.total():,}" in said


@pytest.mark.slow
def test_the_page_on_footguns_counts_the_photos_of_caltech_right(shared: Path) -> None:
    modes, turned = Counter[str](), 0
    for path in (shared / "caltech101" / "101_ObjectCategories").glob("*/*.jpg"):
        with Image.open(path) as image:
            modes[image.mode] += 1
            turned += image.getexif().get(0x0112, 1) != 1
    assert f"{modes['L']} of the {modes.total():,} photos of Caltech-101 are grey" in FOOTGUNS
    assert turned == 0


def test_our_reader_does_what_the_page_on_footguns_says(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((1, 1), 32768, dtype=np.uint16))
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    for image, expected in ((deep, 128), (clear, 0)):
        image.save(tmp_path / "one.png")
        item = named_images([tmp_path / "one.png"])[0]
        pixels = np.asarray(decode(item, read_bytes(item)))
        assert pixels.tolist() == [[[expected] * 3]]


@pytest.mark.slow
def test_the_page_on_new_images_runs_as_it_stands(photos: Path, forwards: list[int]) -> None:
    page = (ROOT / "docs" / "predict.md").read_text()
    printed = []
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            forwards.clear()
            command = shlex.split(line.partition(" > ")[0])
            assert command[0] == "vggfeat"
            done = CliRunner().invoke(main, command[1:])
            assert done.exit_code == 0, done.output
            printed.append(done.stdout)
    table, first, as_json, last = (printed[k] for k in (2, 3, 4, 6))
    images = ["new.jpg", "holiday/a.jpg", "holiday/b.jpg"]
    assert [line.split()[0] for line in table.splitlines()[1:]] == images
    assert [record["image"] for record in json.loads(as_json)] == images[1:]
    assert forwards == []  # the last one has read what extract had described
    assert last == first


@pytest.mark.slow
def test_the_page_on_looking_runs_as_it_stands(photos: Path) -> None:
    page = (ROOT / "docs" / "looking.md").read_text()
    printed: list[str] = []
    store = ""
    for block in BLOCK.finditer(page):
        for line in [] if block["mark"] else block["text"].splitlines():
            words = shlex.split(line.partition(" > ")[0].replace("features/…", store))
            assert words[0] == "vggfeat"
            done = CliRunner().invoke(main, words[1:])
            assert done.exit_code == 0, done.output
            printed.append(done.stdout)
            store = store or str(Path(done.stdout.strip()).parent)
    rows = [line.split() for line in printed[1].splitlines()[1:]]
    assert [row[:2] for row in rows] == [["cats/0.jpg", rank] for rank in "123"]
    assert "cats/0.jpg" not in {row[3] for row in rows}
    nearest = json.loads(printed[3])
    assert [len(query["neighbours"]) for query in nearest] == [1] * 10
    assert printed[4].startswith("results/folder-photos-")
    assert len(json.loads(printed[5])["images"]) == 10
    assert printed[6:] == ["photos.npz\n", "photos.csv\n"]
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    said: list[str] = []
    exec(compile(code, "looking.md", "exec"), {"print": lambda *a: said.extend(map(str, a))})
    assert " ".join(said) == code.partition("  # ")[2].strip()


@pytest.mark.slow
def test_the_page_on_protocols_runs_as_it_stands(photos: Path, forwards: list[int]) -> None:
    page = (ROOT / "docs" / "protocols.md").read_text()
    printed, described = [], []
    for block in BLOCK.finditer(page):
        for line in block["text"].splitlines() if not block["mark"] else ():
            done = CliRunner().invoke(main, shlex.split(line)[1:])
            assert done.exit_code == 0, done.output
            printed.append(done.stdout)
            described.append(sum(forwards))
            forwards.clear()
    assert described == [10 * 2, 0, 0, 0, 0]  # the store serves them all
    _, weighed, folded, few, page_of = printed
    assert "over 2 of 2 classes" in weighed
    assert "standard deviation of 5 folds" in folded
    assert [line.split()[0] for line in few.splitlines() if " ± " in line][-3:] == ["1", "2", "4"]
    assert "training images of each class" in Path(page_of.strip()).read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_parses_and_is_listed(path: Path) -> None:
    recipe = Recipe.from_toml(path)
    assert recipe.scales
    assert f"`{path.name}`" in (ROOT / "pipelines" / "README.md").read_text()


def test_the_recipe_of_the_paper_is_the_papers() -> None:
    recipe = Recipe.from_toml(ROOT / "pipelines" / "voc2007-vgg16.toml")
    assert recipe.paper is not None
    assert (recipe.paper.table, recipe.paper.value) == (11, 89.3)
    plain = Recipe.build({"dataset": "voc2007", "models": ["vgg16"]}, "a test")
    assert recipe.canonical() == plain.canonical()


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "pipelines/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", document.PAGES, ids=lambda p: p.name)
def test_a_page_says_what_the_committed_figures_say(path: Path) -> None:
    page = path.read_text()
    assert document.regenerate(page, document.load()) == page, "type: make docs"


def test_everything_that_can_be_generated_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in document.PAGES)
    marked = re.findall(r"<!-- generated: (.+?) -->", pages)
    assert set(marked) == {*document.TABLES, *document.NUMBERS}


def test_every_benchmark_is_described_and_can_be_made() -> None:
    page, targets = (ROOT / "benchmarks" / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        if path.stem != "common":
            assert f"`{path.stem}`" in page
            assert path.stem == "gpu" or f"benchmarks.{path.stem}\n" in targets
