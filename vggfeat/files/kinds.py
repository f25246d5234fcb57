"""What a file is that was taken for another one, by its first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 4096  # bytes that are enough to tell

_PAGES = ("<!doctype", "<html", "<head", "<?xml", "<!--")
# An element svg that no element of HTML stands before.
_DRAWING = re.compile(
    r"(?:(?!<(?:html|head|body)\b).)*?<(?:\w+:)?svg[\s>]", re.DOTALL | re.IGNORECASE
)
_VIDEO = "Save the frames that you want as PNG."
_CONVERT = "Save it as PNG or JPEG."
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        what: Behind "it is", for messages.
        remedy: What to do, a sentence.
        begins: Its first bytes, some choices of them, or what tells it by the first `HEAD` bytes.
    """

    what: str
    remedy: str
    begins: bytes | tuple[bytes, ...] | Callable[[bytes], bool]

    def fits(self, head: bytes) -> bool:
        """Tell whether a file that begins so is of this kind."""
        if isinstance(self.begins, bytes | tuple):
            return head.startswith(self.begins)
        return self.begins(head)

    @property
    def reason(self) -> str:
        """What it is and what to do, as a part of a sentence."""
        return f"it is {self.what}; {as_clause(self.remedy)}"


def _text(head: bytes) -> str:
    return head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")


def is_text(head: bytes) -> bool:
    """Tell whether bytes are plain text, or nothing at all."""
    text = _text(head)
    return text.isascii() and "".join(text.split()).isprintable()


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO base media file: the major one and the compatible ones."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: min(int.from_bytes(head[:4], "big"), len(head))]
    return {box[start : start + 4] for start in (8, *range(16, len(box), 4))}


def _riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == form


def as_clause(sentence: str) -> str:
    """Return a sentence as what can stand behind a semicolon.

    >>> as_clause("Unpack it first.")
    'unpack it first'
    """
    return f"{sentence[:1].lower()}{sentence[1:].rstrip('.')}"


EMPTY = Kind("empty", "Fetch it again.", lambda head: not head)
POINTER = Kind(
    "a Git LFS pointer, not the file itself", "Run git lfs pull.", b"version https://git-lfs"
)
PAGE = Kind(
    "a web page instead of the file",
    "Fetch it again.",
    lambda head: _text(head).lower().startswith(_PAGES),
)
TEXT = Kind("text", "Fetch the file itself.", is_text)
TAR = Kind("a tar archive", "Unpack it first.", lambda head: head[257:262] == b"ustar")
ARCHIVES = (
    Kind("a gzip archive", "Unpack it first.", b"\x1f\x8b"),
    Kind("a bzip2 archive", "Unpack it first.", b"BZh"),
    Kind("an xz archive", "Unpack it first.", b"\xfd7zXZ"),
    Kind("a 7z archive", "Unpack it first.", b"7z\xbc\xaf\x27\x1c"),
)

# What stands under the name of an image, in the order in which it is tried.
NO_IMAGES = (
    Kind("nothing but zero bytes", "Fetch it again.", lambda head: not head.strip(b"\0")),
    POINTER,
    Kind(
        "a git-annex pointer, not the file itself",
        "Run git annex get.",
        lambda head: head.startswith(b"/annex/objects/") or b".git/annex/objects/" in head[:512],
    ),
    Kind("AVIF", _CONVERT, lambda head: bool(_brands(head) & {b"avif", b"avis"})),
    Kind("HEIC, as phones save photos", _CONVERT, lambda head: bool(_brands(head) & _HEIC)),
    Kind("HEIF", _CONVERT, lambda head: bool(_brands(head) & {b"mif1", b"msf1"})),
    Kind("a raw photo of a camera", _CONVERT, lambda head: b"crx " in _brands(head)),
    Kind("JPEG XL", _CONVERT, (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    Kind("JPEG 2000", _CONVERT, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    Kind(
        "a raw photo of a camera",
        _CONVERT,
        lambda head: (
            head.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0", b"FOVb"))
            or (head.startswith(b"II*\0") and head[8:10] == b"CR")
        ),
    ),
    Kind(
        "a video",
        _VIDEO,
        lambda head: (
            head[4:8] in {b"ftyp", b"moov", b"mdat"}
            or head.startswith((b"\x1a\x45\xdf\xa3", b"OggS", b"FLV", b"\0\0\1\xba", b"\0\0\1\xb3"))
            or _riff(b"AVI ")(head)
        ),
    ),
    Kind("a PDF document", "Save its pages as PNG.", b"%PDF-"),
    Kind("PostScript", "Save its pages as PNG.", (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    Kind(
        "SVG, which is a drawing and has no pixels",
        "Save it as PNG in the size that you want.",
        lambda head: _DRAWING.match(_text(head)) is not None,
    ),
    PAGE,
    Kind("XML", "Fetch the image itself.", lambda head: _text(head).startswith("<")),
    Kind("a Photoshop document", _CONVERT, b"8BPS"),
    Kind("a GIMP document", _CONVERT, b"gimp xcf"),
    Kind("an icon", _CONVERT, (b"\0\0\1\0", b"icns")),
    Kind("OpenEXR", "Save it as PNG or TIFF, with 8 or 16 bits.", b"v/1\x01"),
    Kind("a Radiance picture", "Save it as PNG, with 8 bits.", (b"#?RADIANCE", b"#?RGBE")),
    Kind("DICOM", _CONVERT, lambda head: head[128:132] == b"DICM"),
    Kind("FITS", _CONVERT, b"SIMPLE  ="),
    Kind("a NumPy array", _CONVERT, b"\x93NUMPY"),
    Kind("an HDF5 file", _CONVERT, b"\x89HDF\r\n\x1a\n"),
    Kind("AppleDouble, what macOS keeps beside a file", "Remove it.", b"\0\5\x16\7"),
    *ARCHIVES,
    Kind("a zip archive", "Unpack it first.", b"PK"),
    Kind("a RAR archive", "Unpack it first.", b"Rar!"),
    TAR,
    *(
        Kind(
            f"{name}, but damaged, cut short, or of a kind that Pillow does not read",
            "Save it as an ordinary PNG.",
            begins,
        )
        for name, begins in (
            ("PNG", b"\x89PNG\r\n\x1a\n"),
            ("JPEG", b"\xff\xd8\xff"),
            ("GIF", (b"GIF87a", b"GIF89a")),
            ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
            ("WebP", _riff(b"WEBP")),
            ("BMP", lambda head: head.startswith(b"BM") and head[6:10] == bytes(4)),
            ("PBM, PGM or PPM", lambda head: re.match(rb"P[1-7]\s", head) is not None),
        )
    ),
    Kind("text, and no image of a known format", "Fetch the image itself.", is_text),
)
_UNKNOWN = "it is no image of a known format"


def why_no_image(head: bytes) -> str:
    """Say what a file is that no decoder knows, and what to do.

    Args:
        head: Its first `HEAD` bytes.

    Returns:
        A part of a sentence, "it is …".
    """
    if not head:
        return "it is empty"
    return next((kind.reason for kind in NO_IMAGES if kind.fits(head)), _UNKNOWN)
