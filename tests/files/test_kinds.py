"""What a file is that was taken for an image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vggfeat.files.kinds import ARCHIVES, NO_IMAGES, as_clause, why_no_image


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = major + bytes(4) + b"".join(compatible)
    return (len(body) + 8).to_bytes(4, "big") + b"ftyp" + body + b"\0\0\0\x08mdat"


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
CASES = [
    (ftyp(b"avif", b"mif1"), "AVIF"),
    (ftyp(b"mif1", b"avif", b"miaf"), "AVIF"),
    (ftyp(b"avis"), "AVIF"),
    (ftyp(b"heic", b"mif1"), "HEIC"),
    (ftyp(b"mif1", b"heic"), "HEIC"),
    (ftyp(b"msf1", b"hevc"), "HEIC"),
    (ftyp(b"mif1"), "HEIF"),
    (ftyp(b"crx ", b"isom"), "a raw photo"),
    (ftyp(b"isom", b"avc1", b"mp41"), "a video"),
    (ftyp(b"qt  "), "a video"),
    (b"\0\0\x10\0moov", "a video"),
    (b"RIFF\0\0\0\0AVI LIST", "a video"),
    (b"\x1a\x45\xdf\xa3\x01", "a video"),
    (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
    (b"II*\0\x10\0\0\0CR\2\0", "a raw photo"),
    (b"%PDF-1.7\n", "a PDF document"),
    (b"%!PS-Adobe-3.0", "PostScript"),
    (SVG, "SVG"),
    (b'<?xml version="1.0"?>\n<!-- drawn -->\n' + SVG, "SVG"),
    (b"\xef\xbb\xbf<!DOCTYPE svg PUBLIC>\n" + SVG, "SVG"),
    (b"<svg:svg xmlns:svg='x'>", "SVG"),
    (b"<!DOCTYPE html><html>404", "a web page"),
    (b"\n\n<HTML><body>" + SVG, "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied", "a web page"),
    (b"<annotation><object/></annotation>", "XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    (b"/annex/objects/MD5E-s1--0.jpg", "a git-annex pointer"),
    (b"\x1f\x8b\x08\0", "a gzip archive"),
    (b"PK\3\4", "a zip archive"),
    (b"Rar!\x1a\7", "a RAR archive"),
    (bytes([1]) + bytes(256) + b"ustar\0", "a tar archive"),
    (bytes(5000), "nothing but zero bytes"),
    (b"\0\5\x16\7\0\2\0\0Mac OS X", "AppleDouble"),
    (b"8BPS\0\1", "a Photoshop document"),
    (bytes(128) + b"DICM", "DICOM"),
    (b"\x93NUMPY\1\0", "a NumPy array"),
    (b"v/1\x01\2\0\0\0", "OpenEXR"),
    (b"GIF89a", "GIF, but damaged"),
    (b"RIFF\0\0\0\0WEBPVP8 ", "WebP, but damaged"),
    (b'{"error": "not found"}', "text, and no image"),
]


@pytest.mark.parametrize(("head", "what"), CASES, ids=[what for _, what in CASES])
def test_it_is_said_by_name_with_what_to_do(head: bytes, what: str) -> None:
    said = why_no_image(head[:4096])
    assert said.startswith(f"it is {what}")
    assert len(said.partition("; ")[2]) > 5


def test_what_is_empty_or_unknown_is_said_so() -> None:
    assert why_no_image(b"") == "it is empty"
    noise = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    assert why_no_image(noise) == "it is no image of a known format"


def test_images_that_are_none_of_these_are_not_taken_for_them() -> None:
    """Of a file that Pillow reads nothing but its own format could be said."""
    pixels = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    for name, said in (("PNG", "PNG"), ("JPEG", "JPEG"), ("TIFF", "TIFF"), ("BMP", "BMP")):
        stream = io.BytesIO()
        pixels.save(stream, name)
        assert why_no_image(stream.getvalue()[:4096]).startswith(f"it is {said}, but damaged")


def test_every_kind_says_what_to_do() -> None:
    for kind in (*ARCHIVES, *NO_IMAGES):
        assert kind.remedy.endswith(".")
        assert kind.remedy[0].isupper()
        assert kind.reason == f"it is {kind.what}; {as_clause(kind.remedy)}"
