"""What a dry run says, against what the run then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.data.catalogue import published
from vggfeat.errors import DatasetNotFoundError, Interrupted, RecipeError
from vggfeat.extraction import budget, costs
from vggfeat.extraction.costs import Estimate, foresee
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import architecture
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.writer import finished_rows
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
    assert (one.rows, one.done, one.copied, one.complete, one.fetches) == (24, 0, 0, False, ())


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
    assert finished_rows(Path(after.store).parent) == 8
    assert after.gflop == pytest.approx(before.gflop * 16 / 24)
    assert after.seconds == pytest.approx(before.seconds * 16 / 24)
    extract(recipe, machine, Watch())
    [done] = foreseen(machine, f"voc:{tiny_voc}")
    assert (done.complete, done.gflop, done.seconds) == (True, 0, 0)


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
    """35 GFLOP/s for each thread, thin nets having many small layers; an image of 4:3."""
    monkeypatch.setattr(costs, "usual_threads", lambda: threads)
    own = machine.model_copy(update={"device": "cpu"})
    [one] = foreseen(own, f"voc:{tiny_voc}", scales=(224, 448), mirror=True)
    sizes = [(224, 298), (448, 597)]
    net = architecture("vgg16-thin")
    macs = sum(net.multiply_adds(*size, ceil_mode=True, tap="fc7") for size in sizes)
    assert one.seconds == pytest.approx(24 * (4 * macs / (35e9 * threads) + 2 * 0.004))


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
