"""What common mistakes cost, on real weights and real photos.

    python -m benchmarks.footguns

Every mistake of `WAYS` is made on the same photos of Caltech-101: their pool5 maps are averaged at
one scale, without mirror images (so `--weights` needs the convolutions only), and linear SVMs of
one C tell the classes apart. Each mistake is made twice: everywhere, where the classifier can get
used to it, and in the test photos only, as where two programs share one classifier. The figures are
those of docs/footguns.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.svm import LinearSVC
from torch import Tensor

from benchmarks.common import DATA, cores, skip, tell, unheld, write
from vggfeat.classify.measures import mean_class_recall
from vggfeat.extraction.images import crop_extreme, rescale
from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.nets.profile import PROFILES, WeightProfile
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg

PHOTOS = DATA / "caltech101" / "101_ObjectCategories"
TRUNK = DATA / "vgg16-trunk" / "vgg16_trunk.npz"
AS_TRAINED = "nothing"
C = 10.0

_BATCH = 16  # photos
_PIXELS = 2**20  # computed together

Rows = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to describe a photo.

    Attributes:
        profile: The preprocessing.
        exchanged: Red goes where conv1_1 expects blue, and blue where it expects red.
        prepare: What is done to the RGB photo before it is rescaled.
    """

    profile: WeightProfile = PROFILES["oxford"]
    exchanged: bool = False
    prepare: Callable[[Image.Image], Image.Image] = lambda image: image


_OXFORD = PROFILES["oxford"]
WAYS = {
    AS_TRAINED: Way(),
    "red and blue exchanged": Way(exchanged=True),
    "the mean's red and blue exchanged": Way(profile=replace(_OXFORD, mean=_OXFORD.mean[::-1])),
    "no mean subtracted": Way(profile=replace(_OXFORD, mean=(0.0, 0.0, 0.0))),
    "torchvision's preprocessing": Way(profile=replace(PROFILES["torchvision"], ceil_mode=True)),
    "pools that round down": Way(profile=replace(_OXFORD, ceil_mode=False)),
    "photos turned by 90°": Way(prepare=lambda image: image.transpose(Image.Transpose.ROTATE_90)),
}


def trunk(path: Path) -> dict[str, Tensor]:
    """Read the convolutions of the authors' net, and turn conv1_1 to RGB.

    Args:
        path: An .npz with "conv1_1.weight" (O, I, H, W) and so on, conv1_1 reading BGR.
    """
    with np.load(path, allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    tensors["conv1_1.weight"] = tensors["conv1_1.weight"].flip(1)
    return tensors


def describe(
    photos: Sequence[Path], net: Architecture, tensors: dict[str, Tensor], way: Way, q: int
) -> Rows:
    """Return (n, D) averages of pool5, un-normalised, as one way gives them."""
    if way.exchanged:
        tensors = {**tensors, "conv1_1.weight": tensors["conv1_1.weight"].flip(1)}
    form = RaggedVgg(DenseVgg(net, tensors, way.profile, "pool5"), threads=cores(), pixels=_PIXELS)
    rows = []
    for start in range(0, len(photos), _BATCH):
        images = []
        for path in photos[start : start + _BATCH]:
            with Image.open(path) as image:
                ready = crop_extreme(way.prepare(image.convert("RGB")))
            images.append(torch.from_numpy(rescale(ready, q).copy()))
        [described] = form(images, (0, 0), mirror=False)
        rows.append(described.numpy())
    return np.concatenate(rows)


def mistakes(
    parts: tuple[Sequence[Path], Sequence[Path]],
    describing: Callable[[Sequence[Path], Way], Rows],
    ways: dict[str, Way] = WAYS,
) -> list[dict[str, Any]]:
    """Make every mistake, everywhere and in the test images only.

    Args:
        parts: Photos to learn from and to test on, each in the folder of its class.
        describing: From photos and a way to (n, D) descriptors, un-normalised.
        ways: By what is done wrong; the right one first.

    Returns:
        One row for each: mean class recalls in percent, the median of 1 − cos of the test images'
        descriptors with the right ones, and the smallest and largest norm.
    """
    names = sorted({path.parent.name for path in parts[0]})
    classes = [np.array([names.index(path.parent.name) for path in part]) for part in parts]
    rows: list[dict[str, Any]] = []
    right: tuple[Rows, Rows] | None = None
    for name, way in ways.items():
        described = [describing(part, way) for part in parts]
        norms = np.concatenate([np.linalg.norm(part, axis=1) for part in described])
        train, test = map(_unit, described)
        right = right or (train, test)
        rows.append(
            {
                "mistake": name,
                "everywhere": _recall(train, classes[0], test, classes[1]),
                "test_only": _recall(right[0], classes[0], test, classes[1]),
                "one_minus_cos_median": float(np.median(1 - (test * right[1]).sum(axis=1))),
                "norms": [float(norms.min()), float(norms.max())],
            }
        )
        tell(str(rows[-1]))
    return rows


def chosen(folder: Path, train: int, test: int) -> tuple[list[Path], list[Path]]:
    """Return the first photos of every class by name, to learn from and to test on."""
    parts: tuple[list[Path], list[Path]] = ([], [])
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        photos = sorted(place.glob("*.jpg"))
        parts[0].extend(photos[:train])
        parts[1].extend(photos[train : train + test])
    return parts


def _unit(rows: Rows) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _recall(x: Rows, y: Classes, test: Rows, true: Classes) -> float:
    svm = LinearSVC(C=C, loss="hinge", random_state=0, max_iter=100_000).fit(x, y)
    return 100 * mean_class_recall(svm.predict(test), true)


def main() -> None:
    """Measure, and write results/benchmarks/footguns.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="A folder for each class.")
    parser.add_argument("--weights", type=Path, default=TRUNK)
    parser.add_argument("--train", type=int, default=3, help="Photos of each class.")
    parser.add_argument("--test", type=int, default=3, help="Photos of each class.")
    parser.add_argument("--scale", type=int, default=256)
    options = parser.parse_args()
    for needed in (options.photos, options.weights):
        if not needed.exists():
            skip("footguns", f"no '{needed}'")
            return
    net = ARCHITECTURES["vgg16"]
    tensors = trunk(options.weights)
    parts = chosen(options.photos, options.train, options.test)

    def describing(photos: Sequence[Path], way: Way) -> Rows:
        return describe(photos, net, tensors, way, options.scale)

    figures = {
        "model": net.name,
        "scale": options.scale,
        "classes": len({path.parent for path in parts[0]}),
        "train": len(parts[0]),
        "test": len(parts[1]),
        "rows": mistakes(parts, describing),
    }
    write("footguns", figures)


if __name__ == "__main__":
    unheld()
    main()
