"""Small pictures as `data:` URIs, for a page that loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vggfeat.files.sources import IMAGE_FORMATS

_THUMBNAIL = 160  # longer side, pixels
_QUALITY = 80  # JPEG
_ROOM = 4_000_000  # base64 characters of pictures: pages over 5 MB are slow on a phone
_FAINTEST = 90  # opacity of what is not quite 0, of 255
_STEPS = 8  # of the scale that explains the ink
BLUE = (0, 114, 178)  # of Okabe & Ito; at least 3:1 on a light ground and on a dark one
GREY = (128, 136, 144)  # what is not meant, on either ground


class Shown(Protocol):
    """What a page shows as a picture."""

    @property
    def id(self) -> str:
        """Of the image."""


_Shown = TypeVar("_Shown", bound=Shown)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail.

    Attributes:
        key: Its id in the page.
        uri: The JPEG.
        width: Pixels.
        height: Pixels.
    """

    key: str
    uri: str
    width: int
    height: int


class Pictures:
    """Thumbnails of images, each of which stands in the page once.

    Attributes:
        left_out: How many found no room in the page.
    """

    def __init__(self, image: Callable[[str], bytes] | None) -> None:
        self._image = image
        self._known: dict[str, Picture | None] = {}
        self._room = _ROOM
        self.left_out = 0

    @property
    def embedded(self) -> list[Picture]:
        """Those that the page has to hold, in the order of their first use."""
        return [picture for picture in self._known.values() if picture]

    def of(self, examples: Sequence[_Shown]) -> list[tuple[_Shown, Picture | None]]:
        """Return each example with its picture, None where there is none."""
        for example in examples:
            if self._image and example.id not in self._known:
                self._known[example.id] = self._embed(self._image, example.id)
        return [(example, self._known.get(example.id)) for example in examples]

    def _embed(self, image: Callable[[str], bytes], name: str) -> Picture | None:
        try:
            data = image(name)
        except (OSError, KeyError):
            return None
        picture = _thumbnail(data, f"p{len(self._known)}")
        if picture and len(picture.uri) > self._room:
            self.left_out += 1
            return None
        self._room -= len(picture.uri) if picture else 0
        return picture


def heat_map(shares: npt.NDArray[np.float64], ink: tuple[int, int, int] = BLUE) -> str:
    """Return a PNG with a pixel for each share: clear for 0, full ink for 1.

    The ink follows the square root of a share and begins well above nothing, so that a single
    image can be seen.

    Args:
        shares: (rows, columns), [0, 1].
        ink: RGB.
    """
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = ink
    pixels[..., 3] = np.rint(np.where(shares > 0, 255 * _ink(shares), 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return _uri("png", buffer.getvalue())


def _ink(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the opacity of a share above 0, both in [0, 1]."""
    return (_FAINTEST + (255 - _FAINTEST) * share**0.5) / 255


# (share, opacity), both in [0, 1]: the scale of a heat map above 0
_SHARES = np.linspace(0, 1, _STEPS + 1)
INKS: list[tuple[float, float]] = list(
    zip(_SHARES.tolist(), _ink(_SHARES).round(3).tolist(), strict=True)
)


def _thumbnail(data: bytes, key: str) -> Picture | None:
    """Return the thumbnail of an image file's bytes, None if they are none."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            opened.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))  # JPEG decodes small ones faster
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.info.clear()  # a comment in the file would be copied
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
    except Exception:  # decoders raise anything for damaged bytes; a page can do without a picture
        return None
    uri = _uri("jpeg", buffer.getvalue())
    return Picture(key=key, uri=uri, width=picture.width, height=picture.height)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
