"""What the benchmarks compute from times and figures; the times themselves are nobody's test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest import CaptureFixture

from benchmarks import common, document, drift, extract, footguns, forward, gpu, growth
from tests.conftest import photo
from vggfeat.extraction.images import rescale
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.recipe import Machine, Recipe
from vggfeat.weights.find import random_tensors
from vggfeat.weights.formats.checks import authors_order

ROW = {
    "scale": "all",
    "engine": "vggfeat float32",
    "precision": "float32",
    "batch": None,
    "seconds": 6.7,
    "gflops": 427.2,
    "share_of_ceiling": 0.95,
    "ratio": {"median": 1.85, "low": 1.8, "high": 1.9},
    "error": 5e-7,
    "one_minus_cos": 1.2e-13,
    "rss_mb": 2540,
}
MACHINE = {"processor": "P", "gpu": None, "cores": 2, "memory_gib": 23.5, "torch": "2.14"}
SOURCE = {"machine": MACHINE, "date": "2026-11-22", "command": "python -m benchmarks.forward"}
FIGURES: dict[str, dict[str, Any]] = {
    "forward": {"model": "vgg16", "scales": list(forward.SCALES), "rows": [ROW], **SOURCE},
    "drift": {
        "rows": [
            {"precision": "float32", "one_minus_cos_max": 0.0, "score_change": 0.0},
            *(
                {
                    "precision": "int8",
                    "one_minus_cos_max": cosine,
                    "test_images": images,
                    "score_change": change,
                    "score_change_interval": [change - 0.4, change + 0.4],
                }
                for images, cosine, change in ((56, 2.4e-4, 1.2), (1000, 1e-4, -0.3))
            ),
        ]
    },
}


def test_calls_take_turns_after_a_round_that_does_not_count() -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    times = common.alternate(calls, repeat=2)
    assert called == list("ababab")
    assert {name: len(of) for name, of in times.items()} == {"a": 2, "b": 2}


def test_a_speed_up_is_the_median_of_the_ratios_within_each_round() -> None:
    found = common.ratios({"slow": [2.0, 4.0, 9.0], "fast": [1.0, 4.0, 3.0]}, "slow")
    assert found["fast"] == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert found["slow"] == {"median": 1.0, "low": 1.0, "high": 1.0}


def test_distance_keeps_its_digits_near_zero() -> None:
    reference = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    turned = torch.tensor([[3.0, 4.0], [1.0, 1e-8]], dtype=torch.float64)
    found = common.distance(turned, reference)
    assert found["one_minus_cos"] == pytest.approx(5e-17)
    assert found["error"] == pytest.approx(1e-8)
    assert common.distance(2 * reference, reference)["error"] == 1.0


def test_figures_are_written_with_their_machine_and_few_digits(
    tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    path = common.write("some", {"b": [1.23456789, None], "a": {"n": 123456789}}, tmp_path / "new")
    assert capsys.readouterr().out == f"{path}\n"
    found = json.loads(path.read_text())
    assert found["b"] == [1.2346, None]
    assert found["a"] == {"n": 123456789}
    assert {"machine", "date", "command"} <= set(found)
    assert list(found) == sorted(found)
    with pytest.raises(ValueError, match="JSON"):
        common.write("some", {"x": float("nan")}, tmp_path)


@pytest.mark.slow
def test_processes_answer_in_turn_and_a_failing_one_is_left_out(
    capsys: CaptureFixture[str],
) -> None:
    """The second one fails at 2, and says so; the third ends."""
    code = "from benchmarks.common import serve\nserve(lambda q: {'y': 6 // (q['x'] - %s)})"
    with (
        common.Worker(["-c", code % 0]) as good,
        common.Worker(["-c", code % 2]) as failing,
        common.Worker(["-c", "raise SystemExit(3)"]) as ended,
    ):
        workers = {"good": good, "failing": failing, "ended": ended}
        answers = common.in_turn(workers, {"x": 2}, repeat=2)
        assert failing.ask({"x": 5})["y"] == 2
    assert [answer["y"] for answer in answers.pop("good")] == [3, 3]
    assert not answers
    skipped = capsys.readouterr().err
    assert "failing, {'x': 2}: ZeroDivisionError" in skipped
    assert "ended, {'x': 2}: its process ended with 3" in skipped


@pytest.mark.slow
def test_a_process_tells_its_own_peak_of_memory() -> None:
    code = (
        "from benchmarks.common import serve\nserve(lambda q: {'n': len(bytearray(q['mb'] << 20))})"
    )
    with common.Worker(["-c", code]) as worker:
        small, large = (worker.ask({"mb": mb})["rss_mb"] for mb in (1, 200))
    assert 180 <= large - small <= 260


@pytest.mark.slow
def test_every_engine_of_the_cpu_describes_the_same() -> None:
    images = forward.image_batch(224, 2)
    expected = forward.naive("vgg16-thin", "cpu", torch.float64)(images)
    for name, engine in forward.ENGINES.items():
        if "cpu" in engine.devices and "timm" not in name:
            found = common.distance(engine.build("vgg16-thin", "cpu")(images), expected)
            bound = 1e-5 if engine.precision == "float32" else 5e-2
            assert found["error"] <= bound, name


def test_the_work_of_five_scales_is_that_of_the_paper() -> None:
    assert sum(forward.gflop("vgg16", q) for q in forward.SCALES) == pytest.approx(2862, abs=1)


def test_drift_of_rows() -> None:
    unit = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    norms = np.array([[2.0], [4.0]])
    cosine, error = drift.row_drift((unit, norms * 1.5), (unit, norms))
    assert cosine.tolist() == [[0.0], [0.0]]
    assert error.tolist() == [[0.5], [0.5]]
    cosine, _ = drift.row_drift((unit[::-1], norms), (unit, norms))
    assert cosine.tolist() == [[1.0], [1.0]]


@pytest.mark.slow
def test_the_ledger_runs_on_a_small_tree(tiny_voc: Path, tmp_path: Path) -> None:
    values = extract.recipe_values(f"voc:{tiny_voc}", "vgg16-thin", [224])
    recipe = Recipe.build({**values, "name": "tiny"}, "a test")
    rows = drift.measure([recipe], Machine(cache=tmp_path, offline=True))
    assert rows[0]["precision"] == "float32"
    assert (rows[0]["one_minus_cos_max"], rows[0]["score_change"]) == (0, 0)
    assert rows[0]["score_change_interval"] == (0, 0)
    reduced = rows[1]
    low, high = reduced["score_change_interval"]
    assert (reduced["precision"], reduced["data"]) == ("bfloat16", "tiny")
    assert low <= reduced["score_change"] <= high


@pytest.mark.slow
def test_extraction_is_compared_with_its_own_batches(tiny_voc: Path) -> None:
    values = extract.recipe_values(f"voc:{tiny_voc}", "vgg16-thin", [224])
    found = extract.loss(values, "cpu", repeat=1)
    assert found["images"] == 24
    assert 0 < found["batches"] <= 24
    assert found["lost"] == pytest.approx(1 - found["bare_seconds"] / found["seconds"])


@pytest.mark.slow
def test_the_gpu_check_finds_a_device_equal_to_itself() -> None:
    rows = gpu.exactness("vgg16-thin", "cpu")
    assert {row["ceil_mode"] for row in rows} == {True, False}
    assert max(row["error"] for row in rows) <= gpu.BOUND


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_search_on_a_device_is_certified() -> None:
    rows = gpu.svm_rows("cpu", 1, images=120, size=40)
    assert [row["loss"] for row in rows] == ["squared_hinge", "hinge"]
    for row in rows:
        assert (row["fits"], row["left"]) == (20 * 12, 0)
        assert 0 <= row["gap"] <= 1e-3
        assert row["ratio"] > 0


def test_a_mistake_is_made_everywhere_and_in_the_test_photos_only() -> None:
    """Two classes along two axes, which the wrong way exchanges."""
    train = [Path(f"{name}/{n}.jpg") for n in range(3) for name in "ab"]
    test = [Path("a/9.jpg"), Path("b/9.jpg")]

    def describing(photos: Sequence[Path], way: footguns.Way) -> footguns.Rows:
        rows = np.array([[3.0, 0.0] if p.parent.name == "a" else [0.0, 4.0] for p in photos])
        return rows[:, ::-1] if way.exchanged else rows

    ways = {"nothing": footguns.Way(), "axes": footguns.Way(exchanged=True)}
    right, wrong = footguns.mistakes((train, test), describing, ways)
    assert (right["everywhere"], right["test_only"], right["one_minus_cos_median"]) == (100, 100, 0)
    assert (wrong["everywhere"], wrong["test_only"], wrong["one_minus_cos_median"]) == (100, 0, 1)
    assert right["norms"] == [3, 4]


def test_photos_are_taken_by_name_from_every_class(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "b/3", "a/1", "a/2", "a/3", "a/4"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    train, test = footguns.chosen(tmp_path, 2, 1)
    assert train == [tmp_path / f"{name}/{n}.jpg" for name in "ab" for n in (1, 2)]
    assert test == [tmp_path / "a/3.jpg", tmp_path / "b/3.jpg"]


def test_the_right_way_is_the_authors(shared: Path) -> None:
    tensors = footguns.trunk(shared / "vgg16-trunk" / "vgg16_trunk.npz")
    assert authors_order(ARCHITECTURES["vgg16"], tensors["conv1_1.weight"]) == "RGB"
    right = footguns.WAYS[footguns.AS_TRAINED]
    assert (right.profile, right.exchanged) == (PROFILES["oxford"], False)
    assert next(iter(footguns.WAYS)) == footguns.AS_TRAINED


def test_without_photos_or_weights_mistakes_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent")
    for arguments in (["--photos", absent], ["--photos", str(tmp_path), "--weights", absent]):
        monkeypatch.setattr("sys.argv", ["footguns", *arguments])
        footguns.main()
        assert capsys.readouterr().err == f"skipped: footguns: no '{absent}'\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", footguns.WAYS)
def test_a_photo_is_described_as_by_the_plain_net(tmp_path: Path, name: str) -> None:
    """Red and blue are exchanged in the pixels here, and so is the mean."""
    net, way = ARCHITECTURES["vgg16-thin"], footguns.WAYS[name]
    tensors, image = random_tensors(net, 0), Image.fromarray(photo(224, 260, seed=0))
    image.save(tmp_path / "one.png")
    [row] = footguns.describe([tmp_path / "one.png"], net, tensors, way, 224)
    pixels, profile = rescale(way.prepare(image), 224), way.profile
    if way.exchanged:
        pixels, profile = pixels[:, :, ::-1], replace(profile, mean=profile.mean[::-1])
    plain = DenseVgg(net, tensors, profile, "pool5")
    with torch.inference_mode():
        expected = plain(torch.from_numpy(pixels.copy())[None])[0].double().numpy()
    assert np.abs(row - expected).max() <= 1e-5 * np.abs(expected).max()


def test_without_a_gpu_its_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main()


def test_the_same_series_gives_the_same_plot(tmp_path: Path) -> None:
    series = {"title": "A: b", "x_label": "n", "y_label": "s", "x": [1, 10], "y": {"e": [1, 9]}}
    (tmp_path / "some.json").write_text(json.dumps({"series": [series]}))
    [path] = growth.plot_all(tmp_path)
    assert path.name == "some-a-b.svg"
    first = path.read_bytes()
    assert growth.plot_all(tmp_path) == [path]
    assert path.read_bytes() == first


def test_a_page_is_made_anew_between_its_markers_only() -> None:
    page = (
        "By hand.\n<!-- generated: choices -->\nold\n<!-- end -->\n"
        "It takes <!-- generated: float32, 1,000 images -->old<!-- end -->, or "
        "<!-- generated: naive, 1,000 images --><!-- end -->.\n"
    )
    made = document.regenerate(page, FIGURES)
    assert document.regenerate(made, FIGURES) == made
    assert made.startswith("By hand.\n<!-- generated: choices -->\n| where |")
    assert "-->1.9 h<!-- end -->, or" in made
    assert f"images -->{document.NOTHING}<!-- end -->.\n" in made
    with pytest.raises(KeyError, match="nonsense"):
        document.regenerate("<!-- generated: nonsense --><!-- end -->", FIGURES)


def test_a_choice_without_figures_has_no_row() -> None:
    rows = document.choices(FIGURES).splitlines()
    assert len(rows) == 3
    assert "| 1.9 | 1.9 h | the reference | the reference |" in rows[2]
    int8 = {**ROW, "engine": "vggfeat int8", "precision": "int8"}
    more = {**FIGURES, "forward": {**FIGURES["forward"], "rows": [ROW, int8]}}
    assert document.choices(more).splitlines()[3].endswith("| 2e-4 | -0.30 (-0.70 to +0.10) |")
    assert document.choices({}) == ""


def test_every_table_and_number_can_do_without_figures() -> None:
    assert not any(make({}) for make in (*document.TABLES.values(), *document.NUMBERS.values()))


def test_a_table_says_where_it_was_measured() -> None:
    table = document.forward_table(FIGURES)
    assert "| all | vggfeat float32 | 6.7 | 427 | 95 % | 1.85 | 1.80–1.90 | 5e-7 | 1e-13 |" in table
    source = "`python -m benchmarks.forward` · P, 2 cores, 24 GiB, torch 2.14 · 2026-11-22"
    assert table.endswith(source)
