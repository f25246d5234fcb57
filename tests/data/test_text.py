from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vggfeat.data.text import read_text
from vggfeat.errors import DatasetError

TEXT = "path,label\nü.jpg,čáp\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    path.write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_text(path) == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\nb\nü".encode("latin-1"), r"line 3 holds the byte 0xFC, which is not UTF-8"),
        (b"\xff\xfea", "which is not UTF-16"),
        ("ab".encode("utf-16-le"), "it holds NUL bytes.*iconv -f UTF-16LE"),
        ("ab".encode("utf-32"), "it holds NUL bytes"),
        (b"\0\5\26\7\0\0", "it holds NUL bytes"),
        (b"PK\x03\x04\x14", "a workbook of Excel.*Save the sheet as 'CSV UTF-8'"),
    ],
)
def test_another_encoding_is_not_guessed(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        read_text(path)
    assert str(caught.value).isprintable()


def test_the_command_in_the_message_mends_the_list(tmp_path: Path) -> None:
    path = tmp_path / "my list.csv"
    path.write_bytes("ü,ß\n".encode("cp1252"))
    with pytest.raises(DatasetError) as caught:
        read_text(path)
    match = re.search(r"type `(iconv .*)`", str(caught.value))
    assert match
    subprocess.run(match[1], shell=True, check=True)  # as a user would type it
    assert read_text(tmp_path / "my list-utf8.csv") == "ü,ß\n"


def test_absence_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


@given(st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_bytes_are_text_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    try:
        assert "\0" not in read_text(path)
    except DatasetError:
        return
