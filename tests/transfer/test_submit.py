from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import photo
from tests.data import test_action, test_voc
from vggfeat.cli import main
from vggfeat.data.action import ACTIONS
from vggfeat.data.voc import CLASSES
from vggfeat.errors import ClassifierError, StoreNotFoundError
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.report.paper import published
from vggfeat.report.result import Result as Written
from vggfeat.transfer import submit as submit_module
from vggfeat.transfer.run import evaluate, write
from vggfeat.transfer.score import Evaluation
from vggfeat.transfer.submit import scored_again, submit
from vggfeat.transfer.voc_server import (
    SubmissionError,
    Task,
    check,
    pack,
    read_scores,
    results_files,
)
from vggfeat.watch import Watch

Files = dict[str, bytes]

MAIN = "results/VOC2012/Main/comp2_cls_test_{}.txt"
ACTION = "results/VOC2012/Action/comp10_action_test_{}.txt"


OFFICIAL = dict(submit_module._TASKS)
SMALL = {"voc2012": 6, "voc2012-action": 4}  # lines of the lists below


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the lists of these tests for whole ones."""
    tasks = {name: replace(task, size=SMALL[name]) for name, task in OFFICIAL.items()}
    monkeypatch.setattr(submit_module, "_TASKS", tasks)


@pytest.fixture
def official_sizes(small_lists: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the lists of these tests for cut ones, as they are."""
    monkeypatch.setattr(submit_module, "_TASKS", OFFICIAL)


# --- a result on a small test set ---------------------------------------------------------------


def classification_tree(root: Path) -> str:
    """Write 26 images; each class has positives, negatives and difficult ones."""
    numbers = {"train": range(10), "val": range(10, 20), "test": range(20, 26)}
    ids = {part: [f"2010_{n:06d}" for n in of_part] for part, of_part in numbers.items()}
    labels = {
        name: {
            part: [0 if (n + k) % 7 == 0 else 1 if (n * 7 + k) % 3 == 0 else -1 for n in of_part]
            for part, of_part in numbers.items()
            if part != "test"
        }
        for k, name in enumerate(CLASSES)
    }
    test_voc.write_tree(root / "VOCdevkit" / "VOC2012", ids, labels)
    return "2010_000022"


def action_tree(root: Path) -> str:
    """Write a person for each action and part, and four of test, two of them in one image."""
    serial = count(1)
    parts: dict[str, list[test_action.Person]] = {
        part: [(f"2010_{next(serial):06d}", 1, action) for action in (*ACTIONS, None)]
        for part in ("train", "val")
    }
    parts["test"] = [("2011_000001", 1, None), ("2011_000002", 1, None), ("2011_000002", 3, None)]
    parts["test"].append(("2011_000003", 1, None))
    person, horse = ("person", ("10", "10", "80", "85")), ("horse", ("1", "1", "9", "9"))
    images = {image for persons in parts.values() for image, _, _ in persons}
    objects: dict[str, test_action.Objects] = {image: [person] for image in images}
    objects["2011_000002"] = [person, horse, ("person", ("20", "5", "70", "85"))]
    test_action.write_tree(root, parts, objects, second_column=True)
    return "2011_000001"


@dataclass(frozen=True)
class Made:
    """A result whose test set has an image that cannot be read."""

    machine: Machine
    evaluation: Evaluation
    result: Path
    unreadable: str


def recipe(dataset: str, **changed: object) -> Recipe:
    values: dict[str, object] = {
        "dataset": dataset,
        "models": ["vgg16-thin"],
        "weights": ["random:0"],
        "scales": [224],
        "grid": [1.0],
        "name": "mine",
    }
    return Recipe.build({**values, **changed}, "a test")


def make(root: Path, dataset: str) -> Made:
    unreadable = (action_tree if "action" in dataset else classification_tree)(root)
    folder = root / "VOCdevkit" / "VOC2012" / "JPEGImages"
    for n, path in enumerate(sorted(folder.iterdir())):
        Image.fromarray(photo(90, 101, seed=n)).save(path)
    (folder / f"{unreadable}.jpg").write_bytes(b"")
    machine = Machine(data_root=root, cache=root / "features", results=root / "results", workers=2)
    extract(recipe(dataset), machine, Watch())
    evaluation = evaluate(recipe(dataset), machine, Watch())
    return Made(machine, evaluation, write(evaluation, machine), unreadable)


@pytest.fixture(scope="module", params=["voc2012", "voc2012-action"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield make(tmp_path_factory.mktemp("data"), request.param)


def members(archive: Path) -> Files:
    with tarfile.open(archive) as opened:
        streams = {member.name: opened.extractfile(member) for member in opened}
        return {name: stream.read() for name, stream in streams.items() if stream is not None}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def machine_options(machine: Machine) -> list[object]:
    return [
        *("--data-root", machine.data_root),
        *("--cache", machine.cache),
        *("--results", machine.results),
    ]


@pytest.mark.slow
def test_the_archive_has_every_score_to_the_last_bit(made: Made, tmp_path: Path) -> None:
    run = made.evaluation.runs[0]
    archive = submit(made.result, made.machine)
    action = "comp10" in archive.name
    classes, pattern = (ACTIONS, ACTION) if action else (CLASSES, MAIN)
    assert archive.name == f"mine-{'comp10' if action else 'comp2'}.tar.gz"
    files, ids = members(archive), run.samples["test"].ids
    assert list(files) == sorted(pattern.format(name) for name in classes)
    lost = np.array([i.partition("/")[0] == made.unreadable for i in ids])
    assert lost.sum() == 1
    for k, name in enumerate(classes):
        (tmp_path / name).write_bytes(files[pattern.format(name)])
        written, ours = read_scores(tmp_path / name, ids), run.fitted.scores[:, k]
        assert np.isnan(ours[lost]).all()
        assert np.array_equal(written[~lost], ours[~lost])
        assert np.isfinite(written[lost]).all()
        assert written[lost].max() < written[~lost].min()
        ranking = np.argsort(-np.where(lost, -np.inf, ours), kind="stable")
        assert np.array_equal(np.argsort(-written, kind="stable"), ranking)
        lines = [line.split() for line in files[pattern.format(name)].decode().splitlines()]
        assert ["/".join(words[:-1]) for words in lines] == list(ids)


@pytest.mark.slow
def test_the_scores_are_formed_again_from_what_the_result_names(made: Made) -> None:
    again = scored_again(made.result, made.machine)
    run = made.evaluation.runs[0]
    assert again.ids == run.samples["test"].ids
    assert again.classes == run.fitted.classifier.classes
    assert np.array_equal(again.scores, run.fitted.scores, equal_nan=True)


def test_the_same_result_gives_the_same_bytes(made: Made) -> None:
    archive = submit(made.result, made.machine)
    first = archive.read_bytes()
    archive.unlink()
    assert submit(made.result, made.machine).read_bytes() == first
    assert first[4:8] == bytes(4)  # gzip's time
    with tarfile.open(archive) as opened:
        for member in opened:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.isreg()


def test_the_command_writes_checks_and_warns(made: Made) -> None:
    done = call("submission", "mine", *machine_options(made.machine))
    assert done.exit_code == 0, done.output
    archive = Path(done.stdout.strip())
    assert "'mine' has random weights" in done.stderr
    assert "unreadable, and so ranked last: 1, the first is" in done.stderr
    same = call("submission", *machine_options(made.machine), made.result)
    assert same.stdout == done.stdout
    checked = call("submission", "check", archive, "--data-root", made.machine.data_root)
    assert checked.exit_code == 0
    if "comp2" in archive.name:
        said = "note     comp2: 20 files, 6 images, compared with the official list.\n"
    else:
        said = "note     comp10: 10 files, 4 persons, compared with the official list.\n"
    assert checked.stdout == said
    told = json.loads(call("submission", "check", archive, "--json").stdout)
    assert told["sound"] is True
    assert "compared with each other only" in told["findings"][-1]["message"]


# --- lists that are not whole -------------------------------------------------------------------


def test_the_sizes_of_the_official_lists_are_those_of_the_paper_s_tables() -> None:
    columns = {column.dataset: column for table in published().tables for column in table.columns}
    for name, task in OFFICIAL.items():
        known = columns[name].sizes.get("test")
        assert task.certain is (known is not None)
        assert known in {None, task.size}
    assert {name: task.size for name, task in OFFICIAL.items()} == {
        "voc2012": 10_991,
        "voc2012-action": 6_283,
    }


def test_an_archive_of_a_cut_list_is_not_written(made: Made, official_sizes: None) -> None:
    for archive in made.result.parent.glob("*.tar.gz"):
        archive.unlink()
    done = call("submission", "write", made.result, *machine_options(made.machine))
    if "comp10" in submit_archive(made):
        assert done.exit_code == 0
        assert (
            "the list of test has 4 persons; the official list has 6,283, a figure that could not "
            "be verified: make sure that it is whole"
        ) in done.stderr
    else:
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1] == (
            f"vggfeat: The list of test below '{made.machine.data_root}' has 6 images; the "
            "official list has 10,991. The server wants a score for every one. Unpack "
            f"VOC2012test.tar again, then run the recipe of '{made.result}' again."
        )
        assert not list(made.result.parent.glob("*.tar.gz"))


def submit_archive(made: Made) -> str:
    action = Written.read(made.result).recipe.dataset == "voc2012-action"
    return f"mine-{'comp10' if action else 'comp2'}.tar.gz"


@pytest.mark.parametrize("lines", [-1, 1])
def test_a_list_that_is_shorter_or_longer_is_a_finding(
    lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    tasks = {name: replace(task, size=SMALL[name] + lines) for name, task in OFFICIAL.items()}
    monkeypatch.setattr(submit_module, "_TASKS", tasks)
    done = checked(lists, tmp_path, pack(lists.files))
    first, second = done.stdout.splitlines()
    if "Main" in lists.pattern:
        assert first == (
            "error    'ImageSets/Main/test.txt': It has 6 images; the official list has "
            f"{6 + lines}. Nothing is compared with it; unpack VOC2012test.tar again."
        )
        assert "compared with each other only: the official list is not here." in second
    else:
        assert first == (
            "warning  'ImageSets/Action/test.txt': It has 4 persons; the official list has "
            f"{4 + lines}, a figure that could not be verified. Make sure that it is whole."
        )
        assert "compared with the official list." in second
    assert done.exit_code == ("Main" in lists.pattern)


# --- results that cannot be submitted -----------------------------------------------------------


def altered(made: Made, folder: Path, **changed: Any) -> Path:  # noqa: ANN401  (any field's value)
    """Write the result with other fields, and its classifiers beside it."""
    result = Written.read(made.result).model_copy(update=changed)
    classifiers = made.result.with_suffix(".safetensors")
    (folder / classifiers.name).write_bytes(classifiers.read_bytes())
    return result.write(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "voc2012-val", "regions": ("image",)}, "Run the same recipe on 'voc2012'"),
        ({"dataset": "voc2012-action-val"}, "Run the same recipe on 'voc2012-action'"),
        ({"dataset": "caltech101", "regions": ("image",)}, "test sets of 'voc2012' and 'voc2012-a"),
        ({"limit": 20}, "Run the same recipe without --limit"),
    ],
)
def test_other_results_are_refused_with_the_reason(
    made: Made, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    path = altered(
        made, tmp_path, recipe=Written.read(made.result).recipe.model_copy(update=changed)
    )
    done = call("submission", "write", path, *machine_options(made.machine), "--results", tmp_path)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("*.tar.gz"))


def test_changed_classifiers_and_other_stores_are_refused(made: Made, tmp_path: Path) -> None:
    path = altered(made, tmp_path)
    classifiers = path.with_suffix(".safetensors")
    content = bytearray(classifiers.read_bytes())
    content[-1] ^= 1
    classifiers.write_bytes(content)
    with pytest.raises(ClassifierError, match=r"has the sha256 \w{16}…, its result says \w{16}…"):
        submit(path, made.machine)
    classifiers.unlink()
    with pytest.raises(ClassifierError, match="cannot be read: No such file"):
        submit(path, made.machine)
    [store, *others] = Written.read(made.result).stores
    other = store.model_copy(update={"fingerprint": "0" * 64})
    path = altered(made, tmp_path, name="other", stores=(other, *others))
    with pytest.raises(StoreNotFoundError, match="Expected the fingerprint 00000000"):
        submit(path, made.machine)


def test_a_store_that_was_moved_is_found_in_the_cache(made: Made, tmp_path: Path) -> None:
    expected = submit(made.result, made.machine).read_bytes()
    moved = made.machine.cache.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(StoreNotFoundError, match="pass --cache"):
            submit(made.result, made.machine)
        there = made.machine.model_copy(update={"cache": moved, "results": tmp_path})
        assert submit(made.result, there).read_bytes() == expected
    finally:
        moved.rename(made.machine.cache)


def test_a_class_without_a_classifier_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(path: Path, machine: Machine) -> object:
        scored = scored_again(path, machine)
        scored.scores[:, 3] = np.nan
        return scored

    monkeypatch.setattr("vggfeat.transfer.submit.scored_again", without)
    with pytest.raises(SubmissionError, match=r"no score at all for (boat|reading)\. Every class"):
        submit(made.result, made.machine)


# --- the check of anybody's archive -------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """Official lists, and a sound set of results files for them."""

    root: Path
    pattern: str
    ids: tuple[str, ...]
    files: Files

    @property
    def first(self) -> str:
        """The place of the first class's file."""
        return self.pattern.format("jumping" if "Action" in self.pattern else "aeroplane")

    def with_first(self, content: bytes) -> Files:
        return self.files | {self.first: content}


@pytest.fixture(scope="module", params=["Main", "Action"])
def lists(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lists:
    root = tmp_path_factory.mktemp("lists")
    action = request.param == "Action"
    (action_tree if action else classification_tree)(root)
    ids = tuple(f"2010_{n:06d}" for n in range(20, 26))
    if action:
        ids = ("2011_000001/1", "2011_000002/1", "2011_000002/3", "2011_000003/1")
    random = np.random.default_rng(3)
    pattern, classes = (ACTION, ACTIONS) if action else (MAIN, CLASSES)
    files = {
        pattern.format(name): "".join(
            f"{i.replace('/', ' ')} {random.normal():.9f}\n" for i in ids
        ).encode()
        for name in classes
    }
    return Lists(root, pattern, ids, files)


def checked(lists: Lists, folder: Path, archive: bytes, *options: str) -> Result:
    path = folder / "a.tar.gz"
    path.write_bytes(archive)
    return call("submission", "check", path, "--data-root", lists.root, *options)


Fault = Callable[[Lists], Files]


def without_line(lists: Lists) -> Files:
    return lists.with_first(lists.files[lists.first].partition(b"\n")[2])


def repeated_line(lists: Lists) -> Files:
    content = lists.files[lists.first]
    return lists.with_first(content + content.partition(b"\n")[0] + b"\n")


def confidence(word: str) -> Fault:
    def planted(lists: Lists) -> Files:
        first, _, rest = lists.files[lists.first].partition(b"\n")
        line = first.rpartition(b" ")[0] + f" {word}\n".encode()
        return lists.with_first(line + rest)

    return planted


def first_line(line: str) -> Fault:
    """Put another line in the place of the first; `{}` in it is a person's number, if there is."""

    def planted(lists: Lists) -> Files:
        rest = lists.files[lists.first].partition(b"\n")[2]
        number = " 1" if "Action" in lists.pattern else ""
        return lists.with_first(line.format(number).encode() + b"\n" + rest)

    return planted


def renamed(old: str, new: str) -> Fault:
    def planted(lists: Lists) -> Files:
        return {name.replace(old, new): content for name, content in lists.files.items()}

    return planted


def extra(name: str) -> Fault:
    def planted(lists: Lists) -> Files:
        return lists.files | {lists.pattern.format(name): lists.files[lists.first]}

    return planted


def of_competition(number: int) -> Fault:
    def planted(lists: Lists) -> Files:
        return {re.sub("comp[0-9]+", f"comp{number}", n): c for n, c in lists.files.items()}

    return planted


def with_detections(lists: Lists) -> Files:
    name = re.sub("_(cls|action)_", "_det_", lists.first)
    return lists.files | {name: lists.files[lists.first]}


def without_class(lists: Lists) -> Files:
    return {name: content for name, content in lists.files.items() if name != lists.first}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (without_line, r"1 id is missing, the first is '201\d_0000\d\d(/1)?'\."),
        (repeated_line, r"1 id is there more than once, the first is '201\d_0000\d\d(/1)?'\."),
        (first_line("2010_999999{} 7"), r"1 id is unknown, the first is '2010_999999(/1)?'\."),
        (first_line("2010_000020{} 1 7"), r"Not [23] columns in 1 line, the first is line 1: '"),
        (first_line("2010_000020{}"), r"Not [23] columns in 1 line, the first is line 1: '"),
        (confidence("nan"), "A confidence that is not finite in 1 line, the first is line 1: "),
        (confidence("-INF"), "A confidence that is not finite in 1 line"),
        (confidence("1e999"), "A confidence that is not finite in 1 line"),
        (confidence("high"), "No number as confidence in 1 line, the first is line 1: "),
        (confidence("1_0"), "No number as confidence in 1 line"),
        (confidence("0x1p3"), "No number as confidence in 1 line"),
        (confidence("١"), "No number as confidence in 1 line"),
        (lambda lists: lists.with_first(b""), "It is empty"),
        (lambda lists: lists.with_first(b"\0\xff" * 50), r"Not [23] columns in 1 line.*…'"),
        (
            lambda lists: lists.with_first(lists.files[lists.first] * 9_999),
            r"[35]9,99\d lines; only the first 20,000 were read",
        ),
        (without_class, r"1 of (20|10) classes have no file: (aeroplane|jumping)"),
        (extra("other"), "'other' is no class that is measured. Leave its file out."),
        (extra("aeroplanes"), r"Unknown class 'aeroplanes'\. .*Valid: "),
        (
            lambda lists: lists.files | {"results/../x": b""},
            "It is not looked into: 'results/../x' leads outside.",
        ),
        (
            renamed("results/", ""),
            "It is in no folder of such results. Expected results/VOC2012/Main",
        ),
        (renamed("VOC2012", "VOC2007"), "It is in no folder of such results"),
        (renamed("_test_", "_val_"), "Its scores are of 'val'. Expected those of 'test'."),
        (renamed("comp", "comp0"), "It has no name of such results"),
        (of_competition(7), r"comp7 is another competition. Expected comp(2 or comp1|10 or comp9)"),
        (with_detections, r"It has no name of such results. Expected comp(2_cls|10_action)_"),
        (lambda lists: {}, "It holds no results file of the test set"),
        (lambda lists: lists.files | {"results/._a": b""}, "It is in no folder of such results"),
    ],
)
def test_a_planted_fault_is_found(lists: Lists, tmp_path: Path, fault: Fault, said: str) -> None:
    done = checked(lists, tmp_path, pack(fault(lists)))
    assert re.search(said, done.stdout, re.MULTILINE), done.stdout
    assert done.exit_code == 1
    assert done.stderr == ""


@pytest.mark.parametrize("number", ["0", "01", "x", "-1", "9999999"])
def test_the_object_is_a_number_from_1(lists: Lists, tmp_path: Path, number: str) -> None:
    image = lists.ids[0].partition("/")[0]
    done = checked(lists, tmp_path, pack(first_line(f"{image} {number} 7")(lists)))
    expected = "No object number, from 1," if "Action" in lists.pattern else "Not 2 columns"
    assert f"{expected} in 1 line, the first is line 1: '{image} {number} 7'." in done.stdout
    assert done.exit_code == 1


def test_all_findings_are_told_not_only_the_first(lists: Lists, tmp_path: Path) -> None:
    files = extra("other")(lists) | without_line(lists)
    del files[max(files)]
    done = checked(lists, tmp_path, pack(files), "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["sound"] is False
    errors = [one["message"] for one in told["findings"] if one["level"] == "error"]
    other, lines, classes = sorted(errors)
    assert other.startswith("'other' is no class")
    assert lines.startswith("1 id is missing")
    assert classes.startswith(f"1 of {len(lists.files)} classes have no file")


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def member(name: str, **changed: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for field, value in changed.items():
        setattr(found, field, value)
    return found


PLACE = MAIN.format("cat")
HOSTILE = {
    "symlink": tar((member(PLACE, type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
    "hard link": tar((member(PLACE, type=tarfile.LNKTYPE, linkname="x"), b"")),
    "device": tar((member(PLACE, type=tarfile.CHRTYPE), b"")),
    "traversal": tar((member(f"results/../../{PLACE}", size=1), b"x")),
    "absolute": tar((member(f"/{PLACE}", size=1), b"x")),
    "huge": tar((member(PLACE, size=9 << 20), bytes(9 << 20))),
    "bomb": gzip.compress(tar((member(PLACE, size=70 << 20), bytes(70 << 20)))),
    "lying": tar((member(PLACE), b""))[:512].replace(b"00000000000\0", b"77777777777\0", 1),
    "twice": tar((member(PLACE, size=1), b"x"), (member(PLACE, size=1), b"y")),
    "no archive": b"2010_000020 0.5\n" * 99,
    "empty": b"",
    "cut": gzip.compress(tar((member(PLACE, size=4), b"cat\n")))[:-9],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_archive_is_one_finding(
    lists: Lists, tmp_path: Path, name: str
) -> None:
    done = checked(lists, tmp_path, HOSTILE[name])
    assert done.exit_code == 1
    [line] = done.stdout.splitlines()
    assert line.startswith("error    the archive: ")
    assert "It is not looked into: " in line or name == "empty"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz"]


def zipped(files: Files) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_a_tar_a_tgz_and_a_zip_are_read_alike(lists: Lists, tmp_path: Path) -> None:
    packed = pack(lists.files)
    outputs = {
        checked(lists, tmp_path, archive).stdout
        for archive in (packed, gzip.decompress(packed), zipped(lists.files))
    }
    [output] = outputs
    assert output.count("\n") == 1
    assert "compared with the official list." in output


def test_both_tasks_may_share_an_archive(lists: Lists, tmp_path: Path) -> None:
    line = b"2011_000009 0.5\n" if "Action" in lists.pattern else b"2011_000009 1 0.5\n"
    other, classes = (MAIN, CLASSES) if "Action" in lists.pattern else (ACTION, ACTIONS)
    both = lists.files | {other.format(name): line for name in classes}
    done = checked(lists, tmp_path, pack(both))
    assert done.exit_code == 0
    assert "compared with the official list." in done.stdout
    assert "compared with each other only" in done.stdout


def test_only_voc_s_images_means_no_imagenet(lists: Lists, tmp_path: Path) -> None:
    own, other = (9, 10) if "Action" in lists.pattern else (1, 2)
    done = checked(lists, tmp_path, pack(of_competition(own)(lists)))
    assert done.exit_code == 0
    assert f"warning  comp{own}: It is for methods" in done.stdout
    assert f"Nets trained on ImageNet belong to comp{other}." in done.stdout


def test_ties_are_counted_but_for_the_persons_of_one_image(lists: Lists, tmp_path: Path) -> None:
    lines = [f"{i.replace('/', ' ')} 0.5\n" for i in lists.ids]
    done = checked(lists, tmp_path, pack(lists.with_first("".join(lines).encode())))
    assert done.exit_code == 0
    images = len({i.partition("/")[0] for i in lists.ids})
    assert re.search(rf"^warning .* {images} confidences are equal", done.stdout, re.MULTILINE)
    each = {image: n for n, image in enumerate({i.partition("/")[0] for i in lists.ids})}
    lines = [f"{i.replace('/', ' ')} {each[i.partition('/')[0]]}\n" for i in lists.ids]
    done = checked(lists, tmp_path, pack(lists.with_first("".join(lines).encode())))
    assert "equal" not in done.stdout


def test_without_lists_the_files_are_compared_with_each_other(
    lists: Lists, tmp_path: Path, official_sizes: None
) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(pack(lists.files))
    done = call("submission", "check", path, "--data-root", tmp_path)
    assert done.exit_code == 0
    assert done.stdout.startswith("warning")
    size = "10,991." if "Main" in lists.pattern else "6,283, a figure that could not be verified."
    assert f"the official list is not here. It has {size}\n" in done.stdout
    path.write_bytes(pack(without_line(lists)))
    done = call("submission", "check", path, "--data-root", tmp_path)
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()].count("error") == 1
    assert f"error    '{lists.first}': 1 id is missing" in done.stdout


def test_an_archive_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "no.tgz", tmp_path, tmp_path / "pipe"):
        done = call("submission", "check", path)
        assert done.exit_code == 1
        assert done.stderr == f"vggfeat: There is no archive '{path}'.\n"
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    done = call("submission", "check", tmp_path / "large")
    assert "has more than 67,108,864 bytes" in done.stderr


def test_a_result_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = call("submission", "nothing", "--results", tmp_path)
    assert done.exit_code == 1
    assert f"No result '{tmp_path / 'nothing.json'}'. `vggfeat svm` writes one." in done.stderr


# --- any scores, any content --------------------------------------------------------------------

IDS = tuple(f"2010_{n:06d}" for n in range(5))
TASK = Task(folder="Main", kind="cls", competitions=(1, 2), classes=("cat", "dog"), size=5, ids=IDS)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=5, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_scores_are_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]]
) -> None:
    scores = np.array(rows)
    files = results_files(TASK, IDS, scores)
    assert not [found for found in check(files, [TASK]) if found.level == "error"]
    path = tmp_path_factory.getbasetemp() / "written.txt"
    for k, content in enumerate(files.values()):
        path.write_bytes(content)
        assert np.array_equal(read_scores(path, IDS), scores[:, k])


@given(st.dictionaries(st.sampled_from([TASK.file(2, "cat"), "x", "results/"]), st.binary()))
@settings(max_examples=200, deadline=None)
def test_any_content_is_refused_and_never_a_crash(files: Files) -> None:
    assert any(found.level == "error" for found in check(files, [TASK]))
