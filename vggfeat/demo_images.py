"""Draw the demo's data set: small scenes with textured things in them, in the layout of VOC 2007.

A class is a shape and a texture, clear enough that even a net of random weights can tell some of
them apart. It is never a colour: all colours come from one distribution, whatever the class; nor
is it a side: everything may stand mirrored.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vggfeat.publish import make_folder, publish_bytes

Plane = npt.NDArray[np.float64]
Rng = np.random.Generator
Kind = Literal["clear", "small", "faint", "hidden"]

_RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 16 / 9, 2 / 3)  # width / height
_SHARES = {"train": 0.4, "val": 0.2}  # of the images; the rest is test
_COUNTS = (0.66, 0.28, 0.06)  # how often 1, 2, 3 clear things are in one image
_SIZES = ((0.5, 0.75), (0.42, 0.62), (0.34, 0.5))  # of 1, 2, 3 clear things, of the shorter side
_SMALLEST = 0.25  # of the shorter side: a clear thing never shrinks below
_DIFFICULT_SIZES = {"small": (0.09, 0.13), "faint": (0.3, 0.45), "hidden": (0.3, 0.45)}
_CELLS = 16  # texture elements along the shorter side: near things show more of them
_QUALITY = 90  # of the JPEG files


class _Surface(NamedTuple):
    """How a thing looks, each (H, W).

    Attributes:
        cover: 0 outside, 1 inside, between on the edge.
        tone: 0 for the first of its two colours, 1 for the second.
        shade: Factor on the colour.
    """

    cover: Plane
    tone: Plane
    shade: Plane


@dataclass(frozen=True)
class _Grid:
    """The image's pixels in a thing's own coordinates, in which it fills [-1, 1]².

    Attributes:
        x: (H, W), to the right, or to the left where the thing is mirrored.
        y: (H, W), down.
        pixel: Side of a pixel.
        cells: Texture elements across the thing.
        rng: For irregularities.
    """

    x: Plane
    y: Plane
    pixel: float
    cells: float
    rng: Rng

    def cover(self, depth: Plane) -> Plane:
        """Turn depths below an edge, positive inside, into an anti-aliased mask."""
        return np.clip(depth / self.pixel + 0.5, 0, 1)

    def stripes(self, along: Plane, count: float) -> Plane:
        """Return a square wave with `count` periods per unit of `along`, 1 around its integers."""
        return self.cover((np.abs((along * count) % 1 - 0.5) - 0.25) / count)

    def box(self, x: float, y: float, half_width: float, half_height: float) -> Plane:
        """Return the depth below the edge of a rectangle."""
        return np.minimum(half_width - np.abs(self.x - x), half_height - np.abs(self.y - y))


@dataclass(frozen=True)
class _Thing:
    """A thing that shall be drawn; all kinds but "clear" are difficult."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class _Object:
    """A thing that has been drawn.

    Attributes:
        thing: Which.
        box: (xmin, ymin, xmax, ymax), 1-based inclusive pixels.
    """

    thing: _Thing
    box: tuple[int, int, int, int]


def _ball(g: _Grid) -> _Surface:
    """A beach ball: segments between two poles, of which one is seen."""
    r = np.hypot(g.x, g.y)
    z = np.sqrt(np.maximum(0, 1 - r * r))
    forward = g.y * np.sin(0.7) + z * np.cos(0.7)  # tilted towards the viewer by 0.7 rad
    axis = np.hypot(g.x, forward)  # distance from the ball's axis
    segments = g.cover(np.cos(4 * np.arctan2(g.x, forward)) / 4 * axis)
    cap = g.cover(0.16 - axis) * (g.y < 0)
    return _Surface(g.cover(1 - r), np.maximum(segments, cap), 0.55 + 0.55 * z)


def _basket(g: _Grid) -> _Surface:
    """A basket with a rim and a handle: two crossing sets of strands."""
    body = np.minimum(0.87 - 0.22 * g.y - np.abs(g.x), np.minimum(g.y + 0.2, 0.95 - g.y))
    handle = np.minimum(0.07 - np.abs(np.hypot(g.x, g.y + 0.1) / 0.85 - 1), -g.y)
    n = max(5, round(0.75 * g.cells))
    over = (np.floor(g.x * n) + np.floor(g.y * n)) % 2
    bulge = np.sin(np.pi * (np.where(over > 0, g.y, g.x) * n % 1))
    plain = (body <= 0) | (g.y < 0)
    cover = np.maximum(g.cover(body), g.cover(handle))
    return _Surface(cover, np.where(plain, 1, over), np.where(plain, 0.9, 0.55 + 0.55 * bulge))


def _beehive(g: _Grid) -> _Surface:
    """A straw beehive: a dome of coils with a dark door."""
    n = max(6, round(0.72 * g.cells))
    width = 0.85 * np.sqrt(np.clip(1 - ((g.y - 0.9) / 1.85) ** 2, 0, 1))
    body = np.minimum(np.minimum(width - np.abs(g.x), 0.9 - g.y), g.y + 0.93)
    round_ = np.sqrt(np.clip(1 - (g.x / 0.95) ** 2, 0, 1))
    coil = (g.y - 0.1 * round_) * n / 2  # bent downwards: seen from above
    door = g.cover(0.2 - np.hypot(g.x, np.maximum(0.72 - g.y, 0)))
    shade = 0.55 + 0.4 * round_ + 0.15 * np.abs(np.sin(2 * np.pi * coil))
    return _Surface(g.cover(body), g.stripes(coil, 1), shade * (1 - 0.85 * door))


def _fence(g: _Grid) -> _Surface:
    """A picket fence; the scene is seen through it."""
    pitch = 2 / max(4, round(0.5 * g.cells))
    off = np.abs((g.x + 1) / pitch % 1 - 0.5) * pitch
    pickets = np.minimum(0.33 * pitch - off, np.minimum(g.y + 0.85 - 0.9 * off, 0.85 - g.y))
    rails = 0.07 - np.abs(np.abs(g.y - 0.03) - 0.45)
    inside = g.cover(1 - np.abs(g.x))
    picket = g.cover(pickets)
    cover = np.maximum(picket, g.cover(rails)) * inside
    shade = np.where(picket > 0.5, 1.1 - 0.7 * off / pitch, 0.75)
    return _Surface(cover, 1 - picket, shade)


def _flag(g: _Grid) -> _Surface:
    """A chequered flag that waves on its pole."""
    wave = 3.2 * g.x + 1
    y = g.y + 0.3 + 0.06 * np.sin(wave)
    n = max(3, round(0.32 * g.cells)) / 0.9
    across, down = (np.sin(np.pi * n * v) / (np.pi * n) for v in (g.x + 0.85, y + 0.6))
    checks = np.sign(across * down) * np.minimum(np.abs(across), np.abs(down))
    cloth = g.cover(replace(g, y=y).box(0.05, 0, 0.9, 0.6))
    pole = g.cover(g.box(-0.9, 0.02, 0.05, 0.98))
    on_pole = pole > 0.5
    shade = np.where(on_pole, 0.8, 1 + 0.2 * np.cos(wave))
    return _Surface(np.maximum(cloth, pole), np.where(on_pole, 0.5, g.cover(checks)), shade)


def _mushroom(g: _Grid) -> _Surface:
    """A toadstool: a dome with dots on a plain stem."""
    dome = 1 - np.hypot(g.x, (g.y - 0.25) / 1.2)
    cap = np.minimum(dome, 0.25 + 0.08 * np.cos(3 * g.x) - g.y)
    stem = np.minimum(0.26 + 0.08 * g.y**2 - np.abs(g.x), 0.95 - 0.1 * g.x**2 - g.y)
    n = max(2.5, 0.36 * g.cells)
    v = (g.y + 0.4) * 1.15 * n
    u = g.x * n + 0.5 * (np.floor(v) % 2)  # every second row is shifted
    dots = g.cover((0.3 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)) / n)
    on_cap = g.cover(cap)
    cover = np.maximum(on_cap, g.cover(stem) * (g.y > 0))
    shade = np.where(on_cap > 0.5, 0.65 + 0.5 * np.sqrt(np.maximum(dome, 0)), 0.85 - np.abs(g.x))
    return _Surface(cover, np.where(on_cap > 0.5, dots, 1), shade)


def _starfish(g: _Grid) -> _Surface:
    """A starfish: five arms, each with a ridge and ribs across."""
    angle = np.arctan2(g.x, -g.y) * 5 / (2 * np.pi)
    fold = np.abs((angle + 0.5) % 1 - 0.5) * 2 * np.pi / 5  # from the nearest arm's middle
    r = np.hypot(g.x, g.y)
    along, off = r * np.cos(fold), r * np.sin(fold)
    depth = np.minimum(0.36 * (1 - 0.8 * along) - off, 1 - along)
    ribs = g.stripes(along - 0.7 * off, max(5, round(0.6 * g.cells)))
    tone = np.where(depth < 0.05, 0, ribs)
    return _Surface(g.cover(depth), tone, 0.7 + 0.9 * np.clip(depth, 0, 0.35))


def _target(g: _Grid) -> _Surface:
    """An archery target: rings."""
    r = np.hypot(g.x, g.y)
    n = max(3, round(0.42 * g.cells))
    return _Surface(g.cover(1 - r), g.stripes(r, n), 1 - 0.15 * r)


def _wall(g: _Grid) -> _Surface:
    """A piece of wall: bricks in running bond, each a little lighter or darker."""
    height = 1 / max(3, round(0.36 * g.cells))
    width = 2.2 * height
    row = np.floor(g.y / height)
    column = g.x / width + 0.5 * (row % 2)
    sides = (0.5 - np.abs(column % 1 - 0.5)) * width
    beds = (0.5 - np.abs(g.y / height % 1 - 0.5)) * height
    bricks = g.cover(np.minimum(sides, beds) - 0.12 * height)
    tint = g.rng.uniform(0.8, 1.15, (64, 64))
    each = tint[row.astype(int) % 64, np.floor(column).astype(int) % 64]
    cover = g.cover(g.box(0, 0, 1, np.floor(0.78 / height) * height))
    return _Surface(cover, bricks, np.where(bricks > 0.5, each, 0.9))


_SURFACES: Mapping[str, Callable[[_Grid], _Surface]] = {
    "ball": _ball,
    "basket": _basket,
    "beehive": _beehive,
    "fence": _fence,
    "flag": _flag,
    "mushroom": _mushroom,
    "starfish": _starfish,
    "target": _target,
    "wall": _wall,
}
CLASSES: tuple[str, ...] = tuple(_SURFACES)


def make_voc(root: Path, *, seed: int = 0, images: int = 120) -> None:
    """Draw the data set and write it: images, annotations, and the lists that follow from them.

    The same seed gives the same bytes with the same versions of numpy and Pillow; what is there
    already is replaced. The lists come last, so that a run cut short does not pass for a data set.

    Args:
        root: What `voc:PATH` takes; made if it is not there.
        seed: Any non-negative integer.
        images: How many: two fifths for training, one for validation, two for testing.

    Raises:
        PublishError: If a file cannot be written.
    """
    folders = {name: root / name for name in ("JPEGImages", "Annotations", "ImageSets/Main")}
    for folder in folders.values():
        make_folder(folder)
    drawn: dict[str, list[_Object]] = {}
    parts: dict[str, list[str]] = {}
    for part, plans in _plans(_rng(seed, 0), images).items():
        parts[part] = []
        for things in plans:
            number = len(drawn) + 1
            image = f"{number:06d}"
            picture, objects = _picture(_rng(seed, number), things)
            if number % 17 == 5:
                picture = picture.convert("L")
            publish_bytes(folders["JPEGImages"] / f"{image}.jpg", _jpeg(picture))
            xml = _annotation(image, picture, objects)
            publish_bytes(folders["Annotations"] / f"{image}.xml", xml.encode())
            drawn[image] = objects
            parts[part].append(image)
    parts["trainval"] = parts["train"] + parts["val"]
    for part, ids in parts.items():
        lists = {part: [*ids]}
        for name in CLASSES:
            lists[f"{name}_{part}"] = [f"{i} {_label(drawn[i], name):2d}" for i in ids]
        for stem, lines in lists.items():
            text = "".join(f"{line}\n" for line in lines)
            publish_bytes(folders["ImageSets/Main"] / f"{stem}.txt", text.encode())


def _rng(seed: int, stream: int) -> Rng:
    return np.random.Generator(np.random.PCG64([seed, stream]))


def _plans(rng: Rng, images: int) -> dict[str, list[list[_Thing]]]:
    """Decide what is to be seen in each image of each part, the difficult things first."""
    counts = {part: round(share * images) for part, share in _SHARES.items()}
    counts["test"] = images - sum(counts.values())
    kinds: tuple[Kind, ...] = ("small", "faint", "hidden")
    number = 0
    plans: dict[str, list[list[_Thing]]] = {}
    for part, count in counts.items():
        plans[part] = []
        deck: list[str] = []  # dealt out to the last card, so that the classes are equally frequent
        for _ in range(count):
            wanted = int(rng.choice([1, 2, 3], p=_COUNTS))
            names: list[str] = []
            while len(names) < wanted:
                if not set(deck) - set(names):
                    deck += rng.permutation(CLASSES).tolist()
                names.append(next(name for name in deck if name not in names))
                deck.remove(names[-1])
            things = [_Thing(name, "clear") for name in names]
            number += 1
            if number % 7 == 0:
                other = str(rng.choice([name for name in CLASSES if name not in names]))
                things.insert(0, _Thing(other, kinds[number // 7 % 3]))
            plans[part].append(things)
    return plans


def _picture(rng: Rng, things: Sequence[_Thing]) -> tuple[Image.Image, list[_Object]]:
    """Draw a scene with these things, the first one behind, and what a camera does to it."""
    ratio = float(rng.choice(_RATIOS))
    shorter = int(rng.integers(120, 261))
    longer = round(shorter * max(ratio, 1 / ratio))
    height, width = (shorter, longer) if ratio >= 1 else (longer, shorter)
    scene = _background(rng, height, width)
    light = float(rng.uniform(-1, 1))
    clear = sum(thing.kind == "clear" for thing in things)
    taken: list[tuple[float, float, float]] = []
    objects = []
    for thing in things:
        sizes = _SIZES[clear - 1] if thing.kind == "clear" else _DIFFICULT_SIZES[thing.kind]
        taken.append(_place(rng, (height, width), thing.kind, rng.uniform(*sizes), taken))
        objects.append(_Object(thing, _paint(rng, scene, thing, taken[-1], light)))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    scene *= (1 + 0.08 * (light * x - y) - 0.1 * (x * x + y * y))[..., None]  # and a vignette
    sharp = Image.fromarray((scene.clip(0, 1) * 255).round().astype(np.uint8))
    pixels = np.asarray(sharp.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.6)))))
    noisy = pixels + rng.normal(0, rng.uniform(1, 3), (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)), objects


def _background(rng: Rng, height: int, width: int) -> Plane:
    """Return (H, W, 3) in [0, 1]: two blurred grounds that meet at a horizon, at times lights."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    horizon = rng.uniform(0.35, 0.7)
    line = horizon + rng.uniform(-0.05, 0.05) * (x - 0.5)
    if rng.random() < 0.35:  # grass
        line = line + 0.025 * _noise(rng, (2, width), 4)[:1]
    softness = float(rng.choice([1.5 / height, 0.03, 0.25]))
    below = np.clip((y - line) / softness + 0.5, 0, 1)[..., None]
    step = rng.choice([-1, 1]) * rng.uniform(0.02, 0.12)
    scene = np.zeros((height, width, 3))
    for weight, lightness in ((1 - below, 0.5 + step), (below, 0.5 - step)):
        colour, tint = _colour(rng, lightness, 0.6), _colour(rng, 0.7, 0.4)
        fall = rng.uniform(-0.12, 0.12, 3) * (y - horizon)[..., None]
        clouds = _noise(rng, (height, width), 2, rng.uniform(0.9, 1.5)) * rng.uniform(0.02, 0.06)
        scene += weight * (colour + fall + clouds[..., None] * tint)
    for _ in range(rng.integers(1, 7) if rng.random() < 0.4 else 0):  # lights out of focus
        away = np.hypot((x - rng.random()) * width, (y - rng.random() * horizon) * height)
        disc = np.clip((rng.uniform(0.03, 0.1) * min(height, width) - away) / 2.5, 0, 1)
        scene += (disc * rng.uniform(0.04, 0.12))[..., None] * _colour(rng, 0.7, 0.5)
    return scene.clip(0.02, 0.98)


def _noise(rng: Rng, shape: tuple[int, int], cells: int, fall: float = 1.0) -> Plane:
    """Return smooth noise of standard deviation 1: octaves from `cells` along the shorter side.

    Args:
        rng: Where it comes from.
        shape: (H, W).
        cells: Of the coarsest octave, along the shorter side.
        fall: Each octave is weaker by 2^-fall; 1 looks like nature.
    """
    height, width = shape
    total = np.zeros(shape)
    for octave in range(6):
        per_pixel = cells * 2**octave / min(shape)
        grid = rng.standard_normal(
            (
                max(2, min(height, round(height * per_pixel))),
                max(2, min(width, round(width * per_pixel))),
            )
        )
        coarse = Image.fromarray(grid.astype(np.float32))
        fine = coarse.resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(fine) * 2.0 ** (-fall * octave)
    return total / total.std()


def _colour(rng: Rng, lightness: float, saturation: float) -> Plane:
    """Draw (3,) RGB in [0, 1] of a random hue, whose mean is `lightness`."""
    reach = rng.uniform(0.2, 1) * saturation * min(lightness, 1 - lightness)
    return lightness + reach * np.cos(rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3)


def _place(
    rng: Rng,
    shape: tuple[int, int],
    kind: Kind,
    share: float,
    taken: Sequence[tuple[float, float, float]],
) -> tuple[float, float, float]:
    """Find a free place for a thing, which shrinks until there is one.

    Args:
        rng: Decides.
        shape: (H, W).
        kind: A hidden thing is for the most part outside the image.
        share: Its size, of the shorter side.
        taken: What this returned for the things that are there already.

    Returns:
        Centre x and y, and size, pixels.
    """
    height, width = shape
    for attempt in range(200):
        if attempt % 20 == 19 and kind == "clear":
            share = max(_SMALLEST, 0.93 * share)
        size = share * min(shape)
        x, y = (rng.uniform(0.46 * size, side - 0.46 * size) for side in (width, height))
        if kind == "hidden":
            x = float(rng.choice([-0.2 * size, width + 0.2 * size]))
        if all(np.hypot(x - u, y - v) > 0.52 * (size + other) for u, v, other in taken):
            break
    return x, y, size


def _paint(
    rng: Rng, scene: Plane, thing: _Thing, place: tuple[float, float, float], light: float
) -> tuple[int, int, int, int]:
    """Draw a thing and its shadow into the scene (H, W, 3); return its box, 1-based inclusive."""
    height, width = scene.shape[:2]
    x, y, size = place
    v, u = (np.mgrid[0:height, 0:width] - np.array([y, x])[:, None, None]) * 2 / size
    turn = np.exp(1j * np.deg2rad(rng.uniform(-12, 12)))
    along, down = u * turn.real + v * turn.imag, v * turn.real - u * turn.imag
    cells = _CELLS * size / min(height, width) + 2
    grid = _Grid(rng.choice([-1, 1]) * along, down, 2 / size, cells, rng)
    cover, tone, shade = _SURFACES[thing.name](grid)
    middle, contrast = rng.uniform(0.44, 0.56), rng.choice([-1, 1]) * rng.uniform(0.26, 0.33)
    shade = shade * (1 + 0.14 * np.clip(light * u - v, -1.5, 1.5))
    if thing.kind == "faint":
        middle = float((scene * cover[..., None]).sum() / cover.sum() / 3)
        contrast, shade = 0.1 * contrast, 1 + 0.15 * (shade - 1)
    one, two = (_colour(rng, middle + c, 0.9) for c in (contrast, -contrast))
    colour = one + (two - one) * tone[..., None]
    colour = colour * (shade * (1 + 0.05 * _noise(rng, (height, width), 8, 0.5)))[..., None]
    if thing.kind != "faint":
        mask = Image.fromarray((cover * 255).astype(np.uint8))
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.05 * size + 1))) / 255
        shadow = np.roll(soft, (round(0.07 * size), round(-0.07 * size * light)), (0, 1))
        scene *= 1 - 0.4 * shadow[..., None]
    scene += cover[..., None] * (colour.clip(0, 1) - scene)
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis=axis)) + 1 for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()


def _annotation(image: str, picture: Image.Image, objects: Sequence[_Object]) -> str:
    """Return the XML of an image: its size and its objects, as VOC 2007 writes them."""
    depth = len(picture.getbands())
    lines = [
        "<annotation>",
        f"\t<filename>{image}.jpg</filename>",
        f"\t<size><width>{picture.width}</width><height>{picture.height}</height>"
        f"<depth>{depth}</depth></size>",
    ]
    for drawn in objects:
        xmin, ymin, xmax, ymax = drawn.box
        lines += [
            "\t<object>",
            f"\t\t<name>{drawn.thing.name}</name>",
            f"\t\t<difficult>{int(drawn.thing.kind != 'clear')}</difficult>",
            f"\t\t<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
            f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _label(objects: Sequence[_Object], name: str) -> int:
    """Return 1 if a clear thing of the class is there, 0 if only difficult ones, else -1."""
    kinds = {drawn.thing.kind for drawn in objects if drawn.thing.name == name}
    if not kinds:
        return -1
    return int("clear" in kinds)
