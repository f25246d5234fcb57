"""The text of lists, whichever program wrote them."""

from __future__ import annotations

import shlex
from pathlib import Path

from vggfeat.errors import DatasetError

_MARKS = {  # byte order mark → encoding
    b"\xef\xbb\xbf": "utf-8-sig",  # Notepad, Excel
    b"\xff\xfe": "utf-16",  # PowerShell's `>`, Excel's "Unicode text"
    b"\xfe\xff": "utf-16",
}
_EXPECTED = "Expected UTF-8, or UTF-16 with a byte order mark."


def read_text(path: Path) -> str:
    """Read a list: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Another encoding is not guessed: a wrong guess would misspell the names of classes.

    Args:
        path: Of the list.

    Raises:
        FileNotFoundError: If it is not there.
        DatasetError: If it cannot be read, or is no text in these encodings.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(f"'{path}' cannot be read: {error.strerror}.") from error
    if data.startswith(b"PK\x03\x04"):
        raise DatasetError(
            f"'{path}' is a zip archive or a workbook of Excel.",
            "Expected text.",
            "Save the sheet as 'CSV UTF-8'.",
        )
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DatasetError(
            f"'{path}' cannot be read: line {line} holds the byte 0x{data[error.start]:02X}, which "
            f"is not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'}.",
            _EXPECTED,
            f"If Windows or Latin-1 wrote it, type `{_converted(path, 'WINDOWS-1252')}`.",
        ) from error
    if "\0" in text:
        raise DatasetError(
            f"'{path}' cannot be read: it holds NUL bytes.",
            _EXPECTED,
            f"If it is UTF-16 without the mark, type `{_converted(path, 'UTF-16LE')}`.",
        )
    return text


def _converted(path: Path, encoding: str) -> str:
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    names = shlex.quote(str(path)), shlex.quote(str(target))
    return f"iconv -f {encoding} -t UTF-8 {names[0]} > {names[1]}"
