"""What a user is told of data that cannot give a score that means something."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.cli.test_commands import FAST, check_refused, run
from tests.conftest import photo
from tests.data import test_caltech


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """A runner in an empty folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return CliRunner()


def photos(root: Path, sizes: dict[str, int]) -> None:
    for k, (name, count) in enumerate(sizes.items()):
        (root / name).mkdir(parents=True)
        for n in range(count):
            Image.fromarray(photo(90, 100, seed=10 * k + n)).save(root / name / f"{n}.jpg")


def both(here: CliRunner, dataset: str, *options: str) -> Result:
    """Extract, then train and evaluate."""
    arguments = [*FAST, "--dataset", dataset, "--grid", "1"]
    run(here, "extract", *arguments)
    return run(here, "svm", *arguments, *options)


# --- overlap of train and test ------------------------------------------------------------------


@pytest.mark.parametrize("command", ["extract", "svm", "run"])
def test_an_image_of_train_and_test_is_refused(
    here: CliRunner, tiny_voc: Path, command: str
) -> None:
    for path in (tiny_voc / "ImageSets" / "Main").glob("*test.txt"):
        path.write_text(path.read_text().replace("000015", "000001").replace("000016", "000002"))
    arguments = [*FAST, "--dataset", f"voc:{tiny_voc}"]
    if command == "run":
        Path("r.toml").write_text(f'dataset = "voc:{tiny_voc}"\nmodels = ["vgg16-thin"]\n')
        arguments = ["r.toml", "--weights", "random:0"]
    check_refused(
        here,
        [command, *arguments],
        "2 images are in train and in test, the first is '000001'.",
        "A score means something only if the parts share no image.",
    )
    assert not Path("features").exists()


def test_a_list_cannot_put_an_image_into_two_parts(here: CliRunner) -> None:
    photos(Path(), {"a": 3, "b": 3})
    rows = [f"{name}/{n}.jpg,{name},train\n" for name in "ab" for n in range(3)]
    Path("x.csv").write_text("path,label,split\n" + "".join(rows) + "a/0.jpg,a,test\n")
    check_refused(
        here,
        ["extract", *FAST, "--dataset", "csv:x.csv"],
        "'x.csv', line 8: 'a/0.jpg' is listed twice, as a in train in line 2 and as a in test",
        "Expected each image in one line, and so in one part.",
    )


# --- a missing class ----------------------------------------------------------------------------


def test_a_class_without_its_list_is_refused(here: CliRunner, tiny_voc: Path) -> None:
    lists = tiny_voc / "ImageSets" / "Main"
    (lists / "dog_val.txt").unlink()
    command = ["extract", *FAST, "--dataset", f"voc:{tiny_voc}"]
    check_refused(here, command, f"There is no list '{lists / 'dog_val.txt'}'", "of every class")


def test_a_missing_class_of_caltech_is_refused(here: CliRunner) -> None:
    root = test_caltech.caltech101(Path("data"))
    for path in (root / "caltech101" / "101_ObjectCategories" / "class007").iterdir():
        path.unlink()
    check_refused(
        here,
        ["extract", *FAST, "--dataset", "caltech101", "--data-root", "data"],
        "caltech101 has 101 classes with images. Expected 102",
        "`vggfeat datasets verify caltech101` says what is there",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "note"),
    [
        (["test"], "dog: no positive in test: no AP"),
        (["train", "val"], "dog: no positive in train and val: no classifier, no AP"),
    ],
)
def test_a_class_without_positives_is_named_and_the_mean_says_over_how_many(
    here: CliRunner, tiny_voc: Path, parts: Sequence[str], note: str
) -> None:
    for part in parts:
        path = tiny_voc / "ImageSets" / "Main" / f"dog_{part}.txt"
        path.write_text(path.read_text().replace(" 1\n", "-1\n"))
    told = both(here, f"voc:{tiny_voc}").stdout
    assert f"note: {note}." in told
    assert " over 2 of 3 classes;" in told


def test_a_class_that_only_train_has_is_counted_out(here: CliRunner) -> None:
    photos(Path("parts") / "train", {"ant": 4, "bee": 4, "cat": 4})
    photos(Path("parts") / "test", {"ant": 2, "bee": 2})
    told = both(here, "folder:parts").stdout
    assert "note: cat: no positive in test: no AP." in told
    assert " over 2 of 3 classes;" in told


# --- a split too small for the protocol ---------------------------------------------------------


def test_a_class_too_small_for_caltechs_protocol_is_refused(here: CliRunner) -> None:
    test_caltech.caltech101(Path("data"), tiny=30)
    check_refused(
        here,
        ["extract", *FAST, "--dataset", "caltech101", "--data-root", "data"],
        "Class 'tiny' of caltech101 has 30 images.",
        "The protocol takes 30 to train and needs one to test.",
    )


def test_a_class_of_two_photos_is_refused(here: CliRunner) -> None:
    photos(Path("photos"), {"cats": 4, "dogs": 2})
    check_refused(
        here,
        ["extract", *FAST, "--dataset", "folder:photos"],
        "Class 'dogs' has 2 images.",
        "Expected at least 3: one each for train, val and test.",
    )


def test_where_val_measures_nothing_c_is_said_not_to_be_chosen(
    here: CliRunner, tiny_voc: Path
) -> None:
    for path in (tiny_voc / "ImageSets" / "Main").glob("*_val.txt"):
        ids = [line.split()[0] for line in path.read_text().splitlines()]
        path.write_text("".join(f"{i} -1\n" for i in ids))
    told = both(here, f"voc:{tiny_voc}", "--grid", "0.25,4").stdout
    assert "C by voc2007 on val: 0.25: –, 4: –" in told
    nearest = "note: No C could be chosen, since no class can be measured on val; it is 0.25."
    assert nearest in told
    [path] = Path("results").glob("*.json")
    assert json.loads(path.read_text())["splits"][0]["c"] == [0.25]


def test_without_any_image_to_train_with_there_is_no_result(
    here: CliRunner, tiny_voc: Path
) -> None:
    for path in (tiny_voc / "ImageSets" / "Main").glob("*train.txt"):
        path.write_text("")
    check_refused(
        here,
        ["extract", *FAST, "--dataset", f"voc:{tiny_voc}"],
        "has lists of test, val alone. Expected train.txt or trainval.txt.",
    )
    assert not Path("results").exists()


# --- a store with unreadable images -------------------------------------------------------------


@pytest.mark.slow
def test_unreadable_images_of_a_store_are_counted_wherever_it_is_used(
    here: CliRunner, tiny_voc: Path
) -> None:
    for number in (1, 9, 20):
        (tiny_voc / "JPEGImages" / f"{number:06d}.jpg").write_bytes(b"")
    arguments = [*FAST, "--dataset", f"voc:{tiny_voc}"]
    done = run(here, "extract", *arguments)
    assert "3 images are unreadable; '" in done.stderr
    path = done.stdout.strip()
    assert json.loads(run(here, "store", "info", path, "--json").stdout)["unreadable"] == 3
    assert json.loads(run(here, "store", "verify", path, "--json").stdout)["unreadable"] == 3
    for command in (
        ["svm", *arguments, "--grid", "1"],
        ["svm", "--store", path, *arguments[-2:], "--grid", "1"],
    ):
        assert "note: 3 images are unreadable (vgg16-thin)." in run(here, *command).stdout
    few = run(here, "svm", *arguments, "--grid", "1", "--limit", "5", "--name", "few").stdout
    assert "note: 2 images are unreadable" in few  # 20 is not among the first five of test


@pytest.mark.slow
def test_when_every_training_image_is_unreadable_there_is_no_result(
    here: CliRunner, tiny_voc: Path
) -> None:
    for number in range(1, 9):
        (tiny_voc / "JPEGImages" / f"{number:06d}.jpg").write_bytes(b"")
    arguments = [*FAST, "--dataset", f"voc:{tiny_voc}"]
    run(here, "extract", *arguments)
    check_refused(here, ["svm", *arguments], "No image to train with", "unreadable throughout")
