from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.conftest import photo
from vggfeat.cli import main
from vggfeat.store.reader import DescriptorStore

FAST = ["--model", "vgg16-thin", "--weights", "random:0", "--scales", "224"]


def commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(group, click.Group):
        return [c for name, sub in group.commands.items() for c in commands(sub, (*path, name))]
    return [path]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """A runner in an empty folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return CliRunner()


def run(call: CliRunner, *arguments: str, code: int = 0) -> Result:
    result = call.invoke(main, arguments)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def check_refused(call: CliRunner, arguments: Sequence[str], *said: str, code: int = 1) -> None:
    """The command fails with one message on stderr that says all of `said`, and prints nothing."""
    result = call.invoke(main, list(arguments))
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.stdout == ""
    for text in said:
        assert text in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", commands(main), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    text = CliRunner().invoke(main, [*command, "--help"]).output
    assert "Example:" in text
    assert f"vggfeat {' '.join(command)}" in text.replace("\n", " ")


def test_the_main_job_prints_its_path_and_nothing_else(call: CliRunner, tiny_voc: Path) -> None:
    dataset = ["--dataset", f"voc:{tiny_voc}"]
    done = run(call, "extract", *FAST, *dataset)
    [line] = done.stdout.splitlines()
    assert re.fullmatch(r"features/voc-voc-[0-9a-f]{6}-vgg16-thin-[0-9a-f]{8}/descriptors.h5", line)
    with DescriptorStore.open(line) as store:
        assert len(store) == 24
    assert "images/s" in done.stderr
    table = run(call, "svm", *FAST, *dataset, "--grid", "0.1,1").stdout
    assert re.search(r"^class +train +test +C +11-point +area$", table, re.MULTILINE)
    assert re.search(r"^cat +\d+ +\d+ +[\d.]+ +[\d.]+ +[\d.]+$", table, re.MULTILINE)
    assert re.search(r"^mean over classes", table, re.MULTILINE)
    assert "C by voc2007 on val: 0.1: " in table
    assert re.search(
        r"^\d+ fits \(dual, duality gap at most .+\), 0 not converged$", table, re.MULTILINE
    )
    [written] = Path("results").glob("*.json")
    assert f"written: {written}" in table
    page = run(call, "report", written.stem).stdout.strip()
    assert Path(page).read_text().startswith("<!DOCTYPE html>")


def test_json_on_stdout_is_clean(call: CliRunner, tiny_voc: Path) -> None:
    dataset = ["--dataset", f"voc:{tiny_voc}"]
    [path] = json.loads(run(call, "extract", *FAST, *dataset, "--json").stdout)
    result = json.loads(run(call, "svm", *FAST, *dataset, "--grid", "1", "--json").stdout)
    assert result["splits"][0]["sizes"] == {"train": 8, "val": 6, "test": 10}
    facts = json.loads(run(call, "store", "info", path, "--json").stdout)
    assert facts["images"] == 24
    image = json.loads(run(call, "store", "info", path, "000003", "--json").stdout)
    assert (image["row"], image["status"]) == (2, "ok")
    assert json.loads(run(call, "store", "verify", path, "--json").stdout)["sound"] is True
    listed = {m["name"]: m for m in json.loads(run(call, "models", "--json").stdout)}
    assert {"vgg16", "vgg19-bn", "vgg11-lrn", "vgg16c", "vgg16-thin"} <= set(listed)
    assert listed["vgg16"]["gmac_at_224"] == 15.47
    findings = json.loads(run(call, "doctor", "--json").stdout)
    assert {"what", "state", "detail", "remedy"} == set(findings[0])


def test_the_layers_of_one_net(call: CliRunner) -> None:
    rows = json.loads(run(call, "models", "vgg16", "--size", "384x500", "--json").stdout)
    layers = {row["layer"]: row for row in rows}
    assert layers["conv1_1"] == {
        "layer": "conv1_1",
        "output": "64×384×500",
        "parameters": 1792,
        "multiply_adds": 27 * 64 * 384 * 500,
        "activation_bytes": 64 * 384 * 500 * 4,
    }
    assert layers["fc6"]["output"] == "4096×6×10"
    assert layers["total"]["parameters"] == 138_357_544
    halved = run(call, "models", "vgg16", "--size", "384x500", "--precision", "bfloat16").stdout
    assert f"{64 * 384 * 500 * 2:,}" in halved
    check_refused(call, ["models", "vgg61"], "Unknown model 'vgg61'", "Did you mean")
    check_refused(call, ["models", "vgg16", "--size", "big"], "--size 'big'", "384x512")
    check_refused(call, ["models", "vgg16", "--size", "99x500"], "99×500 pixels gives a pool5 map")


@pytest.mark.slow
def test_a_store_given_by_its_path_brings_its_settings(call: CliRunner, tiny_voc: Path) -> None:
    path = run(call, "extract", *FAST, "--dataset", f"voc:{tiny_voc}").stdout.strip()
    for image in (tiny_voc / "JPEGImages").iterdir():
        image.unlink()
    arguments = ["svm", "--store", path, "--dataset", f"voc:{tiny_voc}", "--grid", "1"]
    assert "mean over classes" in run(call, *arguments).stdout
    check_refused(
        call, [*arguments, "--model", "vgg19-thin"], "net 'vgg16-thin' there", "another recipe"
    )
    check_refused(call, [*arguments, "--scales", "256"], "has the scales (224,), not 256")


def test_a_recipe_runs_and_options_win(call: CliRunner, tiny_voc: Path) -> None:
    Path("r.toml").write_text(
        f'name = "mine"\ndataset = "voc:{tiny_voc}"\nmodels = ["vgg16-thin"]\n'
        'weights = ["random:0"]\nscales = [224]\ngrid = [1.0]\n'
    )
    done = run(call, "run", "r.toml", "--limit", "4", "--name", "yours")
    assert "page: results/yours.html" in done.output
    assert json.loads(Path("results/yours.json").read_text())["splits"][0]["sizes"]["train"] == 4


def test_a_dry_run_does_nothing(call: CliRunner, tiny_voc: Path, forwards: list[int]) -> None:
    command = ["extract", *FAST, "--dataset", f"voc:{tiny_voc}", "--dry-run"]
    [plan] = json.loads(run(call, *command, "--json").stdout)
    assert (plan["rows"], plan["complete"]) == (24, False)
    assert plan["disk_bytes"] > 24 * 512 * 4
    assert not Path("features").exists()
    assert "24 images" in run(call, *command).stdout
    assert forwards == []
    run(call, *command[:-1])
    assert json.loads(run(call, *command, "--json").stdout)[0]["complete"] is True


def test_several_taps(call: CliRunner, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = [*FAST, "--dataset", f"voc:{tiny_voc}", "--limit", "4", "--grid", "1"]
    taps = ["--tap", "pool5", "--tap", "fc7"]
    plans = json.loads(run(call, "extract", *job, *taps, "--dry-run", "--json").stdout)
    assert [(plan["tap"], plan["gflop"] > 0) for plan in plans] == [("pool5", False), ("fc7", True)]
    paths = run(call, "extract", *job, *taps).stdout.split()
    assert paths == [plan["store"] for plan in plans]
    run(call, "svm", *job, *taps, "--name", "both")
    result = json.loads(Path("results/both.json").read_text())
    assert (result["recipe"]["tap"], result["descriptor_size"]) == (["pool5", "fc7"], 64 + 512)
    assert [Path(store["path"]) for store in result["stores"]] == [Path(path) for path in paths]
    given = [word for path in paths for word in ("--store", path)]
    run(call, "svm", "--dataset", f"voc:{tiny_voc}", *job[-4:], *given, "--name", "given")
    scores = [json.loads(Path(f"results/{n}.json").read_text())["means"] for n in ("both", "given")]
    assert scores[0] == scores[1]
    run(call, "report", "both")
    page = Path("results/both.html").read_text()
    assert "vgg16-thin, image, pool5" in page
    assert "vgg16-thin, image, fc7" in page
    done = call.invoke(main, ["extract", *job, "--tap", "fc7", "--tap", "fc7"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Taps fc7, fc7: one occurs twice." in done.stderr
    monkeypatch.setenv("VGGFEAT_TAP", "fc7 pool5")
    plans = json.loads(run(call, "extract", *job, "--dry-run", "--json").stdout)
    assert [(plan["tap"], plan["complete"]) for plan in plans] == [("fc7", True), ("pool5", True)]


@pytest.mark.parametrize("name", ["extract", "svm", "run"])
def test_what_is_not_said_is_left_to_the_defaults(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Click 8.2.2 made False of a flag without a default, and so left mirror images out."""
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    group = click.Context(main, **main.context_settings)
    context = click.Context(main.commands[name], group, name, resilient_parsing=True)
    main.commands[name].parse_args(context, [])
    said = {k: v for k, v in context.params.items() if v is not None and v != ()}
    assert {k: v for k, v in said.items() if k not in {"dry_run", "as_json"}} == {}


def test_options_can_come_from_the_environment(
    call: CliRunner, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGFEAT_DATASET", f"voc:{tiny_voc}")
    monkeypatch.setenv("VGGFEAT_MODEL", "vgg16-thin")
    monkeypatch.setenv("VGGFEAT_WEIGHTS", "random:0")
    monkeypatch.setenv("VGGFEAT_SCALES", "224,256")
    monkeypatch.setenv("VGGFEAT_MIRROR", "0")
    [plan] = json.loads(run(call, "extract", "--dry-run", "--json").stdout)
    monkeypatch.setenv("VGGFEAT_MIRROR", "1")
    [twice] = json.loads(run(call, "extract", "--dry-run", "--json").stdout)
    assert twice["gflop"] == pytest.approx(2 * plan["gflop"])


VOC = ["--dataset", "voc2007"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "--model", "vgg61", *VOC], ["'vgg61'", "Did you mean 'vgg16'?"]),
        (["extract", "--model", "vgg16", "--dataset", "voc207"], ["Did you mean 'voc2007'?"]),
        (
            ["extract", *FAST, *VOC, "--tap", "fc7-liner"],
            ["tap = 'fc7-liner'", "Did you mean 'fc7-linear'?"],
        ),
        (["extract", *FAST, *VOC, "--interpolation", "cubic"], ["Did you mean 'bicubic'?"]),
        (["extract", *FAST, *VOC, "--precision", "bfloat"], ["Did you mean 'bfloat16'?"]),
        (["extract", *FAST, *VOC, "--on-error", "rais"], ["Did you mean 'raise'?"]),
        (["svm", *FAST, *VOC, "--aggregate", "mean"], ["Valid: average, max, stack"]),
        (["svm", *FAST, *VOC, "--loss", "hing"], ["Did you mean 'hinge'?"]),
        (["extract", *FAST[:4], *VOC, "--scales", "200"], ["Q = 200", "at least 224"]),
        (["extract", *FAST[:4], *VOC, "--scales", "a,b"], ["--scales 'a,b'", "whole numbers"]),
        (
            ["extract", *FAST, *VOC],
            ["'voc2007' not found", "VOC2007/ImageSets/Main", "--data-root"],
        ),
        (["extract", *FAST, "--dataset", "folder:nowhere"], ["'nowhere'", "Check the path"]),
        (["extract", *VOC], ["says no 'models'", "--model"]),
        (["run", "nowhere.toml"], ["No recipe 'nowhere.toml'"]),
        (["report", "nothing"], ["No result 'results/nothing.json'"]),
        (["store", "info", "nowhere"], ["No complete store at 'nowhere'"]),
    ],
)
def test_bad_values_are_one_message_and_exit_code_1(
    call: CliRunner, arguments: list[str], said: list[str]
) -> None:
    check_refused(call, arguments, *said)


@pytest.mark.parametrize(
    "arguments", [["extract", "--modle", "vgg16"], ["extrakt"], ["run"], ["store", "info"]]
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(
    call: CliRunner, arguments: list[str]
) -> None:
    check_refused(call, arguments, "Usage:", code=2)


def test_likely_slips_are_understood_or_explained(call: CliRunner) -> None:
    Path("photos").mkdir()
    command = ["extract", *FAST, "--dataset"]
    check_refused(call, [*command, "photos"], "Did you mean 'folder:photos'?")
    check_refused(call, [*command, "voc2007", "--name", "a b"], "Expected letters, digits")
    Path("a.toml").write_text('dataset = "voc2007"\nmodel = "vgg16-thin"\n')
    check_refused(call, ["run", "a.toml"], "Unknown field 'model'", "Did you mean 'models'?")
    Path("b.toml").write_text('dataset = "voc2007"\nmodels = "vgg16-thin"\nscales = 256\n')
    check_refused(call, ["run", "b.toml"], "scales = 256", "Expected a list in square brackets")


def test_an_empty_folder_is_an_error(call: CliRunner) -> None:
    Path("empty").mkdir()
    check_refused(call, ["extract", *FAST, "--dataset", "folder:empty"], "'empty' holds no image")


def test_shared_ids_and_missing_images_are_errors(call: CliRunner, tiny_voc: Path) -> None:
    command = ["extract", *FAST, "--dataset", f"voc:{tiny_voc}"]
    (tiny_voc / "JPEGImages" / "000009.jpg").unlink()
    check_refused(call, command, "'000009'", "ImageSets", "000009.jpg")
    lists = tiny_voc / "ImageSets" / "Main"
    for path in lists.glob("*test.txt"):
        path.write_text(path.read_text().replace("000015", "000001"))
    check_refused(call, command, "1 images are in train and in test, the first is '000001'")


def bad_images(folder: Path) -> None:
    """One sound image, and one of every kind that cannot be read."""
    folder.mkdir()
    Image.fromarray(photo(90, 120, seed=1)).save(folder / "good.jpg")
    content = (folder / "good.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("I am no image")
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    start = content.index(b"\xff\xc0")
    lying = content[: start + 5] + (65500).to_bytes(2, "big") * 2 + content[start + 9 :]
    (folder / "lying.jpg").write_bytes(lying)
    Image.new("1", (20000, 20000)).save(folder / "huge.png")  # 400 megapixels


def test_bad_images_are_recorded_counted_and_listed(call: CliRunner) -> None:
    bad_images(Path("photos"))
    done = run(call, "extract", *FAST, "--dataset", "folder:photos")
    assert "5 images are unreadable; 'features/" in done.stderr
    path = Path(done.stdout.strip())
    unreadable = json.loads(path.with_suffix(".json").read_text())["unreadable"]
    assert unreadable == {
        "empty.jpg": "it is empty",
        "text.jpg": "it is text, and no image of a known format; fetch the image itself",
        "cut.jpg": unreadable["cut.jpg"],
        "lying.jpg": "its header claims more than 178 megapixels",
        "huge.png": "its header claims more than 178 megapixels",
    }
    assert "truncated" in unreadable["cut.jpg"]
    with DescriptorStore.open(path) as store:
        rows = store.read(["good.jpg", "cut.jpg"])
    assert np.isfinite(rows.descriptors[0]).all()
    assert np.isnan(rows.descriptors[1]).all()


@pytest.mark.slow
def test_on_error_raise_names_the_image(call: CliRunner) -> None:
    bad_images(Path("photos"))
    command = ["extract", *FAST, "--dataset", "folder:photos", "--on-error", "raise"]
    check_refused(call, command, "cannot be read", "--on-error record")


@pytest.mark.slow
def test_changed_bytes_of_a_store_are_damage_everywhere(call: CliRunner, tiny_voc: Path) -> None:
    command = ["extract", *FAST, "--dataset", f"voc:{tiny_voc}"]
    path = Path(run(call, *command).stdout.strip())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for arguments in (command, ["svm", *command[1:]], ["store", "info", str(path)]):
        check_refused(
            call, arguments, "is damaged: its SHA-256 is not that of its record", "Restore it"
        )
    check_refused(call, ["store", "verify", str(path)], "is damaged")
    told = json.loads(run(call, "store", "verify", str(path), "--json", code=1).stdout)
    assert told["sound"] is False
    assert "is damaged" in told["fault"]


def test_a_cache_that_is_a_file_is_a_clear_error(call: CliRunner, tiny_voc: Path) -> None:
    Path("features").write_text("in the way")
    check_refused(call, ["extract", *FAST, "--dataset", f"voc:{tiny_voc}"], "could not be written")


def test_a_ctrl_c_in_a_fitting_process_is_exit_code_130(
    call: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vggfeat.cli.doctor.examine", interrupted)
    check_refused(call, ["doctor"], "Stopped by SIGINT. Run the same command again.", code=130)


def test_a_bug_keeps_its_traceback(call: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vggfeat.cli.doctor.examine", broken)
    assert isinstance(call.invoke(main, ["doctor"]).exception, ZeroDivisionError)


def test_quiet_says_nothing_on_stderr(call: CliRunner, tiny_voc: Path) -> None:
    done = run(call, "--quiet", "extract", *FAST, "--dataset", f"voc:{tiny_voc}")
    assert done.stderr == ""


def test_help_shows_the_defaults_of_the_records(call: CliRunner) -> None:
    text = " ".join(run(call, "run", "--help").stdout.split())
    for option, default in (
        ("--weights", "oxford"),
        ("--interpolation", "bilinear"),
        ("--loss", "hinge"),
        ("--mirror / --no-mirror", "True"),
        ("--data-root", "datasets"),
        ("--on-error", "record"),
    ):
        assert re.search(rf"{option} [^-]*?default: {default}\b", text), option
    assert not re.search(r"--limit [^-]*?default", text)
