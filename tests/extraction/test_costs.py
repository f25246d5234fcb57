"""What a dry run says, against what the run then does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vggfeat.data.catalogue import published
from vggfeat.errors import DatasetNotFoundError, Interrupted, RecipeError
from vggfeat.extraction import budget, costs
from vggfeat.extraction.costs import Estimate, foresee
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import architecture
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.writer import finished_shards
from vggfeat.watch import Watch


def foreseen(machine: Machine, dataset: str, **changed: object) -> list[Estimate]:
    values = {"models": ("vgg16-thin",), "weights": ("random:0",), "scales": (224,)}
    recipe = Recipe.build({"dataset": dataset, **values, **changed}, "a test")
    return list(foresee(recipe, machine, Watch()))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.build({"data_root": tmp_path / "data", "cache": tmp_path / "features"})


def test_the_arithmetic_is_that_of_the_nets_layers(machine: Machine, tiny_voc: Path) -> None:
    [one] = foreseen(machine, f"voc:{tiny_voc}", scales=(224, 448), mirror=True)
    net, total = architecture("vgg16-thin"), 0
    sizes = [(90, 120), (120, 90), (100, 100), (90, 120), (80, 130), (96, 128)] * 4
    for height, width in sizes:
        for q in (224, 448):
            h, w = (round(side * q / min(height, width) + 1e-9) for side in (height, width))
            total += 2 * 2 * net.multiply_adds(h, w, ceil_mode=True, tap="fc7")
    assert one.gflop == pytest.approx(total / 1e9, rel=1e-3)
    assert one.disk_bytes == 24 * (2 * 4 * 513 + 64)
    assert (one.rows, one.done, one.copied, one.partly) == (24, 0, 0, 0)
    assert (one.complete, one.fetches) == (False, ())


def test_a_pass_that_serves_several_taps_is_counted_once(machine: Machine, tiny_voc: Path) -> None:
    data = f"voc:{tiny_voc}"
    apart = {tap: foreseen(machine, data, tap=tap)[0] for tap in ("pool5", "fc7", "fc7-linear")}
    taps = ("pool5", "fc7", "fc7-linear")
    both = foreseen(machine, data, tap=taps)
    assert [one.tap for one in both] == [*taps]
    assert sum(one.gflop for one in both) == pytest.approx(apart["fc7"].gflop)
    assert sum(one.seconds for one in both) == pytest.approx(apart["fc7"].seconds)
    assert both[0].gflop == 0
    for one in both:
        assert (one.store, one.disk_bytes) == (apart[one.tap].store, apart[one.tap].disk_bytes)
    assert [one.disk_bytes for one in both] == [24 * (4 * (d + 1) + 64) for d in (64, 512, 512)]
    made = Recipe.build(
        {
            "dataset": data,
            "models": ("vgg16-thin",),
            "weights": ("random:0",),
            "scales": (224,),
            "tap": "fc7",
        },
        "a test",
    )
    extract(made, machine, Watch())
    pool5, fc7 = foreseen(machine, data, tap=("pool5", "fc7"))  # a pass no longer goes on to fc7
    assert (fc7.complete, fc7.gflop) == (True, 0)
    assert pool5.gflop == pytest.approx(apart["pool5"].gflop)
    absent = foreseen(machine, "voc2007", tap=("pool5", "fc7"))
    assert [one.gflop > 0 for one in absent] == [False, True]


class _StopsAfterTheFirst(Watch):
    def check(self, remedy: str) -> None:
        raise Interrupted(2, remedy)


@pytest.mark.slow
def test_finished_shards_of_an_interrupted_run_are_not_counted_again(
    machine: Machine, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "shard_rows", lambda *_: 8)
    [before] = foreseen(machine, f"voc:{tiny_voc}")
    recipe = Recipe.build(
        {
            "dataset": f"voc:{tiny_voc}",
            "models": ("vgg16-thin",),
            "weights": ("random:0",),
            "scales": (224,),
        },
        "a test",
    )
    with pytest.raises(Interrupted):
        extract(recipe, machine, _StopsAfterTheFirst())
    [after] = foreseen(machine, f"voc:{tiny_voc}")
    assert (after.done, after.complete) == (8, False)
    [rows] = finished_shards(Path(after.store).parent)
    assert len(rows) == 8
    assert after.gflop == pytest.approx(before.gflop * 16 / 24)
    assert after.start_seconds == before.start_seconds > 0
    described = [one.seconds - one.start_seconds for one in (before, after)]
    assert described[1] == pytest.approx(described[0] * 16 / 24)
    extract(recipe, machine, Watch())
    [done] = foreseen(machine, f"voc:{tiny_voc}")
    assert (done.complete, done.gflop, done.seconds) == (True, 0, 0)
    assert (done.rows, done.done, done.copied, done.partly) == (24, 24, 0, 0)


@pytest.mark.slow
def test_what_other_stores_hold_is_counted_by_scale(
    machine: Machine, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 images one store has 24 at 224; another, of two scales, is begun with 8 of them."""
    monkeypatch.setattr(budget, "shard_rows", lambda *_: 8)
    data, scales = f"voc:{tiny_voc}", (224, 240)
    apart = {q: foreseen(machine, data, scales=(q,))[0] for q in scales}
    values = {"dataset": data, "models": ("vgg16-thin",), "weights": ("random:0",)}
    extract(Recipe.build({**values, "scales": (224,)}, "a test"), machine, Watch())
    [before] = foreseen(machine, data, scales=scales)
    assert (before.done, before.copied, before.partly) == (0, 0, 24)
    assert before.gflop == pytest.approx(apart[240].gflop)
    assert before.seconds == pytest.approx(apart[240].seconds)
    with pytest.raises(Interrupted):
        both = Recipe.build({**values, "scales": scales}, "a test")
        extract(both, machine, _StopsAfterTheFirst())
    [after] = foreseen(machine, data, scales=scales)  # finished rows are not copied ones as well
    assert (after.done, after.copied, after.partly) == (8, 0, 16)
    assert after.gflop == pytest.approx(apart[240].gflop * 16 / 24)
    extract(both, machine, Watch())
    [fewer] = foreseen(machine, data, scales=(240,))
    assert (fewer.done, fewer.copied, fewer.gflop, fewer.seconds) == (0, 24, 0, 0)


def test_the_start_is_that_of_libraries_and_weights(machine: Machine, tiny_voc: Path) -> None:
    """3 s, and 33 ns for each number of fc7 and below."""
    data = f"voc:{tiny_voc}"
    [fc7] = foreseen(machine, data, models=("vgg16",))
    weights = sum(math.prod(layer.shape) for layer in architecture("vgg16").layers("fc7"))
    assert weights == 134_248_128  # Table 2's 138 million without fc8 and biases
    assert fc7.start_seconds == pytest.approx(3 + 33e-9 * weights)
    [pool5] = foreseen(machine, data, models=("vgg16",), tap="pool5")
    assert pool5.start_seconds == pytest.approx(3 + 33e-9 * 14_710_464)
    both = foreseen(machine, data, tap=("pool5", "fc7"))
    assert [one.start_seconds > 0 for one in both] == [False, True]


def test_what_is_absent_is_named_with_its_size_and_nothing_is_fetched(machine: Machine) -> None:
    by_name = {dataset.name: dataset for dataset in published()}
    for name in ("voc2007", "voc2012-val", "caltech101"):
        public = by_name[name.removesuffix("-val")]
        [one] = foreseen(machine, name)
        assert one.fetches == (public.summary,)
        assert (one.store, one.rows) == ("", public.image_count)
        assert one.seconds > 0
    both = foreseen(machine, "voc2007", models=("vgg16",), weights=("oxford",), limit=5)
    assert both[0].fetches[0] == by_name["voc2007"].summary
    assert both[0].fetches[1].startswith("VGG_ILSVRC_16_layers.caffemodel, 553 MB; licence: ")
    assert both[0].rows == 15
    assert not list(machine.data_root.parent.glob("data/*"))


@pytest.mark.parametrize("threads", [1, 3])
def test_time_is_that_of_the_operations_and_of_each_scale(
    machine: Machine, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """35 GFLOP/s for each thread, thin nets having many small layers."""
    monkeypatch.setattr(costs, "usual_threads", lambda: threads)
    own = machine.model_copy(update={"device": "cpu"})
    [one] = foreseen(own, f"voc:{tiny_voc}", scales=(224, 448), mirror=True)
    seconds = one.gflop / (35 * threads) + 24 * 2 * 0.004
    assert one.seconds - one.start_seconds == pytest.approx(seconds)
    assert one.start_seconds < 4


@pytest.mark.parametrize("dataset", ["voc2007", "a tree"])
def test_what_the_device_has_not_is_refused(machine: Machine, tiny_voc: Path, dataset: str) -> None:
    name = f"voc:{tiny_voc}" if dataset == "a tree" else dataset
    on_cpu, absent = (machine.model_copy(update={"device": d}) for d in ("cpu", "cuda:99"))
    with pytest.raises(RecipeError, match="It is for GPUs"):
        foreseen(on_cpu, name, precision="tf32")
    with pytest.raises(RecipeError, match="No device 'cuda:99'"):
        foreseen(absent, name)


def test_what_is_absent_and_not_public_is_an_error(machine: Machine) -> None:
    with pytest.raises(DatasetNotFoundError):
        foreseen(machine, "folder:nowhere")
