"""From a file's bytes to RGB pixels at every scale. Nothing here knows of nets."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import PurePath
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageDraw

from vggfeat.data.records import Item
from vggfeat.errors import ImageReadError
from vggfeat.extraction import remarks
from vggfeat.extraction.metadata import may_have_less, without_metadata
from vggfeat.extraction.remarks import Note, Remark, unheard
from vggfeat.files.kinds import HEAD, why_no_image
from vggfeat.files.sources import IMAGE_FORMATS

Pixels = npt.NDArray[np.uint8]
Interpolation = Literal["bilinear", "bicubic"]
Resampler = Literal["pillow", "torch"]

MAX_PIXELS = 178_000_000  # decoded, about 0.5 GB; Pillow's own limit for a decompression bomb
MAX_ASPECT = 4  # beyond it the longer side is cropped: 3000×1 would become 768,000 pixels wide
DECODER = f"pillow-{PIL.__version__.split('.')[0]}"

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag BitsPerSample
_WHITE = 65535  # of 16 bits
DIM = 4096  # of 16 bits, what 12 never reach
_TURNS = {  # what undoes each orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_T = TypeVar("_T")

# MAX_PIXELS is checked by us, for every image; Pillow's warnings at half of it, and of odd EXIF
# data, would only be noise (and errors under -W error).
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_size(item: Item) -> tuple[int, int]:
    """Read the (H, W) that `decode` will give, from the header alone.

    Raises:
        ImageReadError: If the file is no image, or a larger one than MAX_PIXELS.
    """

    def size(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)

    height, width = _with_image(item, None, size)
    if item.box is not None:
        left, top, right, bottom = _inside(item, height, width)
        return bottom - top, right - left
    return height, width


def read_bytes(item: Item) -> bytes:
    """Read an image's file, or whatever its source is.

    Raises:
        ImageReadError: If it cannot be read, or is a file and no regular one.
    """
    try:
        with item.source.open() as stream:
            return stream.read()
    except OSError as error:
        raise ImageReadError(item.id, error.strerror or str(error)) from error


def sha256(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the digest of a file's bytes, (32,) uint8."""
    return np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)


def decode(item: Item, data: bytes, note: Note = unheard) -> Image.Image:
    """Decode an image to RGB.

    EXIF orientation is applied, grey replicated, alpha composed on black, CMYK converted, 16 bits
    and floating point in [0, 1] brought to 8 bits; of an animation the first frame is taken; a box
    is cut out. Damaged metadata costs no image whose pixels are sound. The image stays Pillow's: as
    an array it would be there twice, and a large photo is part of the peak of memory.

    Args:
        item: Where the bytes come from.
        data: The file's bytes.
        note: Told what the image's owner may want to know.

    Returns:
        H×W, RGB, loaded.

    Raises:
        ImageReadError: If the bytes are no image, cut short, or a larger one than MAX_PIXELS.
    """
    found: dict[Remark, str] = {}

    def rgb(opened: Image.Image) -> Image.Image:
        found.clear()  # what an attempt without success has found
        if _misnamed(item.source.name, opened):
            found[remarks.MISNAMED] = str(opened.format)
        pixels = _as_rgb(opened, found.__setitem__)
        if _has_frames(opened):  # not before: of a GIF it seeks
            found[remarks.FRAMES] = ""
        return pixels

    image = _with_image(item, data, rgb, found.__setitem__)
    if item.box is not None:
        left, top, right, bottom = _inside(item, image.height, image.width)
        image = image.crop((left, top, right, bottom))
    clear = found.pop(remarks.TRANSPARENT, None) is not None
    if image.getcolors(1) is not None:
        found[remarks.TRANSPARENT if clear else remarks.ONE_COLOUR] = ""
    for remark, detail in found.items():
        note(remark, detail)
    return image


def picture(item: Item, *, whole: bool) -> bytes:
    """Return an item for people to look at, as the bytes of an image file.

    Args:
        item: A whole image, whose file is returned as it is, or a box of one.
        whole: Whether a box is drawn on its image, and not cut out.

    Raises:
        ImageReadError: As in `decode`.
    """
    data = read_bytes(item)
    if item.box is None:
        return data
    image = decode(replace(item, box=None) if whole else item, data)
    if whole:
        left, top, right, bottom = _inside(item, image.height, image.width)
        draw, line = ImageDraw.Draw(image), max(2, max(image.size) // 60)
        for width, colour in ((2 * line, "black"), (line, "orange")):  # seen on any ground
            draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def as_file(image: Image.Image, name: str) -> bytes:
    """Return an image in memory as the bytes of a file, without loss.

    Args:
        image: It is turned to RGB as in `decode`, and stays as it is.
        name: For messages.

    Returns:
        A PPM file.

    Raises:
        ImageReadError: If it cannot be turned to RGB.
    """
    try:
        # a copy is the frame that is shown, and leaves the caller's image as it is
        rgb = _as_rgb(image.copy())
    except MemoryError:
        raise
    except Exception as error:  # an image that is not yet loaded is decoded here
        raise ImageReadError(name, str(error) or type(error).__name__) from error
    return b"P6\n%d %d\n255\n" % rgb.size + rgb.tobytes()


def cropped(height: int, width: int) -> tuple[int, int]:
    """Return the size that is left of an image whose aspect is capped at MAX_ASPECT.

    >>> cropped(3000, 100), cropped(375, 500)
    ((400, 100), (375, 500))
    """
    shorter = min(height, width)
    return min(height, MAX_ASPECT * shorter), min(width, MAX_ASPECT * shorter)


def crop_extreme(image: Image.Image) -> Image.Image:
    """Crop an H×W image centrally to at most 4:1 (see MAX_ASPECT)."""
    height, width = cropped(image.height, image.width)
    if (height, width) == (image.height, image.width):
        return image
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def rescaled_size(height: int, width: int, q: int) -> tuple[int, int]:
    """Return the size after `rescale`: the shorter side is exactly `q`.

    >>> rescaled_size(375, 500, 256), rescaled_size(500, 333, 384)
    ((256, 341), (577, 384))
    """
    longer, shorter = max(height, width), min(height, width)
    other = (2 * longer * q + shorter) // (2 * shorter)  # floor(longer·Q/shorter + 0.5), exactly
    return (q, other) if height <= width else (other, q)


def rescale(image: Image.Image, q: int, interpolation: Interpolation = "bilinear") -> Pixels:
    """Rescale an image isotropically so that its shorter side is `q` pixels.

    Follows Simonyan & Zisserman 2015, Sect. 3.2 (test scale Q).
    Deviates: antialiased bilinear by default; the paper does not name its filter.

    Args:
        image: H×W, RGB.
        q: Target shorter side, pixels; may be larger than the image.
        interpolation: The filter; both are antialiased.

    Returns:
        (H', W', 3) uint8, RGB, with min(H', W') == q, the longer side rounded to nearest.
    """
    height, width = rescaled_size(image.height, image.width, q)
    if (width, height) != image.size:
        image = image.resize((width, height), _FILTERS[interpolation])
    return np.asarray(image)


def _orientation(image: Image.Image, note: Note = unheard) -> int:
    """Return the EXIF orientation, 1 to 8, of an image that is not yet loaded; 1 if damaged.

    Only what stands before the pixels counts: PNG's own `getexif` would decode the whole image.
    """
    if image.format == "TIFF":
        return 1  # Pillow turns it by itself
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception as error:  # parsers raise nearly anything when the bytes are wrong
        note(remarks.METADATA, str(error) or type(error).__name__)
        return 1
    return value if value in _TURNS else 1


def _as_rgb(image: Image.Image, note: Note = unheard) -> Image.Image:
    image.seek(0)
    turn = _TURNS[_orientation(image, note)]
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # 16 bits, or 16 bits in an integer of 32
        return _from_integers(image, note)
    if image.mode == "F":
        return Image.fromarray(from_unit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            note(remarks.TRANSPARENT, "")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # RGB to RGB would copy


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of a GIF the second frame is looked for, and may be damaged
        return True


def _from_integers(image: Image.Image, note: Note) -> Image.Image:
    """Turn grey of 12, 16 or 32 bits into RGB.

    Raises:
        ValueError: If the values are not those of 16 bits.
    """
    wide = np.asarray(image).astype(np.int64)
    lowest, highest = int(wide.min()), int(wide.max())
    if lowest < 0 or highest > _WHITE:
        message = (
            f"its integers run from {lowest} to {highest}, a range whose black and white are not "
            f"known; save it with 8 bits, or with 16, that is 0 to {_WHITE}"
        )
        raise ValueError(message)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        wide[wide == clear] = 0
    if getattr(image, "tag_v2", {}).get(_BITS) == (12,):  # which Pillow leaves as they are
        return Image.fromarray(((wide * 255 + 2047) // 4095).astype(np.uint8)).convert("RGB")
    if 0 < highest < DIM:
        note(remarks.DARK, f"at most {highest}")
    return Image.fromarray(from_16_bits(wide)).convert("RGB")


def from_16_bits(values: npt.NDArray[np.integer]) -> Pixels:
    """Bring 0 to 65535 to 0 to 255, to the nearest."""
    return ((values.astype(np.int64, copy=False) + 128) // 257).astype(np.uint8)


def from_unit(values: npt.NDArray[np.floating]) -> Pixels:
    """Bring floating point in [0, 1] to 0 to 255, to the nearest.

    Raises:
        ValueError: If the values are others.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 1):  # nor NaN
        message = (
            f"it has floating-point pixels from {lowest:g} to {highest:g}, whose black and white "
            "are not known; bring them to 0 to 1, or save it with 8 bits"
        )
        raise ValueError(message)
    return np.rint(values * np.float64(255)).astype(np.uint8)


def _misnamed(name: str, image: Image.Image) -> bool:
    """Tell whether a file's suffix is that of another format than the one it has."""
    said = _formats_of_suffixes().get(PurePath(name).suffix.lower())
    same = {"MPO": "JPEG"}  # a photo with more of them behind it
    return said is not None and same.get(said, said) != same.get(str(image.format), image.format)


@cache
def _formats_of_suffixes() -> dict[str, str]:
    return Image.registered_extensions()


def _with_image(
    item: Item,
    data: bytes | None,
    use: Callable[[Image.Image], _T],
    note: Note = unheard,
) -> _T:
    """Open an image, check its size and hand it to `use`; any failure is an ImageReadError."""
    try:
        return _used(item.source.open if data is None else partial(io.BytesIO, data), use)
    except Image.DecompressionBombError:
        reason = f"its header claims more than {MAX_PIXELS // 10**6} megapixels"
        raise ImageReadError(item.id, reason) from None
    except _UndecodableError as first:
        error = first.__cause__
    head = _head(item, data)
    if may_have_less(head):
        for less in without_metadata(read_bytes(item) if data is None else data):
            # what is wrong with the file itself is what is to be told
            with suppress(_UndecodableError, Image.DecompressionBombError):
                result = _used(partial(io.BytesIO, less), use)
                note(remarks.METADATA, "")
                return result
    if isinstance(error, PIL.UnidentifiedImageError):
        raise ImageReadError(item.id, why_no_image(head)) from None
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    raise ImageReadError(item.id, reason) from error


class _UndecodableError(Exception):
    """Bytes are no image that can be read; the cause says why."""


def _used(opened: Callable[[], BinaryIO], use: Callable[[Image.Image], _T]) -> _T:
    """Open an image, check its size and hand it to `use`."""
    try:
        with opened() as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return use(image)
    except (MemoryError, ImageReadError, Image.DecompressionBombError):
        raise
    except Exception as error:  # decoders raise nearly anything when the bytes are wrong
        raise _UndecodableError from error


def _head(item: Item, data: bytes | None) -> bytes:
    if data is not None:
        return data[:HEAD]
    try:
        with item.source.open() as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise ImageReadError(item.id, error.strerror or str(error)) from error


def _inside(item: Item, height: int, width: int) -> tuple[int, int, int, int]:
    """Return a box as 0-based half-open pixels, cut at the image's border."""
    xmin, ymin, xmax, ymax = item.box or (1, 1, width, height)
    left, top = max(xmin - 1, 0), max(ymin - 1, 0)
    right, bottom = min(xmax, width), min(ymax, height)
    if left >= right or top >= bottom:
        raise ImageReadError(item.id, f"its box {item.box} lies outside the image")
    return left, top, right, bottom
