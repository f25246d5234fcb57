"""Stores of several taps that one pass fills: the bytes of each are those of one made alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from vggfeat.classify.aggregate import aggregate, fuse
from vggfeat.errors import Interrupted, RecipeError
from vggfeat.extraction import budget
from vggfeat.extraction.job import in_one_pass
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import open_for
from vggfeat.extraction.workers import extract
from vggfeat.nets import int8
from vggfeat.nets.forms import FORMS
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.store.layout import StorePlan
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.rows import Rows
from vggfeat.store.writer import ShardFolder, finished_shards
from vggfeat.transfer.run import evaluate
from vggfeat.transfer.samples import blocks_of, read_fused
from vggfeat.transformer import VggDescriptor
from vggfeat.watch import Watch

SCALES = (224, 256)
Passes = list[tuple[int, int, tuple[str, ...]]]  # images, their shorter side, taps


def recipe(root: Path, tap: str | Sequence[str], **changed: object) -> Recipe:
    values: dict[str, object] = {
        "dataset": f"voc:{root}",
        "models": ["vgg11-thin"],
        "weights": ["random:0"],
        "scales": SCALES,
        "mirror": False,
        "tap": tap if isinstance(tap, str) else list(tap),
    }
    return Recipe.build({**values, **changed}, "a test")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(cache=tmp_path / "features", device="cpu")


@pytest.fixture
def alone(tiny_voc: Path, tmp_path: Path) -> Callable[..., bytes]:
    """The bytes of the store that is made for a tap alone, elsewhere."""

    def bytes_of(tap: str, **changed: object) -> bytes:
        elsewhere = Machine(cache=tmp_path / f"alone-{tap}", device="cpu")
        [path] = extract(recipe(tiny_voc, tap, **changed), elsewhere, Watch())
        return path.read_bytes()

    return bytes_of


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Every forward pass: how many images at which scale, and for which taps."""
    noted: Passes = []

    def note(form: type) -> None:
        original = form.__call__

        def noting(
            self: object,
            images: Sequence[Tensor],
            canvas: tuple[int, int],
            *,
            mirror: bool,
            taps: Sequence[str],
        ) -> tuple[Tensor, ...]:
            q = {min(image.shape[:2]) for image in images}
            assert len(q) == 1
            noted.append((len(images), q.pop(), tuple(taps)))
            described: tuple[Tensor, ...] = original(self, images, canvas, mirror=mirror, taps=taps)
            return described

        monkeypatch.setattr(form, "__call__", noting)

    for form in FORMS:
        note(form)
    return noted


def counted(passes: Passes) -> dict[tuple[int, tuple[str, ...]], int]:
    """(Scale, taps) to the number of images."""
    found: dict[tuple[int, tuple[str, ...]], int] = {}
    for images, q, taps in passes:
        found[q, taps] = found.get((q, taps), 0) + images
    return found


class _StopsAfterTheFirst(Watch):
    def check(self, remedy: str) -> None:
        raise Interrupted(2, remedy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("taps", "changed"),
    [
        (("pool5", "fc7"), {}),
        pytest.param(
            ("fc7", "fc7-linear", "conv3_2"),
            {"pooling": "floor", "mirror": True, "scales": (224,)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("fc6", "pool5"), {"precision": "bfloat16", "scales": (224,)}, marks=pytest.mark.slow
        ),
    ],
)
def test_one_pass_makes_the_bytes_that_each_tap_makes_alone(
    tiny_voc: Path,
    machine: Machine,
    alone: Callable[..., bytes],
    passes: Passes,
    taps: tuple[str, ...],
    changed: dict[str, object],
) -> None:
    wanted = recipe(tiny_voc, taps, **changed)
    paths = extract(wanted, machine, Watch())
    assert counted(passes) == {(q, taps): 24 for q in wanted.scales}
    for tap, path in zip(taps, paths, strict=True):
        assert StorePlan.read(path.parent).recipe["tap"] == tap
        assert path.read_bytes() == alone(tap, **changed)
    assert extract(wanted, machine, Watch()) == paths
    assert extract(recipe(tiny_voc, taps[0], **changed), machine, Watch()) == paths[:1]


@pytest.mark.slow
def test_an_8_bit_net_is_another_one_for_each_tap(
    tiny_voc: Path, machine: Machine, alone: Callable[..., bytes], passes: Passes
) -> None:
    """Its last layer is in floating point: shallower taps of one pass would not be those alone."""
    pytest.importorskip("openvino", reason='pip install "vggfeat[int8]"')
    try:
        int8.runtime()
    except int8.Int8Unavailable as error:
        pytest.skip(str(error))
    changed = {"precision": "int8", "scales": (224,)}
    paths = extract(recipe(tiny_voc, ("pool5", "conv5_2"), **changed), machine, Watch())
    assert counted(passes) == {(224, ("pool5",)): 24, (224, ("conv5_2",)): 24}
    assert [path.read_bytes() for path in paths] == [
        alone("pool5", **changed),
        alone("conv5_2", **changed),
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_between_two_stores_resumes_to_the_same_bytes(
    tiny_voc: Path,
    machine: Machine,
    alone: Callable[..., bytes],
    passes: Passes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "shard_rows", lambda *_: 8)
    wanted, commit = recipe(tiny_voc, ("pool5", "fc7"), scales=(224,)), ShardFolder.commit
    left = [3]  # both stores have the first shard, one has the second

    def mortal(shards: ShardFolder, number: int, rows: Rows, notes: Mapping[str, Any]) -> bool:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return commit(shards, number, rows, notes)

    with monkeypatch.context() as during:
        during.setattr(ShardFolder, "commit", mortal)
        with pytest.raises(KeyboardInterrupt):
            extract(wanted, machine, Watch())
    done = {
        StorePlan.read(folder).recipe["tap"]: sum(map(len, finished_shards(folder)))
        for folder in machine.cache.iterdir()
    }
    assert done == {"pool5": 16, "fc7": 8}
    passes.clear()
    paths = extract(wanted, machine, Watch())
    assert counted(passes) == {(224, ("fc7",)): 8, (224, ("pool5", "fc7")): 8}
    assert [path.read_bytes() for path in paths] == [
        alone("pool5", scales=(224,)),
        alone("fc7", scales=(224,)),
    ]


def test_a_store_that_was_begun_alone_decides_the_shards_of_the_other(
    tiny_voc: Path, machine: Machine, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(budget, "shard_rows", lambda *_: 9)
        with pytest.raises(Interrupted):
            extract(recipe(tiny_voc, "pool5", scales=(224,)), machine, _StopsAfterTheFirst())
    passes.clear()
    monkeypatch.setattr(budget, "shard_rows", lambda *_: 8)
    first, second = extract(recipe(tiny_voc, ("pool5", "fc7"), scales=(224,)), machine, Watch())
    taken = counted(passes)
    assert sum(taken.values()) == 24
    assert set(taken) == {(224, ("pool5", "fc7")), (224, ("fc7",))}
    assert taken[224, ("fc7",)] in {9, 6}  # the shard that was there
    assert [StorePlan.read(path.parent).shard_rows for path in (first, second)] == [9, 9]


@pytest.mark.slow
def test_stores_that_were_begun_in_other_shards_are_filled_one_after_the_other(
    tiny_voc: Path,
    machine: Machine,
    alone: Callable[..., bytes],
    passes: Passes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for tap, rows in (("pool5", 8), ("fc7", 12)):
        monkeypatch.setattr(budget, "shard_rows", lambda *_, rows=rows: rows)
        with pytest.raises(Interrupted):
            extract(recipe(tiny_voc, tap, scales=(224,)), machine, _StopsAfterTheFirst())
    passes.clear()
    paths = extract(recipe(tiny_voc, ("pool5", "fc7"), scales=(224,)), machine, Watch())
    assert counted(passes) == {(224, ("pool5",)): 16, (224, ("fc7",)): 12}
    assert [path.read_bytes() for path in paths] == [
        alone("pool5", scales=(224,)),
        alone("fc7", scales=(224,)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_rows_that_another_store_has_are_copied_for_its_tap_alone(
    tiny_voc: Path,
    machine: Machine,
    alone: Callable[..., bytes],
    passes: Passes,
    precision: str,
) -> None:
    """On a canvas stores that lack other rows are described apart, so that no batch changes."""
    extract(recipe(tiny_voc, "fc7", scales=(224,), precision=precision), machine, Watch())
    shutil.copytree(machine.cache, machine.cache.with_name("alone-fc7"))
    passes.clear()
    paths = extract(recipe(tiny_voc, ("pool5", "fc7"), precision=precision), machine, Watch())
    if precision == "float32":
        expected = {(224, ("pool5",)): 24, (256, ("pool5", "fc7")): 24}
    else:
        expected = {(224, ("pool5",)): 24, (256, ("pool5",)): 24, (256, ("fc7",)): 24}
    assert counted(passes) == expected
    for tap, path in zip(("pool5", "fc7"), paths, strict=True):
        assert path.read_bytes() == alone(tap, precision=precision)


def test_an_unreadable_image_is_so_in_every_store_and_told_of_once(
    tiny_voc: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    (tiny_voc / "JPEGImages" / "000005.jpg").write_bytes(b"no image")
    paths = extract(recipe(tiny_voc, ("pool5", "fc7"), scales=(224,)), machine, Watch())
    for path in paths:
        with DescriptorStore.open(path) as store:
            assert [*store.unreadable] == ["000005"]
            assert np.isnan(store.read(["000005"]).descriptors).all()
    assert caplog.text.count("000005 is unreadable") == 1
    assert caplog.text.count("one pass of vgg11-thin fills a store for each") == 1


@pytest.mark.slow
def test_the_svm_sees_a_block_for_each_net_region_and_tap(tiny_voc: Path, machine: Machine) -> None:
    models = ("vgg11-thin", "vgg13-thin")
    wanted = recipe(tiny_voc, ("fc7", "pool5"), models=models, aggregate="stack")
    assert wanted.described == tuple(
        Described(model, "image", tap) for model in models for tap in ("fc7", "pool5")
    )
    assert wanted.descriptor_size == 2 * 2 * (512 + 64)
    dataset = open_for(wanted, machine)
    stores = [DescriptorStore.open(path) for path in extract(wanted, machine, Watch())]
    ids = [item.id for item in dataset.items]
    x = read_fused(blocks_of(stores, dataset, wanted), ids, wanted)
    assert x.shape == (24, 2 * 2 * (512 + 64))
    held = [store.read(ids) for store in stores]
    assert [rows.descriptors.shape[2] for rows in held] == [512, 64, 512, 64]
    expected = fuse([aggregate(rows.descriptors, rows.norms, "stack") for rows in held])
    assert np.array_equal(x, expected)
    one = held[1].descriptors[3].astype(np.float64) * held[1].norms[3, :, None]
    block = one.ravel() / np.linalg.norm(one) / 2  # of four blocks of one length
    assert np.allclose(x[3, 2 * 512 : 2 * (512 + 64)], block, atol=1e-7)
    for store in stores:
        store.close()


@pytest.mark.slow
def test_the_time_of_a_pass_is_divided_among_its_stores(tiny_voc: Path, machine: Machine) -> None:
    wanted = recipe(tiny_voc, ("fc7", "pool5"))
    begun = time.perf_counter()
    paths = extract(wanted, machine, Watch())
    whole = time.perf_counter() - begun
    times = []
    for path in paths:
        with DescriptorStore.open(path) as store:
            times.append(store.seconds or 0.0)
    assert times == [times[0]] * 2
    assert 0 < sum(times) < whole
    told = evaluate(wanted, machine, Watch()).result.seconds
    assert told["describe images"] == sum(times)
    record = paths[0].with_name("descriptors.json")  # as stores of before have none
    record.write_text(json.dumps({**json.loads(record.read_text()), "seconds": None}))
    assert "describe images" not in evaluate(wanted, machine, Watch()).result.seconds


def test_jobs_of_one_net_region_and_set_of_images_share_a_pass(
    tiny_voc: Path, machine: Machine
) -> None:
    models = ("vgg11-thin", "vgg13-thin")
    wanted = recipe(tiny_voc, ("fc7", "pool5"), models=models)
    dataset = open_for(wanted, machine)
    jobs = [job_of(wanted, machine, dataset, which, Watch()) for which in wanted.described]
    other = recipe(tiny_voc, "fc6", models=models, scales=(224,))
    apart = job_of(other, machine, dataset, other.described[0], Watch())
    found = in_one_pass([*jobs[::2], apart, *jobs[1::2]])
    shared = [[(job.model, job.tap) for job in some] for some in found]
    assert shared == [
        [("vgg11-thin", "fc7"), ("vgg11-thin", "pool5")],
        [("vgg13-thin", "fc7"), ("vgg13-thin", "pool5")],
        [("vgg11-thin", "fc6")],
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_the_transformer_describes_by_several_taps_in_one_pass(
    tiny_voc: Path, tmp_path: Path, passes: Passes, kept: bool
) -> None:
    images = sorted((tiny_voc / "JPEGImages").iterdir())[:3]

    def transformer(tap: str | Sequence[str]) -> VggDescriptor:
        return VggDescriptor(
            "vgg11-thin",
            weights="random:0",
            scales=SCALES,
            tap=tap,
            cache=tmp_path / "cache" if kept else None,
        )

    x = transformer(["pool5", "fc7"]).transform(images)
    assert counted(passes) == {(q, ("pool5", "fc7")): 3 for q in SCALES}
    passes.clear()
    blocks = [transformer(tap).transform(images) for tap in ("pool5", "fc7")]
    assert bool(passes) is not kept
    assert np.array_equal(x, fuse(blocks))
    assert len(transformer(["pool5", "fc7"]).get_feature_names_out()) == 2 * (64 + 512)
    with pytest.raises(RecipeError, match="one occurs twice"):
        transformer(["fc7", "fc7"]).fit(images)
