from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from vggfeat.data.records import Item
from vggfeat.errors import ImageReadError
from vggfeat.extraction import images, remarks
from vggfeat.extraction.images import (
    MAX_ASPECT,
    MAX_PIXELS,
    Interpolation,
    Pixels,
    crop_extreme,
    cropped,
    decode,
    picture,
    read_bytes,
    read_size,
    rescale,
    rescaled_size,
)
from vggfeat.extraction.metadata import without_metadata
from vggfeat.extraction.remarks import Remark
from vggfeat.files.sources import IMAGE_FORMATS, FileSource

Box = tuple[int, int, int, int]
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)  # without symmetry

# EXIF 2.3, tag 0x0112: where row 0 and column 0 of the file belong, undone with numpy alone.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # row 0 is the top, column 0 the right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a[::-1].swapaxes(0, 1),  # right, top
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda a: a[:, ::-1].swapaxes(0, 1),  # left, bottom
}


def encode(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data: bytes, box: Box | None = None) -> Pixels:
    return np.asarray(decode(Item("image", FileSource(Path("nowhere")), box), data))


def file_of(folder: Path, data: bytes, box: Box | None = None) -> Item:
    path = folder / "image.jpg"
    path.write_bytes(data)
    return Item("cat/image.jpg", FileSource(path), box)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    size: tuple[int, int],
    bits: int,
    colour: int,
    rows: bytes,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Write a PNG from its parts: (W, H), bits per sample, colour type and filtered rows."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")


def jpeg_claiming(height: int, width: int) -> bytes:
    data = bytearray(encode(RGB, "JPEG"))
    place = data.index(b"\xff\xc0") + 5  # SOF0: marker, length, precision, height, width
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png_claiming(height: int, width: int) -> bytes:
    return png((width, height), 8, 2, b"\0" * 22)


def gif_claiming(height: int, width: int) -> bytes:
    data = bytearray(encode(RGB, "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_claiming(height: int, width: int) -> bytes:
    data = bytearray(encode(RGB, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def exactly_scaled(values: np.ndarray) -> list[int]:
    return [floor(Fraction(int(v) * 255, 65535) + Fraction(1, 2)) for v in values.ravel()]


# --- decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_an_rgb_image_is_decoded_as_it_is(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decoded(encode(RGB, kind, **options))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, RGB)


def test_a_jpeg_is_decoded_in_the_order_rgb() -> None:
    flat = np.full((16, 16, 3), (200, 100, 20), np.uint8)
    difference = decoded(encode(flat, "JPEG", quality=100)).astype(int) - flat
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied_and_read_size_agrees(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    flat = decoded(encode(RGB, kind, **options))
    data = encode(RGB, kind, exif=oriented(orientation), **options)
    pixels = decoded(data)
    assert np.array_equal(pixels, UPRIGHT[orientation](flat))
    assert read_size(file_of(tmp_path, data)) == pixels.shape[:2]


def test_an_orientation_that_stands_behind_the_pixels_does_not_part_size_and_pixels(
    tmp_path: Path,
) -> None:
    exif = chunk(b"eXIf", oriented(6).tobytes().removeprefix(b"Exif\0\0"))
    data = png((3, 1), 8, 0, b"\0" + bytes([10, 20, 30]), after=exif)
    assert read_size(file_of(tmp_path, data)) == decoded(data).shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path, orientation: int) -> None:
    data = encode(RGB, "PNG", exif=oriented(orientation))
    assert np.array_equal(decoded(data), RGB)
    assert read_size(file_of(tmp_path, data)) == (5, 7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_grey_is_replicated(kind: str) -> None:
    grey = RGB[:, :, 0]
    data = encode(grey, kind)
    pixels = decoded(data)
    assert pixels.shape == (5, 7, 3)
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 1])
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])
    if kind != "JPEG":
        assert np.array_equal(pixels[:, :, 0], grey)


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, 0b00011011, [0, 0, 0, 255, 255, 0, 255, 255]),
        (2, 0b00011011, [0, 85, 170, 255]),
        (4, 0b00011011, [17, 187]),
    ],
)
def test_less_than_8_bits_are_spread_over_the_whole_range(
    bits: int, row: int, expected: list[int]
) -> None:
    data = png((8 // bits, 1), bits, 0, bytes([0, row]))
    assert decoded(data).tolist() == [[[v, v, v] for v in expected]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_exactly(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decoded(encode(Image.fromarray(values), kind))
    assert pixels.dtype == np.uint8
    assert pixels[:, :, 0].ravel().tolist() == exactly_scaled(values)
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_16_bit_grey_in_32_bits_is_scaled_exactly() -> None:
    values = np.array([[0, 128, 129, 32768, 65535]], dtype=np.int32)
    pixels = decoded(encode(Image.fromarray(values), "TIFF"))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(("lowest", "highest"), [(-5, 300), (0, 65536), (70000, 2 * 10**9)])
def test_integers_beyond_16_bits_are_refused(lowest: int, highest: int) -> None:
    values = np.array([[lowest, highest]], dtype=np.int32)
    with pytest.raises(ImageReadError, match=f"run from {lowest} to {highest}, .*save it with 8"):
        decoded(encode(Image.fromarray(values), "TIFF"))


def tiff(bits: int, photometric: int, data: bytes, width: int, sample_format: int = 1) -> bytes:
    """Write a little-endian TIFF of one row of grey, from its parts."""
    numbers = (256, 257, 258, 259, 262, 273, 277, 278, 279, 339)
    values = (width, 1, bits, 1, photometric, 8, 1, 1, len(data), sample_format)
    tags = dict(zip(numbers, values, strict=True))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("sample_format", "kind", "values", "expected"),
    [
        (1, "<u2", [0, 65535, 32768], [0, 255, 128]),
        (2, "<i2", [0, 32767, 129], [0, 127, 1]),  # 32767 / 257 = 127.498
        (1, "<u4", [0, 65535, 257], [0, 255, 1]),
        (3, "<f4", [0, 1, 0.5], [0, 255, 128]),
    ],
)
def test_samples_of_a_tiff_are_scaled_by_their_type(
    sample_format: int, kind: str, values: list[float], expected: list[int]
) -> None:
    samples = np.array(values, kind)
    data = tiff(8 * samples.itemsize, 1, samples.tobytes(), 3, sample_format)
    assert decoded(data)[0, :, 0].tolist() == expected


def test_a_tiff_of_12_bits_is_scaled_from_its_own_range() -> None:
    packed = bytes([0xFF, 0xF8, 0x00, 0x00, 0x80, 0x00])  # 4095, 2048, 8, 0
    assert decoded(tiff(12, 1, packed, 4))[0, :, 0].tolist() == [255, 128, 0, 0]


def test_a_tiff_of_1_bit_may_have_white_or_black_as_its_zero() -> None:
    for photometric, expected in ((0, [255, 0, 255, 0]), (1, [0, 255, 0, 255])):
        assert decoded(tiff(1, photometric, b"\x50", 4))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_either_byte_order_are_one_image(order: str) -> None:
    values = np.arange(0, 60000, 5000, dtype=f"{order}u2").reshape(3, 4)
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, (4, 3), values.tobytes())
    assert decoded(encode(image, "TIFF"))[:, :, 0].ravel().tolist() == exactly_scaled(values)


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_are_converted(mode: str) -> None:
    white, black = (Image.new(mode, (3, 2), (light, 128, 128)) for light in (255, 0))
    assert decoded(encode(white, "TIFF")).min() >= 254
    assert decoded(encode(black, "TIFF")).max() <= 1


def test_a_pgm_of_10_bits_is_scaled_from_its_own_range() -> None:
    samples = np.array([0, 1023, 512], ">u2")
    assert decoded(b"P5 3 1 1023\n" + samples.tobytes())[0, :, 0].tolist() == [0, 255, 128]


def test_16_bit_colour_is_scaled_within_one_level() -> None:
    samples = np.linspace(0, 65535, 3 * 500).astype(">u2")
    pixels = decoded(png((500, 1), 16, 2, b"\0" + samples.tobytes()))
    difference = pixels.ravel().astype(int) - exactly_scaled(samples)
    assert np.abs(difference).max() <= 1


def test_cmyk_is_converted() -> None:
    inks = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    pixels = decoded(encode(Image.fromarray(inks, "CMYK"), "TIFF"))
    paper = 255.0 - inks
    expected = paper[:, :, :3] * paper[:, :, 3:] / 255
    assert np.abs(pixels - expected).max() < 1


@pytest.mark.parametrize(
    ("inks", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_a_cmyk_jpeg_is_not_inverted(
    inks: tuple[int, int, int, int], expected: tuple[int, int, int]
) -> None:
    data = encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    assert np.abs(decoded(data).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_rgba_is_composed_on_black(kind: str) -> None:
    levels = np.arange(256, dtype=np.uint8)
    colour, alpha = np.meshgrid(levels, levels)
    rgba = np.stack([colour, 255 - colour, colour, alpha], axis=2)
    pixels = decoded(encode(Image.fromarray(rgba, "RGBA"), kind))
    c, a = colour.astype(int), alpha.astype(int)
    assert np.array_equal(pixels[:, :, 0], (2 * c * a + 255) // 510)  # c·a/255, to the nearest
    assert np.array_equal(pixels[:, :, 1], (2 * (255 - c) * a + 255) // 510)
    assert np.array_equal(pixels[:, :, 2], pixels[:, :, 0])


def test_grey_with_alpha_is_composed_on_black() -> None:
    row = bytes([200, 255, 200, 128, 200, 0])
    expected = [200, 100, 0]  # 200 · 128 / 255 = 100.4
    assert decoded(png((3, 1), 8, 4, b"\0" + row)).tolist() == [[[v] * 3 for v in expected]]


def test_a_palette_with_transparency_is_composed_on_black() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    alphas = chunk(b"tRNS", bytes([0, 128]))  # the third entry is opaque
    data = png((3, 1), 8, 3, bytes([0, 0, 1, 2]), before=palette + alphas)
    assert decoded(data).tolist() == [[[0, 0, 0], [0, 128, 0], [0, 0, 255]]]


def test_a_palette_without_transparency_keeps_its_colours() -> None:
    palette = chunk(b"PLTE", bytes([250, 10, 20, 0, 255, 7]))
    data = png((2, 1), 8, 3, bytes([0, 1, 0]), before=palette)
    assert decoded(data).tolist() == [[[0, 255, 7], [250, 10, 20]]]


@pytest.mark.parametrize(
    ("colour", "key", "row", "expected"),
    [
        (0, (20,), [10, 20, 30], [[10] * 3, [0] * 3, [30] * 3]),
        (2, (10, 20, 30), [10, 20, 30, 11, 20, 30], [[0] * 3, [11, 20, 30]]),
    ],
)
def test_a_transparent_colour_is_black(
    colour: int, key: tuple[int, ...], row: list[int], expected: list[list[int]]
) -> None:
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    data = png((len(expected), 1), 8, colour, bytes([0, *row]), before=transparent)
    assert decoded(data).tolist() == [expected]


def test_a_transparent_value_of_16_bits_is_black() -> None:
    samples = np.array([30000, 65535, 30001], ">u2")
    transparent = chunk(b"tRNS", struct.pack(">H", 30000))
    data = png((3, 1), 16, 0, b"\0" + samples.tobytes(), before=transparent)
    assert decoded(data)[0, :, 0].tolist() == [0, 255, 117]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    first, second = (Image.new("RGB", (6, 4), c) for c in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert np.array_equal(decoded(data), np.full((4, 6, 3), (255, 0, 0)))
    assert read_size(file_of(tmp_path, data)) == (4, 6)


def test_of_a_stereo_photo_the_first_picture_is_taken() -> None:
    left, right = (Image.new("RGB", (16, 16), c) for c in ("white", "black"))
    data = encode(left, "MPO", save_all=True, append_images=[right])
    assert decoded(data).min() >= 253


def test_a_transparent_gif_is_composed_on_black() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([90, 80, 70, 255, 255, 255])
    image.putdata([0, 1])
    data = encode(image, "GIF", transparency=1)
    assert decoded(data).tolist() == [[[90, 80, 70], [0, 0, 0]]]


def test_floating_point_pixels_from_0_to_1_are_scaled_to_the_nearest() -> None:
    values = np.array([[0, 1, 0.5, 0.001, 0.0019, 127 / 255]], dtype=np.float32)
    pixels = decoded(encode(Image.fromarray(values), "TIFF"))
    assert pixels[0, :, 1].tolist() == [0, 255, 128, 0, 0, 127]
    levels = np.arange(256, dtype=np.float32)[None]
    assert np.array_equal(
        decoded(encode(Image.fromarray(levels / 255), "TIFF"))[0, :, 0], levels[0]
    )


@pytest.mark.parametrize(
    ("first", "last"), [(0, 255), (-1, 1), (0, 1.01), (0, np.nan), (np.inf, 1)]
)
def test_floating_point_pixels_of_another_range_are_refused(first: float, last: float) -> None:
    values = np.array([[first, last]], dtype=np.float32)
    with pytest.raises(
        ImageReadError, match=r"floating-point pixels from .*; bring them to 0 to 1"
    ):
        decoded(encode(Image.fromarray(values), "TIFF"))


# --- files that are none ------------------------------------------------------------------------

PHOTO = encode(np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8), "JPEG")
TEXT = "it is text, and no image of a known format; fetch the image itself"
DAMAGED = (
    "but damaged, cut short, or of a kind that Pillow does not read; save it as an ordinary PNG"
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"no image, just words\n" * 9, TEXT),
        (EPS, "it is PostScript; save its pages as PNG"),
        (b"\x89PNG\r\n\x1a\n", f"it is PNG, {DAMAGED}"),
        (b"\xff\xd8\xff", f"it is JPEG, {DAMAGED}"),
        (bytes(range(255, 0, -1)), "it is no image of a known format"),
    ],
    ids=["empty", "text", "eps", "png-signature", "jpeg-signature", "noise"],
)
def test_what_is_no_image_says_so(tmp_path: Path, data: bytes, reason: str) -> None:
    item = file_of(tmp_path, data)
    for read in (lambda: read_size(item), lambda: decode(item, data)):
        with pytest.raises(ImageReadError) as caught:
            read()
        assert caught.value.reason == reason
        assert caught.value.image == "cat/image.jpg"


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_jpeg_is_an_error(tmp_path: Path, kept: float) -> None:
    item = file_of(tmp_path, PHOTO[: int(kept * len(PHOTO))])
    assert read_size(item) == (40, 50)
    with pytest.raises(ImageReadError, match="truncated"):
        decode(item, read_bytes(item))


def test_a_truncated_png_is_an_error() -> None:
    data = encode(np.tile(RGB, (20, 20, 1)), "PNG")
    with pytest.raises(ImageReadError, match=r"Image 'image' cannot be read: .+\. Replace"):
        decoded(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("claiming", "height", "width"),
    [
        (jpeg_claiming, 65500, 65500),
        (png_claiming, 65500, 65500),
        (png_claiming, 20000, 20000),
        (png_claiming, 13351, 13333),  # 178.009 MP
        (jpeg_claiming, 13400, 13333),  # 178.66 MP
        (png_claiming, 1, 2**31 - 1),
        (gif_claiming, 65535, 65535),
        (bmp_claiming, 40000, 40000),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    claiming: Callable[[int, int], bytes],
    height: int,
    width: int,
) -> None:
    loads: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loads.append)
    item = file_of(tmp_path, claiming(height, width))
    with pytest.raises(ImageReadError, match="header claims more than 178 megapixels"):
        read_size(item)
    with pytest.raises(ImageReadError, match="header claims more than 178 megapixels"):
        decode(item, read_bytes(item))
    assert not loads


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_of_just_less_than_the_limit_is_believed(tmp_path: Path) -> None:
    assert 13350 * 13333 <= MAX_PIXELS < 13351 * 13333
    assert read_size(file_of(tmp_path, jpeg_claiming(13350, 13333))) == (13350, 13333)


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    assert decoded(encode(RGB, "PNG")).shape == (5, 7, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(ImageReadError, match="megapixels"):
        decoded(encode(RGB, "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_the_size_is_read_from_the_header_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    item = file_of(tmp_path, encode(RGB, kind))

    def load(_: object) -> None:
        pytest.fail("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert read_size(item) == (5, 7)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_pipe, "it is no regular file"),
        (a_directory, "it is no regular file"),
        (a_link_to_itself, "Too many levels of symbolic links"),
        (nothing, "No such file or directory"),
    ],
)
def test_what_is_no_regular_file_is_an_error_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "photo.jpg"
    item = Item("photo", FileSource(path))
    make(path)
    for read in (read_size, read_bytes):
        with pytest.raises(ImageReadError) as caught:
            read(item)
        assert caught.value.reason == reason
        assert isinstance(caught.value, OSError)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    item = file_of(tmp_path, PHOTO)
    assert read_bytes(item) == PHOTO
    digest = images.sha256(PHOTO)
    assert digest.shape == (32,)
    assert digest.tobytes() == hashlib.sha256(PHOTO).digest()


# Run on its own: pytest sets the filters of warnings anew for each test, a user does not.
STRICT = """
import sys
from pathlib import Path
from vggfeat.data.records import Item
from vggfeat.errors import ImageReadError
from vggfeat.extraction.images import decode, read_size
from vggfeat.files.sources import IMAGE_FORMATS, FileSource

for path in sorted(Path(sys.argv[1]).iterdir()):
    item = Item(path.name, FileSource(path))
    try:
        height, width = read_size(item)
        if height * width < 10**6:
            decode(item, path.read_bytes())
        print(path.name, height, width)
    except ImageReadError as error:
        print(path.name, error.reason)
"""


def test_no_image_ever_causes_a_warning(tmp_path: Path) -> None:
    exif = oriented(6).tobytes()
    stereo = bytearray(encode(RGB, "MPO", save_all=True, append_images=[Image.fromarray(RGB)]))
    index = stereo.index(b"MPF\0")
    stereo[index + 12 : index + 24] = b"\xff" * 12
    no_frames = chunk(b"acTL", struct.pack(">II", 0, 0))
    corpus = {
        "a-cut-exif.jpg": encode(RGB, "JPEG", exif=exif[:-6]),
        "b-long-exif.jpg": encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\3\0"),
        "c-stereo.jpg": bytes(stereo),
        "d-no-frames.png": png((1, 1), 8, 0, b"\0\1", before=no_frames),
        "e-large.jpg": jpeg_claiming(10000, 10000),
        "f-too-large.jpg": jpeg_claiming(13400, 13333),
        "g-words.jpg": b"just words",
        "h-alpha.gif": encode(Image.new("P", (3, 2)), "GIF", transparency=0),
    }
    for name, data in corpus.items():
        (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", STRICT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == [
        "a-cut-exif.jpg 5 7",
        "b-long-exif.jpg 5 7",
        "c-stereo.jpg 5 7",
        "d-no-frames.png 1 1",
        "e-large.jpg 10000 10000",
        "f-too-large.jpg its header claims more than 178 megapixels",
        f"g-words.jpg {TEXT}",
        "h-alpha.gif 2 3",
    ]
    assert run.stderr == ""


SMALL = encode(np.tile(RGB, (4, 4, 1)), "JPEG", exif=oriented(6))


@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(SMALL)),
)
@example([], len(SMALL))
@example([], 0)
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_decode_or_are_an_image_read_error(
    changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    with mock.patch.object(images, "MAX_PIXELS", 10**6):  # a damaged header may claim anything
        try:
            pixels = decoded(bytes(data[:length] if length % 2 else data))
        except ImageReadError as error:
            assert error.reason.strip()
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3


# --- damaged metadata, sound pixels ---------------------------------------------------------------

NOISE = np.random.default_rng(4).integers(0, 256, (8, 9, 3), dtype=np.uint8)
BOMB = zlib.compress(bytes(2_000_000))
TIFF_OF = {"sound": oriented(6).tobytes(), "garbage": b"Exif\0\0\0\x08\0\x02garbage"}
PNG_CHUNKS = {
    "exif": (b"eXIf", b"\0\x08\0\x02garbage"),
    "short exif": (b"eXIf", b"II"),
    "profile too long": (b"iCCP", b"icc\0\0" + BOMB),
    "profile of a strange kind": (b"iCCP", b"icc\0\x07" + BOMB),
    "profile of nothing": (b"iCCP", b""),
    "text too long": (b"zTXt", b"Comment\0\0" + BOMB),
    "text of a strange kind": (b"zTXt", b"Comment\0\x07abc"),
    "XMP too long": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "raw profile": (b"tEXt", b"Raw profile type exif\0\nexif\n 6\nzzzz\n"),
    "no gamma": (b"gAMA", b"\0"),
    "no size": (b"pHYs", b"\0"),
    "colours cut short": (b"cHRM", bytes(9)),
    "animation cut short": (b"acTL", b"\0"),
}


def with_chunk(data: bytes, part: bytes, *, before: bool) -> bytes:
    """Put a chunk into a PNG, before its pixels or behind them."""
    place = 33 if before else len(data) - 12
    return data[:place] + part + data[place:]


def remarked(data: bytes) -> tuple[Pixels, dict[Remark, str]]:
    found: dict[Remark, str] = {}
    image = decode(Item("image", FileSource(Path("nowhere"))), data, found.__setitem__)
    return np.asarray(image), found


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_a_png_with_damaged_metadata_keeps_its_pixels(
    tmp_path: Path, name: str, before: bool
) -> None:
    data = with_chunk(encode(NOISE, "PNG"), chunk(*PNG_CHUNKS[name]), before=before)
    pixels, found = remarked(data)
    assert np.array_equal(pixels, NOISE)
    assert read_size(file_of(tmp_path, data)) == NOISE.shape[:2]
    assert remarks.METADATA in found or not before


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_a_checksum_of_metadata_may_be_wrong(tmp_path: Path, before: bool) -> None:
    part = chunk(b"tEXt", b"Comment\0hello")
    broken = part[:-1] + bytes([part[-1] ^ 1])
    data = with_chunk(encode(NOISE, "PNG"), broken, before=before)
    assert np.array_equal(decoded(data), NOISE)
    assert read_size(file_of(tmp_path, data)) == NOISE.shape[:2]


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_the_way_up_survives_other_damage(tmp_path: Path, before: bool) -> None:
    whole = encode(NOISE, "PNG", exif=oriented(6))
    data = with_chunk(whole, chunk(*PNG_CHUNKS["text too long"]), before=before)
    pixels, found = remarked(data)
    assert np.array_equal(pixels, UPRIGHT[6](NOISE))
    assert read_size(file_of(tmp_path, data)) == pixels.shape[:2]
    assert found == {remarks.METADATA: ""}


def test_transparency_survives_damage_of_other_chunks() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0])) + chunk(b"tRNS", bytes([128]))
    data = png((2, 1), 8, 3, bytes([0, 0, 1]), before=palette + chunk(*PNG_CHUNKS["no gamma"]))
    assert decoded(data).tolist() == [[[128, 0, 0], [0, 255, 0]]]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize(
    "part",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, TIFF_OF["garbage"]),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\7garbage"),
        segment(0xE2, b"MPF\0garbage"),
        segment(0xED, b"Photoshop 3.0\08BIM"),
        segment(0xED, b"Photoshop 3.0\08BIM\x03\xed\0\0\0\0\0\xff"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b"\xff\xd8\xff\xda"),
    ],
    ids=lambda part: repr(part[4:20]),
)
def test_a_jpeg_with_damaged_metadata_keeps_its_pixels(tmp_path: Path, part: bytes) -> None:
    whole = encode(NOISE, "JPEG", quality=95)
    data = whole[:20] + part + whole[20:]  # behind its JFIF
    assert whole[2:4] == b"\xff\xe0"
    assert np.array_equal(decoded(data), decoded(whole))
    assert read_size(file_of(tmp_path, data)) == NOISE.shape[:2]


def test_a_jpeg_whose_profile_is_damaged_stays_the_way_up_that_its_exif_says() -> None:
    whole = encode(NOISE, "JPEG", quality=95, exif=oriented(6))
    place = whole.index(b"\xff\xdb")  # the first table
    data = whole[:place] + segment(0xE2, b"ICC_PROFILE\0") + whole[place:]
    pixels, found = remarked(data)
    assert np.array_equal(pixels, decoded(whole))
    assert pixels.shape == (9, 8, 3)
    assert found == {remarks.METADATA: ""}


def test_the_inks_of_a_jpeg_hang_on_its_adobe_marker() -> None:
    """It stays where other metadata goes, or a CMYK photo would be its own negative."""
    inks = Image.new("CMYK", (16, 16), (200, 10, 30, 40))
    whole = encode(inks, "JPEG", quality=95)
    assert b"Adobe" in whole
    data = whole[:2] + segment(0xE2, b"ICC_PROFILE\0") + whole[2:]
    assert np.array_equal(decoded(data), decoded(whole))


def webp_parts(data: bytes) -> list[bytes]:
    parts, start = [], 12
    while start < len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + length + length % 2
        parts.append(data[start:end])
        start = end
    return parts


def webp(parts: list[bytes]) -> bytes:
    content = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("name", [b"EXIF", b"XMP ", b"ICCP"])
@pytest.mark.parametrize("length", [4, 2**31])
def test_a_webp_with_damaged_metadata_keeps_its_pixels(
    tmp_path: Path, name: bytes, length: int
) -> None:
    options = {"exif": oriented(1), "xmp": b"<x/>", "icc_profile": b"profile"}
    parts = webp_parts(encode(NOISE, "WEBP", lossless=True, **options))
    [place] = [k for k, part in enumerate(parts) if part[:4] == name]
    parts[place] = name + struct.pack("<I", length) + b"\0\xff\0\xff"
    if length > 4:
        parts.append(parts.pop(place))  # its length goes beyond the end
    data = webp(parts)
    pixels, _ = remarked(data)
    assert np.array_equal(pixels, NOISE)
    assert read_size(file_of(tmp_path, data)) == NOISE.shape[:2]


def test_a_tiff_with_damaged_metadata_keeps_its_pixels(tmp_path: Path) -> None:
    whole = bytearray(encode(NOISE, "TIFF", exif=oriented(1), tiffinfo={700: b"<xmp/>", 270: "x"}))
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    [xmp] = [place for place in entries if struct.unpack_from("<H", whole, place)[0] == 700]
    struct.pack_into("<HI", whole, xmp + 2, 11, 9)  # floating-point numbers
    data = bytes(whole)
    assert np.array_equal(decoded(data), NOISE)
    assert read_size(file_of(tmp_path, data)) == NOISE.shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "TIFF"])
def test_truncated_pixels_are_refused_whatever_the_metadata(kind: str) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    options |= {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encode(pixels, kind, icc_profile=b"garbage", exif=TIFF_OF["sound"], **options)
    assert decoded(data).shape == (80, 60, 3)
    with pytest.raises(ImageReadError):
        decoded(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "TIFF"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(0, 255))
def test_less_metadata_is_never_another_image(kind: str, place: int, value: int) -> None:
    """Each way of leaving metadata out gives the pixels of the whole file, or an error."""
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = bytearray(encode(NOISE, kind, exif=oriented(1), icc_profile=b"profile", **options))
    for less in without_metadata(bytes(data)):
        assert np.array_equal(decoded(less), decoded(bytes(data)))
    data[min(place, len(data) - 1)] = value
    for less in without_metadata(bytes(data)):
        assert len(less) <= len(data) + 8


# --- what is told of images that were read ------------------------------------------------------


def clear_drawing(colour: int, alpha: int = 255) -> Image.Image:
    rgba = np.zeros((6, 6, 4), np.uint8)
    rgba[2:4, 2:4] = (colour, colour, colour, alpha)
    return Image.fromarray(rgba, "RGBA")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (clear_drawing(0), remarks.TRANSPARENT),
        (clear_drawing(200, 0), remarks.TRANSPARENT),
        (clear_drawing(0).convert("LA"), remarks.TRANSPARENT),
        (clear_drawing(200), None),
        (clear_drawing(0).convert("RGB"), remarks.ONE_COLOUR),
        (Image.new("RGBA", (3, 3), (9, 9, 9, 255)), remarks.ONE_COLOUR),
        (Image.new("RGB", (3, 3), "red"), remarks.ONE_COLOUR),
        (Image.new("L", (1, 1), 7), remarks.ONE_COLOUR),
        (Image.fromarray(np.array([[0, 4095]], np.uint16)), remarks.DARK),
        (Image.fromarray(np.array([[0, 255]], np.uint16)), remarks.DARK),
        (Image.fromarray(np.array([[0, 4096]], np.uint16)), None),
        (Image.fromarray(NOISE), None),
    ],
)
def test_what_the_owner_may_not_expect_is_told(image: Image.Image, expected: Remark | None) -> None:
    _, found = remarked(encode(image, "PNG"))
    if expected is remarks.DARK:
        found.pop(remarks.ONE_COLOUR, None)  # of two dark values both may be black
    assert list(found) == ([] if expected is None else [expected])


def test_a_box_of_one_colour_is_told_and_the_image_round_it_is_not() -> None:
    pixels = NOISE.copy()
    pixels[2:5, 2:5] = 9
    for box, expected in (((3, 3, 5, 5), {remarks.ONE_COLOUR: ""}), ((3, 3, 6, 5), {})):
        found: dict[Remark, str] = {}
        item = Item("image", FileSource(Path("nowhere")), box)
        decode(item, encode(pixels, "PNG"), found.__setitem__)
        assert found == expected


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_frames_that_are_left_out_are_told(kind: str) -> None:
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::-1])
    alone = encode(first, "JPEG" if kind == "MPO" else kind)
    both = encode(first, kind, save_all=True, append_images=[second])
    assert list(remarked(alone)[1]) == []
    assert list(remarked(both)[1]) == [remarks.FRAMES]


def test_a_film_whose_second_frame_is_damaged_is_described_by_its_first() -> None:
    frames = [Image.fromarray(a).quantize(8) for a in (NOISE, NOISE[::-1])]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    still = decoded(data)
    for kept in range(len(data) - 30, len(data)):
        assert np.array_equal(decoded(data[:kept]), still)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("a.jpg", "PNG", True),
        ("a.PNG", "JPEG", True),
        ("a.png", "PNG", False),
        ("a.jpeg", "JPEG", False),
        ("a.jfif", "JPEG", False),
        ("a.jpg", "MPO", False),
        ("a.tif", "TIFF", False),
        ("a.pgm", "PPM", False),
        ("a", "PNG", False),
        ("a.b.dat", "PNG", False),
    ],
)
def test_a_name_that_says_another_format_is_told(name: str, kind: str, told: bool) -> None:
    options = {"save_all": True, "append_images": [Image.fromarray(NOISE)]} if kind == "MPO" else {}
    found: dict[Remark, str] = {}
    item = Item("image", FileSource(Path(name)))
    decode(item, encode(NOISE, kind, **options), found.__setitem__)
    found.pop(remarks.FRAMES, None)
    assert found == ({remarks.MISNAMED: kind} if told else {})


@pytest.mark.parametrize(("name", "told"), [("a.jpg", {remarks.MISNAMED: "AVIF"}), ("a.avif", {})])
def test_avif_is_told_where_it_is_read_under_another_name(
    monkeypatch: pytest.MonkeyPatch, name: str, told: dict[Remark, str]
) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    monkeypatch.setattr(images, "IMAGE_FORMATS", (*IMAGE_FORMATS, "AVIF"))
    found: dict[Remark, str] = {}
    item = Item("image", FileSource(Path(name)))
    assert decode(item, encode(NOISE, "AVIF"), found.__setitem__).size == (9, 8)
    assert found == told


# --- boxes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1, 1, 7, 5), slice(0, 5), slice(0, 7)),
        ((2, 3, 4, 5), slice(2, 5), slice(1, 4)),
        ((1, 1, 1, 1), slice(0, 1), slice(0, 1)),
        ((7, 5, 7, 5), slice(4, 5), slice(6, 7)),
        ((6, 2, 9, 3), slice(1, 3), slice(5, 7)),  # cut at the right border
        ((0, -3, 2, 99), slice(0, 5), slice(0, 2)),  # cut on three sides
    ],
)
def test_a_box_is_cut_out_with_both_its_ends(
    tmp_path: Path, box: Box, rows: slice, columns: slice
) -> None:
    data = encode(RGB, "PNG")
    pixels = decoded(data, box)
    assert np.array_equal(pixels, RGB[rows, columns])
    assert read_size(file_of(tmp_path, data, box)) == pixels.shape[:2]


@pytest.mark.parametrize(
    "box", [(8, 1, 9, 2), (1, 6, 2, 7), (-4, 1, 0, 2), (1, -4, 2, 0), (4, 2, 3, 2), (2, 4, 2, 3)]
)
def test_a_box_outside_the_image_is_an_error(tmp_path: Path, box: Box) -> None:
    data = encode(RGB, "PNG")
    message = rf"its box \({box[0]}, {box[1]}, {box[2]}, {box[3]}\) lies outside the image"
    with pytest.raises(ImageReadError, match=message):
        decoded(data, box)
    with pytest.raises(ImageReadError, match=message):
        read_size(file_of(tmp_path, data, box))


def test_a_box_is_meant_in_the_upright_image(tmp_path: Path) -> None:
    data = encode(RGB, "PNG", exif=oriented(6))
    box = (1, 2, 5, 7)  # upright it is 7 high and 5 wide
    pixels = decoded(data, box)
    assert np.array_equal(pixels, UPRIGHT[6](RGB)[1:7, 0:5])
    assert read_size(file_of(tmp_path, data, box)) == (6, 5)


def test_a_picture_shows_the_box_alone_or_on_its_image(tmp_path: Path) -> None:
    ground = np.full((120, 90, 3), 200, dtype=np.uint8)
    item = file_of(tmp_path, encode(ground, "PNG", exif=oriented(6)), (11, 21, 100, 70))
    with Image.open(io.BytesIO(picture(item, whole=False))) as cut:
        assert cut.size == (90, 50)
    with Image.open(io.BytesIO(picture(item, whole=True))) as drawn:
        pixels = np.asarray(drawn)
    assert pixels.shape == (90, 120, 3)  # upright
    changed = np.argwhere((pixels != 200).any(axis=2))
    assert changed.min(axis=0).tolist() == [20, 10]  # 0-based, both ends included
    assert changed.max(axis=0).tolist() == [69, 99]
    assert (pixels[25:65, 15:95] == 200).all()
    assert pixels[20, 10].tolist() == [255, 165, 0]


def test_a_picture_of_a_whole_image_is_its_file(tmp_path: Path) -> None:
    item = file_of(tmp_path, b"whatever it holds")
    assert picture(item, whole=True) == picture(item, whole=False) == b"whatever it holds"
    with pytest.raises(ImageReadError, match="no image of a known format"):
        picture(Item("a/1", item.source, (1, 1, 2, 2), "a"), whole=True)


# --- sizes and rescaling ------------------------------------------------------------------------

sides = st.integers(1, 5000)


@given(sides, sides, st.integers(1, 1000))
@example(375, 500, 256)
@example(2, 3, 1)  # exactly a half: 1.5 becomes 2
@settings(max_examples=100, deadline=None)
def test_the_rescaled_size_is_the_exact_one(height: int, width: int, q: int) -> None:
    new_height, new_width = rescaled_size(height, width, q)
    longer, shorter = max(height, width), min(height, width)
    assert min(new_height, new_width) == q
    assert max(new_height, new_width) == floor(Fraction(longer * q, shorter) + Fraction(1, 2))
    assert (new_height if height <= width else new_width) == q


@given(st.integers(1, 10**6), st.integers(1, 10**6))
@settings(max_examples=100, deadline=None)
def test_the_cropped_size_keeps_the_shorter_side_and_at_most_4_to_1(
    height: int, width: int
) -> None:
    new = cropped(height, width)
    shorter, longer = min(height, width), max(height, width)
    assert min(new) == shorter
    assert max(new) == min(longer, 4 * shorter)
    assert (new[0] <= height) and (new[1] <= width)


@given(st.integers(1, 255), st.integers(1, 255))
@example(255, 9)
@example(1, 255)
@settings(max_examples=100, deadline=None)
def test_an_extreme_image_is_cropped_in_its_middle(height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.arange(height)[:, None]
    pixels[:, :, 1] = np.arange(width)
    kept = np.asarray(crop_extreme(Image.fromarray(pixels)))
    assert kept.shape[:2] == cropped(height, width)
    assert max(kept.shape[:2]) <= MAX_ASPECT * min(kept.shape[:2])
    above, below = int(kept[0, 0, 0]), height - 1 - int(kept[-1, -1, 0])
    before, behind = int(kept[0, 0, 1]), width - 1 - int(kept[-1, -1, 1])
    assert abs(above - below) <= 1
    assert abs(before - behind) <= 1
    assert above + below + kept.shape[0] == height


TEXTURE = np.random.default_rng(3).integers(0, 256, (60, 91, 3), dtype=np.uint8)


@pytest.mark.parametrize("q", [24, 60, 97])
@pytest.mark.parametrize("pixels", [TEXTURE, TEXTURE.swapaxes(0, 1)], ids=["wide", "tall"])
def test_rescaling_is_pillows_bilinear_in_both_directions(pixels: Pixels, q: int) -> None:
    height, width = rescaled_size(pixels.shape[0], pixels.shape[1], q)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    assert np.array_equal(rescale(image, q), expected)


def test_bicubic_is_another_filter() -> None:
    image = Image.fromarray(TEXTURE).resize((46, 30), Image.Resampling.BICUBIC)
    cubic = rescale(Image.fromarray(TEXTURE), 30, "bicubic")
    assert np.array_equal(cubic, np.asarray(image))
    assert not np.array_equal(cubic, rescale(Image.fromarray(TEXTURE), 30))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_of_the_right_size_stays_as_it_is(interpolation: Interpolation) -> None:
    assert np.array_equal(rescale(Image.fromarray(TEXTURE), 60, interpolation), TEXTURE)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("q", [7, 50])
def test_a_constant_image_stays_constant(interpolation: Interpolation, q: int) -> None:
    pixels = np.full((20, 30, 3), (3, 127, 254), np.uint8)
    result = rescale(Image.fromarray(pixels), q, interpolation)
    assert result.shape == (*rescaled_size(20, 30, q), 3)
    assert np.array_equal(result, np.full_like(result, (3, 127, 254)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shrinking_is_antialiased(interpolation: Interpolation) -> None:
    board = np.indices((80, 80)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    inner = rescale(Image.fromarray(pixels), 20, interpolation)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - 127).max() <= 2


def test_an_image_that_was_cropped_is_rescaled_without_what_was_cut_off() -> None:
    strip = np.repeat(TEXTURE[:20], 2, axis=1)
    kept = crop_extreme(Image.fromarray(strip))
    assert kept.size == (80, 20)
    assert np.array_equal(rescale(kept, 33), rescale(Image.fromarray(strip[:, 51:131]), 33))
