"""The demo's data set: drawn, textured objects on photo-like backgrounds, in true VOC layout.

A class is a shape and a texture, never a colour: all objects draw their colours from one
distribution. Everything follows from the seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggfeat.files.publish import make_folder, publish_bytes

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PARTS = {"train": 48, "val": 24, "test": 48}  # images
_FINER = 2  # drawn at this multiple of the size, so that edges come out smooth
_SHORTER = (150, 260)  # pixels
_ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)
_GREY = 0.1  # share of images without colour
_DIFFICULT = 0.12  # share of objects that are tiny or nearly invisible
_SIZES = (0.55, 0.95)  # of an object, as a share of the shorter side


def _disc(u: Floats, v: Floats) -> Mask:
    return u * u + v * v < 1


def _square(u: Floats, v: Floats) -> Mask:
    return np.maximum(np.abs(u), np.abs(v)) < 0.9


def _oval(u: Floats, v: Floats) -> Mask:
    return u * u + (v / 0.7) ** 2 < 1


def _star(u: Floats, v: Floats) -> Mask:
    angle = np.mod(np.arctan2(u, v), 2 * np.pi / 5) - np.pi / 5
    return np.hypot(u, v) * (np.cos(angle) + 0.55 * np.abs(np.sin(angle)) * 3) < 0.95


def _frame(u: Floats, v: Floats) -> Mask:
    rails = (np.abs(np.abs(u) - 0.5) < 0.1) & (np.abs(v) < 1)
    rungs = (np.abs(u) < 0.5) & (np.abs(np.mod(v * 3.5, 1) - 0.5) < 0.2) & (np.abs(v) < 1)
    return rails | rungs


def _plus(u: Floats, v: Floats) -> Mask:
    return (np.minimum(np.abs(u), np.abs(v)) < 0.38) & (np.maximum(np.abs(u), np.abs(v)) < 1)


@dataclass(frozen=True)
class _Thing:
    """A class: where it is, and which of its two colours it has, at (u, v) in [-1, 1]²."""

    shape: Callable[[Floats, Floats], Mask]
    texture: Callable[[Floats, Floats], Mask]


_THINGS = {
    "ball": _Thing(_disc, lambda u, v: np.sin(9 * v) > 0),  # broad bands
    "beetle": _Thing(
        _oval,
        lambda u, v: (np.mod(u * 4, 1) - 0.5) ** 2 + (np.mod(v * 4, 1) - 0.5) ** 2 < 0.09,
    ),
    "board": _Thing(_square, lambda u, v: np.sin(20 * u) * np.sin(20 * v) > 0),  # fine checks
    "ladder": _Thing(_frame, lambda u, v: u < -9),
    "star": _Thing(_star, lambda u, v: np.sin(20 * np.arctan2(u, v)) > 0),  # rays
    "target": _Thing(_disc, lambda u, v: np.sin(22 * np.hypot(u, v)) > 0),  # rings
    "weave": _Thing(_plus, lambda u, v: np.sin(34 * (u + np.abs(v))) > 0),  # fine chevrons
}
CLASSES = tuple(_THINGS)


@dataclass(frozen=True)
class _Object:
    name: str
    difficult: bool
    box: tuple[int, int, int, int]  # xmin, ymin, xmax, ymax, 1-based inclusive


def make_voc(root: Path, *, seed: int = 0) -> None:
    """Write the data set: 120 images of 7 classes, lists, labels and annotations.

    Label 1 is an image with a clear object of the class, 0 one with difficult ones only, -1 none.

    Args:
        root: What `voc:PATH` takes.
        seed: Everything follows from it.

    Raises:
        PublishError: If it cannot be written.
    """
    random = np.random.default_rng(seed)
    lists = root / "ImageSets" / "Main"
    for folder in (root / "JPEGImages", root / "Annotations", lists):
        make_folder(folder)
    number = 0
    labels: dict[str, dict[str, dict[str, int]]] = {part: {} for part in PARTS}
    for part, count in PARTS.items():
        for turn in range(count):
            number += 1
            name = f"{number:06d}"
            pixels, objects = _scene(random, CLASSES[turn % len(CLASSES)])
            _write_image(root / "JPEGImages" / f"{name}.jpg", pixels)
            xml = _annotation(name, pixels.shape, objects)
            publish_bytes(root / "Annotations" / f"{name}.xml", xml.encode())
            labels[part][name] = {c: _label(c, objects) for c in CLASSES}
    labels["trainval"] = labels["train"] | labels["val"]
    for part, images in labels.items():
        publish_bytes(lists / f"{part}.txt", "".join(f"{i}\n" for i in images).encode())
        for c in CLASSES:
            rows = "".join(f"{i} {of[c]:2d}\n" for i, of in images.items())
            publish_bytes(lists / f"{c}_{part}.txt", rows.encode())


def _label(name: str, objects: list[_Object]) -> int:
    own = [o for o in objects if o.name == name]
    if not own:
        return -1
    return 0 if all(o.difficult for o in own) else 1


def _scene(random: np.random.Generator, first: str) -> tuple[npt.NDArray[np.uint8], list[_Object]]:
    """Draw one image, with an object of class `first` and often others."""
    shorter, aspect = random.integers(*_SHORTER), random.choice(_ASPECTS)
    height = int(shorter if aspect >= 1 else shorter / aspect)
    width = int(shorter * aspect if aspect >= 1 else shorter)
    canvas = _background(random, height * _FINER, width * _FINER)
    others = [c for c in CLASSES if c != first]
    names = [
        first,
        *random.choice(others, size=random.choice([0, 1, 2], p=[0.5, 0.4, 0.1]), replace=False),
    ]
    objects = []
    for place, name in enumerate(reversed(names)):  # the first is drawn last, on top
        difficult = bool(random.random() < _DIFFICULT)
        where = (place - (len(names) - 1) / 2) / max(1, len(names))  # side by side, roughly
        objects.append(_draw(random, canvas, str(name), difficult, where))
    fine = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    pixels = np.asarray(fine.resize((width, height), Image.Resampling.BOX)).astype(float)
    if random.random() < _GREY:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    pixels = pixels + random.normal(0, 3, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), objects


def _background(random: np.random.Generator, height: int, width: int) -> Floats:
    """Return a sky and a ground of random muted colours, clouded in several octaves."""
    clouds = np.zeros((height, width, 3))
    for octave, weight in enumerate((1.0, 0.5, 0.25, 0.12)):
        cells = 3 * 2**octave
        grey, tint = (
            random.normal(0, 60, (cells, cells, 1)),
            random.normal(0, 18, (cells, cells, 3)),
        )
        small = np.clip(127.5 + grey + tint, 0, 255).astype(np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        clouds += weight * (np.asarray(large) - 127.5)
    sky, ground = random.uniform(60, 200, (2, 1, 1, 3))
    horizon = random.uniform(0.3, 0.8) * height
    slope = np.clip((np.arange(height)[:, None, None] - horizon) / (0.1 * height) + 0.5, 0, 1)
    canvas: Floats = sky + (ground - sky) * slope + 0.5 * clouds
    return canvas


def _draw(
    random: np.random.Generator, canvas: Floats, name: str, difficult: bool, where: float
) -> _Object:
    """Put one object with its shadow onto the canvas, (H, W, 3), in place."""
    height, width = canvas.shape[:2]
    share = random.uniform(0.08, 0.14) if difficult else random.uniform(*_SIZES)
    radius = share * min(height, width) / 2
    along = 0.5 + where + random.uniform(-0.08, 0.08)
    across = random.uniform(0.35, 0.65)
    cx, cy = (
        (along * width, across * height) if width >= height else (across * width, along * height)
    )
    angle = random.uniform(-0.35, 0.35)
    top, left = max(0, int(cy - 1.6 * radius)), max(0, int(cx - 1.6 * radius))
    region = canvas[top : int(cy + 1.8 * radius), left : int(cx + 1.8 * radius)]
    y, x = np.mgrid[top : top + region.shape[0], left : left + region.shape[1]].astype(float)
    u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / radius
    v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / radius
    thing = _THINGS[name]
    shadow = thing.shape(u - 0.12, v - 0.16)[:, :, None]
    region *= np.where(shadow, 0.72, 1)
    mask = thing.shape(u, v) & (np.maximum(np.abs(u), np.abs(v)) <= 1)
    dark, bright = _two_colours(random)
    mixed = np.asarray(thing.texture(u, v), dtype=float)[:, :, None]
    shading = (1.05 - 0.18 * (u + v))[:, :, None]
    painted = (dark + (bright - dark) * mixed) * shading
    region[:] = np.where(mask[:, :, None], painted, region)
    return _Object(name, difficult, _box(mask, top, left))


def _two_colours(random: np.random.Generator) -> tuple[Floats, Floats]:
    """Return a dark and a bright colour of any hue, or the other way round."""
    dark, bright = random.uniform(0, 110, 3), random.uniform(150, 255, 3)
    return (dark, bright) if random.random() < 0.5 else (bright, dark)


def _box(mask: Mask, top: int, left: int) -> tuple[int, int, int, int]:
    """Return the box of a mask whose corner is at (top, left) of the finer canvas."""
    rows, columns = top + np.flatnonzero(mask.any(axis=1)), left + np.flatnonzero(mask.any(axis=0))
    ends = (columns[0], rows[0], columns[-1], rows[-1])
    xmin, ymin, xmax, ymax = (int(end) // _FINER + 1 for end in ends)
    return xmin, ymin, xmax, ymax


def _write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    publish_bytes(path, buffer.getvalue())


def _annotation(name: str, shape: tuple[int, ...], objects: list[_Object]) -> str:
    lines = [
        f"<annotation><filename>{name}.jpg</filename>",
        f"<size><width>{shape[1]}</width><height>{shape[0]}</height><depth>3</depth></size>",
    ]
    for o in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), o.box, strict=True)
        box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
        lines.append(
            f"<object><name>{escape(o.name)}</name><difficult>{o.difficult:d}</difficult>"
            f"<bndbox>{box}</bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>\n"])
