"""What only a GPU can show; each is skipped by name where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.extraction.test_engine import BOUND, describe, distance, net, plan, raw, reference, task
from tests.extraction.test_engine import photos as photos  # noqa: PLC0414  (a fixture)
from tests.nets.test_forms import alone, furthest, pictures
from tests.nets.test_forms import net as small_net
from vggfeat.extraction.engine import Extractor
from vggfeat.nets.forms import form_of, numerics

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

SIZES = [(224, 301), (260, 224), (256, 256), (311, 247)]


@pytest.mark.parametrize("profile", ["oxford", "torchvision"])
@pytest.mark.parametrize("mirror", [True, False])
def test_canvases_and_their_graphs_are_the_cpu_s_images_alone(profile: str, mirror: bool) -> None:
    images = pictures(SIZES)
    on_gpu = small_net(profile=profile).to("cuda")
    form = form_of(on_gpu, "float32", threads=2, batch_pixels=1 << 24)
    expected = alone(small_net(profile=profile), images, mirror=mirror)
    other = pictures(SIZES, seed=1)
    with numerics("float32"):
        for _ in range(4):  # plain, plain, captured, replayed
            [found] = form(images, (320, 320), mirror=mirror)
            assert furthest(found.cpu(), expected) <= BOUND
        [changed] = form(other, (320, 320), mirror=mirror)  # a graph with other images
    assert furthest(changed.cpu(), alone(small_net(profile=profile), other, mirror=mirror)) <= BOUND


@pytest.mark.parametrize(
    ("precision", "bound"), [("tf32", 5e-3), ("float16", 5e-3), ("bfloat16", 2e-2)]
)
def test_lower_precisions_stay_near(precision: str, bound: float) -> None:
    images = pictures(SIZES)
    form = form_of(
        small_net().to("cuda"),
        precision,
        threads=2,
        batch_pixels=1 << 24,
    )
    with numerics(precision):
        [found] = form(images, (320, 320), mirror=True)
    assert furthest(found.cpu(), alone(small_net(), images, mirror=True)) <= bound


@pytest.mark.parametrize("resampler", ["pillow", "torch"])
def test_rows_are_the_cpu_s(photos: list[Path], resampler: str) -> None:
    extractor = Extractor(
        net().to("cuda"), plan(canvas=64, resampler=resampler, batch_pixels=1 << 22), workers=2
    )
    [(_, (rows,))] = extractor.run([task(photos)])
    here = describe(photos, resampler=resampler)
    assert distance(raw(rows), raw(here)) <= (BOUND if resampler == "pillow" else 1e-3)
    if resampler == "pillow":
        assert distance(raw(rows), reference(photos)) <= BOUND


def test_too_small_a_memory_halves_the_batch() -> None:
    images = pictures([(256, 256)] * 8)
    form = form_of(small_net().to("cuda"), "float32", threads=2, batch_pixels=1 << 24)
    with numerics("float32"):
        expected = form(images, (256, 256), mirror=True)[0].cpu()
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved() + 24 * 2**20
    torch.cuda.set_per_process_memory_fraction(used / torch.cuda.mem_get_info()[1])
    try:
        with numerics("float32"):
            found = form(images, (256, 256), mirror=True)[0].cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert getattr(form, "halved", 0) > 0
    assert furthest(found, expected.double()) <= BOUND
