"""Results with one thing wrong, through every command that reads one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.support import results
from tests.transfer import test_submit
from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.cli import main
from vggfeat.data.records import Kind
from vggfeat.errors import ClassifierError
from vggfeat.recipe import Machine
from vggfeat.report.result import (
    AGAIN,
    FORMAT_VERSION,
    Result,
    ResultError,
    check_free,
    result_path,
)
from vggfeat.transfer import submit
from vggfeat.transfer.run import evaluate, write
from vggfeat.watch import Watch

Node = tuple[str | int, ...]

GONE = "gone"  # the node is left out
HERE = "@here@"
FRAGMENTS = (
    *("null", "true", "[]", "{}", '""', '"x"', '"../up"', '"/abs"', '"a\\u0000b"', "0", "1", "-1"),
    *("2.5", "1e308", "1e999", "NaN", "9" * 400, "9" * 5000, '["x", null]', '[[1, [2]], {"a": 1}]'),
    *("[" * 150 + "]" * 150, "[" * 5000 + "]" * 5000, '{"a":' * 150 + "1" + "}" * 150, GONE, "rub"),
)


def nodes(content: Any, at: Node = ()) -> Iterator[Node]:  # noqa: ANN401  (JSON)
    """Yield the place of every value; of the parts of a list the first and the last."""
    yield at
    keys: list[str | int] = []
    if isinstance(content, dict):
        keys = list(content)
    elif isinstance(content, list):
        keys = list(dict.fromkeys([0, len(content) - 1])) if content else []
    for key in keys:
        yield from nodes(content[key], (*at, key))


def damage(content: Any, at: Node, fragment: str) -> str:  # noqa: ANN401  (JSON)
    """Return the JSON with a fragment in the place of one value."""
    if not at:
        return "" if fragment == GONE else fragment
    copy = json.loads(json.dumps(content))
    parent = copy
    for key in at[:-1]:
        parent = parent[key]
    if fragment == GONE:
        del parent[at[-1]]
    else:
        parent[at[-1]] = HERE
    return json.dumps(copy).replace(f'"{HERE}"', fragment)


def call(*arguments: object) -> click.testing.Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def check_outcome(done: click.testing.Result, what: object) -> None:
    """Done, or one message of ours: never a traceback."""
    assert done.exception is None or isinstance(done.exception, SystemExit), (what, done.exception)
    said = [line for line in done.stderr.splitlines() if line.startswith("vggfeat: ")]
    assert (done.exit_code, len(said)) in {(0, 0), (1, 1)}, (what, done.stderr)
    assert "pydantic" not in done.stderr
    assert "Error" not in done.stderr
    for line in said:
        assert line.endswith((".", "?")), line
        assert len(line) < 1500, what


SMALL = json.loads(results.caltech(4, 3).model_dump_json())


@pytest.mark.slow
@given(st.sampled_from(list(nodes(SMALL))), st.sampled_from(FRAGMENTS))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_result_is_one_message_or_a_page(
    tmp_path_factory: pytest.TempPathFactory, at: Node, fragment: str
) -> None:
    folder = tmp_path_factory.mktemp("d") / "results"
    folder.mkdir()
    path = folder / "x.json"
    path.write_text(damage(SMALL, at, fragment))
    for command in (("report", path), ("tables",), ("tables", "--format", "latex")):
        check_outcome(call(*command, "--results", folder), (command[0], at, fragment))
    assert {one.name for one in folder.iterdir()} <= {"x.json", "x.html"}
    assert [one.name for one in folder.parent.iterdir()] == ["results"]


@dataclass(frozen=True)
class Real:
    """A result with its stores, its classifiers and its data set, and an image to score."""

    root: Path
    content: Any
    image: Path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        tasks = {n: replace(task, size=6) for n, task in submit._TASKS.items()}
        patch.setattr(submit, "_TASKS", tasks)
        root = tmp_path_factory.mktemp("real")
        made = test_submit.make(root, "voc2012")
        images = root / "VOCdevkit" / "VOC2012" / "JPEGImages"
        yield Real(root, json.loads(made.result.read_text()), images / "2010_000001.jpg")


def commands(real: Real, path: Path) -> list[list[object]]:
    where = ["--results", path.parent, "--cache", real.root / "features"]
    where += ["--data-root", real.root]
    return [
        ["report", path, *where],
        ["tables", *where[:2]],
        ["predict", "--svm", path, real.image, *where[2:4]],
        ["submission", "write", path, *where],
    ]


def place(real: Real, folder: Path, text: str) -> Path:
    """Write a result to a folder, its classifiers beside it."""
    folder.mkdir()
    shutil.copy(real.root / "results" / "mine.safetensors", folder)
    (folder / "x.json").write_text(text)
    return folder / "x.json"


def test_each_command_does_what_it_should(real: Real, tmp_path: Path) -> None:
    path = place(real, tmp_path / "results", json.dumps(real.content))
    for command in commands(real, path):
        done = call(*command)
        assert done.exit_code == 0, done.output
    written = {"x.json", "x.html", "x-comp2.tar.gz", "mine.safetensors"}
    assert {one.name for one in path.parent.iterdir()} == written


@pytest.mark.slow
def test_every_field_and_every_kind_of_damage(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field is left out, and meets a fifth of the fragments: all took 200 s of computing."""
    monkeypatch.chdir(tmp_path)
    for number, at in enumerate(nodes(real.content)):
        for fragment in (GONE, *FRAGMENTS[number % 5 :: 5]):
            folder = tmp_path / f"{number}"
            path = place(real, folder, damage(real.content, at, fragment))
            for command in commands(real, path):
                done = call(*command)
                check_outcome(done, (command[0], at, fragment[:20]))
                if done.exit_code and command[0] == "report":
                    break  # all of them read it alike
            written = {"x.json", "x.html", "x-comp2.tar.gz", "mine.safetensors"}
            assert {one.name for one in folder.iterdir()} <= written, (at, fragment[:20])
            shutil.rmtree(folder)
            assert list(tmp_path.iterdir()) == [], (at, fragment[:20])


# --- what the message says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "fragment", "said"),
    [
        (("score",), '"high"', "'score' is 'high'. Expected a number."),
        (("score",), "7", "'score' is 7. Expected at most 1."),
        (("score",), GONE, "it lacks 'score'."),
        (("stores", 0, "path"), GONE, "it lacks 'stores.0.path'."),
        (("stores", 0, "path"), "null", "'stores.0.path' is null. Expected text."),
        (("stores", 0), "[]", "'stores.0' is a list. Expected a table of named values."),
        (("stores",), "{}", "'stores' is a table. Expected a list."),
        (("classes", 3, "train"), "2.5", "'classes.3.train' is 2.5. Expected a whole number."),
        (("classes", 3, "train"), "-1", "'classes.3.train' is -1. Expected at least 0."),
        (("classes", 0, "best", 0, "label"), "5", "'classes.0.best.0.label' is 5. Expected -1, 0"),
        (("classes", 0, "best", 0, "true"), "-1", "best.0.true' is -1. Expected at least 0."),
        (("classes", 0, "worst", 0, "true"), "4", "Expected classes of examples from 0 to 3."),
        (("classes", 0, "best", 0, "predicted"), "4", "Expected classes of examples from 0 to 3."),
        (("date",), '"today"', "'date' is 'today'."),
        (("ran_in",), '"../home/me"', "'ran_in' is '../home/me'."),
        (("classes",), "[]", "'classes' is a list. Expected at least one."),
        (("splits", 0, "search", "grown"), "1", "'splits.0.search.grown' is 1. Expected true or f"),
        (
            ("splits", 0, "search", "means"),
            "[0.5]",
            "'splits.0.search' is not sound. Expected as many means as values of C, 12.",
        ),
        (("confusion", 0, 0), "4", "Expected true classes in 'confusion' from 0 to 3."),
        (("confusion", 0, 0), "-1", "Expected true classes in 'confusion' from 0 to 3."),
        (("confusion", 0, 1), "4", "Expected predicted classes in 'confusion' from -1 to 3."),
        (("confusion", 0, 2), "0", "'confusion.0.2' is 0. Expected more than 0."),
        (("confusion", 0), "[1, 2]", "it lacks 'confusion.0.2'."),
        (("means",), "{}", "Expected voc2007 and voc2010 among the 'means'."),
        (("kind",), '"two classes"', "'kind' is 'two classes'. Expected 'multi-label' or 'one cl"),
        (("name",), '"../up"', "'name' is '../up'. Expected letters, digits and '._-', a letter"),
        (("name",), '"/abs"', "'name' is '/abs'. Expected letters, digits"),
        (("classifiers",), '{"../x": "a"}', "is '../x'. Expected letters, digits and '._-'"),
        (("recipe", "scales"), "5", "scales = 5 in its recipe. Expected a list in square br"),
        (("recipe",), "[]", "'recipe' is a list. Expected a table of named values."),
        (
            ("recipe", "loss"),
            '"hing"',
            "loss = 'hing' in its recipe. Did you mean 'hinge'? Valid: ",
        ),
        (("recipe", "paper", "value"), "null", "paper.value = None in its recipe. Expected a num"),
        (("recipe", "paper"), "{}", "its recipe says no 'paper.table'. Add it."),
        (("recipe", "ablation"), '{"base": "b"}', "its recipe says no 'ablation.question'. Ad"),
        (("recipe", "dataset"), f'"{"x" * 5000}"', "Unknown data set 'xxxx"),
        (("recipe", "paper", "row"), '[[["x"]]]', "Expected at most 4 levels of lists and tables."),
        (("recipe", "dataset"), '"a\\u0000b"', "Expected text without a NUL."),
        (("recipe", "paper", "value"), "9" * 400, "Expected finite numbers below 9,007,199,254,"),
        (("stores", 0, "images"), "9" * 400, f"'stores.0.images' is {'9' * 60}…. Expected less th"),
    ],
)
def test_the_message_names_file_field_and_what_was_expected(
    tmp_path: Path, at: Node, fragment: str, said: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(damage(SMALL, at, fragment))
    with pytest.raises(ResultError) as caught:
        Result.read(path)
    assert str(caught.value).startswith(f"'{path}' is damaged: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith(AGAIN)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**SMALL, "colour": "red"}))
    with pytest.raises(ResultError, match=r"is damaged: it has an unknown field 'colour'\. "):
        Result.read(path)


@pytest.mark.parametrize("version", [1, 2, -1, 10**30])
def test_another_format_is_refused_with_what_to_do(tmp_path: Path, version: int) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**SMALL, "format_version": version, "more": 1}))
    newer = version > FORMAT_VERSION
    for command in (("report", path), ("tables",), ("predict", "--svm", path, path)):
        where = () if command[0] == "predict" else ("--results", tmp_path)
        done = call(*command, *where)
        assert done.exit_code == 1
        assert done.stderr == (
            f"vggfeat: '{path}' is a result of format {version}. "
            "This version of vggfeat reads formats 3 to 6. "
            + (
                "Read it with the version of vggfeat that has written it, or a newer one.\n"
                if newer
                else "Remove it and run its recipe again, with `vggfeat svm` or `vggfeat run`.\n"
            )
        )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [GONE, "null", '"3"', "true", "3.0", "[]"])
def test_a_file_without_a_format_is_no_result(tmp_path: Path, version: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(damage(SMALL, ("format_version",), version))
    with pytest.raises(ResultError, match="is no result of vggfeat: it has no 'format_version'"):
        Result.read(path)
    done = call("tables", "--results", tmp_path)
    assert done.exit_code == 1  # it was meant to be one


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, '{"score": NaN}', "\xff", '"\\ud800"'])
def test_what_is_no_json_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultError, match=rf"^'{path}' is no JSON file: .*\. Expected a result of"):
        Result.read(path)
    with pytest.raises(ResultError, match=r"is in the way\. .*Pass another --name, or remove the"):
        check_free(path, "f")
    with pytest.raises(ResultError, match="cannot be read: Is a directory"):
        Result.read(tmp_path)
    with pytest.raises(ResultError, match="is in the way: Is a directory"):
        check_free(tmp_path, "f")


def test_the_kinds_are_those_of_the_data_sets() -> None:
    for kind in (Kind.MULTI_LABEL, Kind.ONE_CLASS):
        assert Result.model_validate({**SMALL, "kind": kind.value}).kind == kind.value


# --- where things are written -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "a/b", ".hidden", "", "a\nb", "a\0", "x\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResultError, match="cannot be called"):
        result_path(tmp_path, name)
    folder = tmp_path / "results"
    with pytest.raises(ResultError, match="cannot be called"):
        results.caltech(4, 3).model_copy(update={"name": name}).write(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_called_after_the_file_that_was_read(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere"
    original = place(real, folder, json.dumps({**real.content, "name": "other"}))
    copied = folder / "x-backup.json"
    original.rename(copied)
    (folder / "other.html").write_text("mine")
    results_folder = tmp_path / "results"
    for command in commands(real, copied):
        command[command.index("--results") + 1 if "--results" in command else -1] = results_folder
        if command[0] in {"report", "submission"}:
            done = call(*command)
            assert done.exit_code == 0, done.output
    assert (folder / "other.html").read_text() == "mine"
    assert {one.name for one in folder.iterdir()} == {
        *("x-backup.json", "x-backup.html", "x-backup-comp2.tar.gz"),
        *("other.html", "mine.safetensors"),
    }
    assert list(tmp_path.iterdir()) == [folder]


def test_classifiers_are_looked_for_beside_the_result_alone(real: Real, tmp_path: Path) -> None:
    [digest] = real.content["classifiers"].values()
    outside = real.root / "results" / "mine.safetensors"
    for name in (str(outside), f"../{outside.parent.name}/mine.safetensors", "..", "a\0"):
        changed = {**real.content, "classifiers": {name: digest}}
        path = place(real, tmp_path / "r", json.dumps(changed))
        done = call("predict", "--svm", path, real.image)
        assert done.exit_code == 1
        assert "is damaged: 'classifiers." in done.stderr
        shutil.rmtree(path.parent)


def test_stores_that_are_not_the_recipe_s_are_refused(real: Real, tmp_path: Path) -> None:
    [store] = real.content["stores"]
    for number, stores in enumerate(([], [store, store], [{**store, "model": "vgg16"}])):
        path = place(real, tmp_path / f"{number}", json.dumps({**real.content, "stores": stores}))
        for command in commands(real, path)[2:]:
            done = call(*command)
            assert done.exit_code == 1
            assert re.search("names stores of .* Its recipe wants vgg16-thin image", done.stderr)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"difficult": True}, "difficult = True in its recipe. Expected 'ignore' or 'negative'."),
        ({"models": ["vgg16-thin", None]}, "models.1 = None in its recipe. Expected text."),
        ({"colour": "red"}, "Unknown field 'colour' in its recipe."),
        ({"scales": [1]}, "Scale Q = 1."),
    ],
)
def test_a_recipe_that_cannot_be_is_one_message(
    real: Real, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    content = {**real.content, "recipe": {**real.content["recipe"], **changed}}
    path = place(real, tmp_path / "r", json.dumps(content))
    for command in commands(real, path):
        done = call(*command)
        assert done.exit_code == 1
        assert f"'{path}' is damaged: {said}" in done.stderr
        assert done.stderr.endswith(f"{AGAIN}\n")


def test_a_result_that_cannot_be_read_is_replaced_by_its_own_recipe_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, real: Real
) -> None:
    recipe = test_submit.recipe("voc2012")
    folder = tmp_path / "results"
    machine = Machine(data_root=real.root, cache=real.root / "features", results=folder)
    evaluation = evaluate(recipe, machine, Watch())
    for more in ({"format_version": 2}, {}):
        folder.mkdir(exist_ok=True)
        path = folder / "mine.json"
        own = {"recipe_fingerprint": evaluation.result.recipe_fingerprint}
        path.write_text(json.dumps(own | more))
        with pytest.raises(ResultError):
            Result.read(path)
        assert write(evaluation, machine) == path
        assert Result.read(path).recipe_fingerprint == evaluation.result.recipe_fingerprint
        assert "what stood there is replaced: " in caplog.text


def test_nested_names_of_classes_are_no_crash(tmp_path: Path) -> None:
    tensors = {"coef": np.ones((1, 2), np.float32), "intercept": np.ones(1, np.float32)}
    for classes in ("[" * 100_000, '[["a"]]', '["a", "a"]', "{}", '"a"', "1"):
        data = save(tensors, metadata={"classes": classes})
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        with pytest.raises(ClassifierError, match="is no classifier"):
            LinearOneVsRest.load(path, hashlib.sha256(data).hexdigest())
