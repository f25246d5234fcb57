"""A further tap and a further precision are lines of their tables: everything else asks those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from vggfeat.cli import main
from vggfeat.errors import RecipeError
from vggfeat.extraction import images
from vggfeat.extraction.workers import extract
from vggfeat.nets import architectures, precisions
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.precisions import Precision, Way
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.layout import StorePlan
from vggfeat.store.reader import DescriptorStore
from vggfeat.watch import Watch
from vggfeat.weights.find import random_tensors

NET = ARCHITECTURES["vgg11-thin"]
ROUNDED = 2e-7  # a row is kept in float32, its length apart


def recipe(root: Path, **changed: object) -> Recipe:
    values: dict[str, object] = {
        "dataset": f"voc:{root}",
        "models": [NET.name],
        "weights": ["random:0"],
        "mirror": False,
        "limit": 1,
    }
    return Recipe.build({**values, **changed}, "a test")


@torch.inference_mode()
def map_of(path: Path, q: int, tap: str) -> Tensor:
    """The map of a tap of the table as it is, of one image file, in float64."""
    net = DenseVgg(NET, random_tensors(NET, 0), PROFILES["oxford"], tap).double()
    with Image.open(path) as image:
        pixels = torch.from_numpy(images.rescale(image.convert("RGB"), q).copy())[None]
    return net.feature_map(net.normalised(pixels))


@pytest.mark.slow
def test_a_tap(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RecipeError, match=r"tap = 'fc6-before' in a test\. Did you mean 'fc6-linear'"
    ):
        recipe(tiny_voc, tap="fc6-before", scales=[224])
    monkeypatch.setitem(architectures.TAPS, "fc6-before", ("fc6", False))
    own = recipe(tiny_voc, tap="fc6-before", scales=[224])
    assert own.descriptor_size == 512
    [path] = extract(own, Machine(cache=tmp_path), Watch())
    tensors = {name: t.double() for name, t in random_tensors(NET, 0).items()}
    with DescriptorStore.open(path) as store:
        rows = store.read(store.ids)
    for name, descriptor, norm in zip(
        rows.image_id, rows.descriptors[:, 0], rows.norms[:, 0], strict=True
    ):
        pool5 = map_of(tiny_voc / "JPEGImages" / f"{name}.jpg", 224, "pool5")
        fc6 = torch.conv2d(pool5, tensors["fc6.weight"], tensors["fc6.bias"])
        expected = fc6.mean(dim=(2, 3))[0].numpy()
        found = descriptor.astype(np.float64) * norm
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
        assert (found < 0).any()


def test_a_precision(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    averages = DenseVgg.averages

    def recording(self: DenseVgg, *args: Any) -> tuple[Tensor, ...]:  # noqa: ANN401  (passed on)
        seen.append(self.dtype)
        return averages(self, *args)

    monkeypatch.setattr(DenseVgg, "averages", recording)
    with pytest.raises(RecipeError, match=r"precision = 'float64' in a test\. Did you mean 'float"):
        recipe(tiny_voc, precision="float64", tap="pool5", scales=[48])
    further = Precision(ways={"cpu": (Way(form="canvas", canvas=16),)}, dtype="float64")
    monkeypatch.setitem(precisions.PRECISIONS, "float64", further)
    own = recipe(tiny_voc, precision="float64", tap="pool5", scales=[48])
    [path] = extract(own, Machine(cache=tmp_path, device="cpu"), Watch())
    assert set(seen) == {torch.float64}
    plan = StorePlan.read(path.parent)
    assert (plan.recipe["precision"], plan.execution["canvas"]) == ("float64", 16)
    with DescriptorStore.open(path) as store:
        rows = store.read(store.ids)
    for name, descriptor in zip(rows.image_id, rows.descriptors[:, 0], strict=True):
        average = map_of(tiny_voc / "JPEGImages" / f"{name}.jpg", 48, "pool5").mean(dim=(2, 3))
        expected = (average / average.norm()).numpy()[0]
        assert np.linalg.norm(descriptor - expected) <= ROUNDED
    assert "|int8|float64]" in CliRunner().invoke(main, ["extract", "--help"]).output
