from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from vggfeat.data.records import Item
from vggfeat.errors import ImageReadError
from vggfeat.extraction.images import decode
from vggfeat.files.sources import IMAGE_FORMATS, FileSource
from vggfeat.files.suffixes import SUFFIXES, suffix_counts

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text("utf-8")
FOLDERS = PAGE.partition("## Folders")[2].partition("\n## ")[0]
EXACT = ("PNG", "BMP", "TIFF", "PPM", "JPEG2000", "DIB", "QOI", "DDS", "SGI", "PCX", "TGA")
LOSSY = ("JPEG", "WEBP", "AVIF", "GIF")  # GIF has 256 colours


def rows(head: str) -> list[list[str]]:
    """Return the cells of the table on the page that begins with some head."""
    table = FOLDERS.partition(f"{head}\n|---|---|\n")[2].partition("\n\n")[0]
    return [row.strip("| ").split(" | ") for row in table.splitlines()]


def test_the_page_lists_every_suffix_of_an_image() -> None:
    named = {
        suffix
        for _, cell in rows("| format | suffixes |")
        for suffix in re.findall(r"`(\.\w+)`", cell)
    }
    assert named == SUFFIXES


def test_every_format_that_pillow_opens_is_read_or_left_out_for_a_reason() -> None:
    Image.init()
    left_out = [
        name for cell, why in rows("| formats | why not |") if why for name in cell.split(", ")
    ]
    assert len(left_out) == len({*left_out})
    assert {*Image.OPEN} == {*IMAGE_FORMATS, *left_out}
    assert not {*IMAGE_FORMATS} & {*left_out}


@pytest.mark.parametrize(
    "suffix", ["pdf", "eps", "ps", "mpg", "ico", "psd", "h5", "wmf", "svg", "txt", ""]
)
def test_other_suffixes_are_none_of_an_image(suffix: str) -> None:
    assert f".{suffix}" not in SUFFIXES


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
def test_every_format_is_decoded(tmp_path: Path, name: str) -> None:
    pixels = photo(40, 56, seed=3)
    path = tmp_path / "photo"
    Image.fromarray(pixels).save(path, name)
    found = np.asarray(decode(Item("photo", FileSource(path)), path.read_bytes()))
    assert found.shape == pixels.shape
    difference = np.abs(found.astype(int) - pixels).mean()
    assert difference <= (12 if name in LOSSY else 0)  # of 255; the photo has noise of 12


@pytest.mark.parametrize("name", ["MSP", "XBM"])
def test_formats_of_two_colours_are_decoded(tmp_path: Path, name: str) -> None:
    bits = photo(40, 56, seed=3)[..., 0] > 127
    path = tmp_path / "photo"
    Image.fromarray(bits).save(path, name)
    found = np.asarray(decode(Item("photo", FileSource(path)), path.read_bytes()))
    assert np.array_equal(found[..., 0] > 127, bits)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"<!DOCTYPE html><html>404",
            b"version https://git-lfs.github.com/spec/v1\n",
            b"%PDF-1.7\n",
        ),
        *(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x20ftypisom", b"\0\5\x16\7\0\2\0\0"),
        *(b"PK\3\4\x14\0\0\0", b"\x1f\x8b\x08\0", b"\x89HDF\r\n\x1a\n", b"\x7fELF\2\1\1\0"),
        *(bytes(64), b"\xff" * 64, b"\0\1\0\0", b"SIMPLE  =                    T", b"\0\0\1\0\1\0"),
    ],
)
def test_what_is_no_image_does_not_pass_for_one(tmp_path: Path, data: bytes) -> None:
    """TGA has no signature: it is tried last, and its header must make sense."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(data.ljust(100, b"\0"))
    with pytest.raises(ImageReadError):
        decode(Item("photo.jpg", FileSource(path)), path.read_bytes())


def test_suffixes_are_counted_the_most_frequent_first() -> None:
    names = ["a.txt", "b/c.TXT", "Makefile", "x.npy", "y.npy", "z.npy", ".hidden"]
    assert suffix_counts(names) == "3 .npy, 2 .txt, 2 without a suffix"
    assert (
        suffix_counts([f"a.{n}" for n in range(9)])
        == "1 .0, 1 .1, 1 .2, 1 .3, 1 .4, 4 of other suffixes"
    )
    assert suffix_counts(["a.\x1b[31m"]) == r"1 '.\x1b[31m'"
