"""Image files without their metadata, for those that are refused because it is damaged.

What decides the pixels stays, byte for byte: a file whose pixels are damaged is refused still.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_METADATA = 0x2C  # the flags of VP8X for a colour profile, EXIF and XMP
_APP0, _APP1, _APP14, _APP15, _COM, _SOS = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA
_JFIF, _ADOBE = 14, 12  # bytes that a decoder wants of APP0 and APP14; it heeds no shorter ones
# TIFF 6.0: sizes, samples, compression, strips, tiles, colours and the way up.
_TIFF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317),
    *(320, 321, 322, 323, 324, 325, 332, 334, 338, 339, 347, *range(512, 522), 529, 530, 531),
    532,
}


def may_have_less(head: bytes) -> bool:
    """Tell by a file's first bytes whether `without_metadata` knows its format."""
    return head.startswith(tuple(signature for signature, _ in _WAYS))


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield an image file with less and less of its metadata.

    EXIF, which tells the way up, goes last.

    Args:
        data: A file's bytes.

    Yields:
        Other files of the same pixels; none for a format that is not known here, or for a file
        whose structure is damaged.
    """
    for signature, ways in _WAYS:
        if data.startswith(signature):
            for way in ways:
                try:
                    less = way(data)
                except (struct.error, IndexError):
                    continue
                if less != data:
                    yield less


def _png_head_kept(data: bytes) -> bytes:
    return _png(data, lambda name, pixels: pixels or name in _PNG_PIXELS)


def _png_exif_kept(data: bytes) -> bytes:
    return _png(data, lambda name, pixels: name in {*_PNG_PIXELS, b"eXIf"})


def _png_alone(data: bytes) -> bytes:
    return _png(data, lambda name, pixels: name in _PNG_PIXELS)


def _png(data: bytes, kept: Callable[[bytes, bool], bool]) -> bytes:
    """Return a PNG of the chunks that are kept, by name and whether they come before the pixels."""
    parts, start, before = [_PNG], len(_PNG), True
    while start + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        name, end = data[start + 4 : start + 8], start + 12 + length
        before = before and name != b"IDAT"
        if kept(name, before):
            parts.append(data[start:end])
        start = end
    return b"".join(parts)


def _webp_alone(data: bytes) -> bytes:
    if data[8:12] != b"WEBP":
        return data
    parts, start = [b"WEBP"], 12
    while start + 8 <= len(data):
        name = data[start : start + 4]
        (length,) = struct.unpack_from("<I", data, start + 4)
        body = data[start + 8 : start + 8 + length]
        if name == b"VP8X":
            body = bytes([body[0] & ~_WEBP_METADATA]) + body[1:]
        if name in _WEBP_PIXELS:
            if len(body) < length:
                return data  # the pixels are cut short
            parts.append(name + struct.pack("<I", length) + body + bytes(length % 2))
        start += 8 + length + length % 2
    content = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _jpeg_exif_kept(data: bytes) -> bytes:
    return _jpeg(data, lambda body: body.startswith(b"Exif\0\0"))


def _jpeg_alone(data: bytes) -> bytes:
    return _jpeg(data, lambda body: False)


def _jpeg(data: bytes, kept: Callable[[bytes], bool]) -> bytes:
    """Return a JPEG without what applications wrote before its pixels, but for APP1 if kept.

    Of APP0 and APP14, which decide the colours, those stay that a decoder can read.
    """
    parts, start = [data[:2]], 2
    while data[start] == 0xFF:
        marker = data[start + 1]
        if marker in {0xFF, 0} or marker == _SOS:
            break
        (length,) = struct.unpack_from(">H", data, start + 2)
        body, end = data[start + 4 : start + 2 + length], start + 2 + length
        least = {_APP0: _JFIF, _APP14: _ADOBE}.get(marker)
        if least is not None:
            stays = len(body) >= least
        elif marker == _APP1:
            stays = kept(body)
        else:
            stays = not (_APP0 <= marker <= _APP15 or marker == _COM)
        if stays:
            parts.append(data[start:end])
        start = end
    return b"".join(parts) + data[start:]


def _tiff_alone(data: bytes) -> bytes:
    """Return a TIFF whose first directory has only the tags that decide the pixels."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    (start,) = struct.unpack_from(order + link, data, 8 if big else 4)
    (number,) = struct.unpack_from(order + count, data, start)
    first = start + struct.calcsize(order + count)
    end = first + number * entry
    if end + struct.calcsize(order + link) > len(data):
        return data
    entries = [data[place : place + entry] for place in range(first, end, entry)]
    kept = [e for e in entries if struct.unpack_from(f"{order}H", e)[0] in _TIFF_PIXELS]
    directory = struct.pack(order + count, len(kept)) + b"".join(kept)
    directory += data[end : end + struct.calcsize(order + link)]
    return data[:start] + directory + data[start + len(directory) :]


_WAYS: tuple[tuple[bytes, tuple[Callable[[bytes], bytes], ...]], ...] = (
    (_PNG, (_png_head_kept, _png_exif_kept, _png_alone)),
    (b"RIFF", (_webp_alone,)),
    (b"\xff\xd8\xff", (_jpeg_exif_kept, _jpeg_alone)),
    *((begin, (_tiff_alone,)) for begin in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
