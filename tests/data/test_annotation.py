from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.data.annotation import is_difficult, object_name, read_objects
from vggfeat.errors import DatasetError


def read(folder: Path, data: str | bytes) -> list[tuple[str, bool]]:
    path = folder / "a.xml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [(object_name(one, path), is_difficult(one, path)) for one in read_objects(path)]


def one(inside: str) -> str:
    return f"<annotation><object>{inside}</object></annotation>"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("<annotation/>", []),
        (one("<name>cat</name>"), [("cat", False)]),
        (one("<name>\n\tcat </name><difficult> 1 </difficult>"), [("cat", True)]),
        (one("<name>traffic light</name><difficult/>"), [("traffic light", False)]),
        (
            one("<name>a</name><part><name>head</name></part><difficult>0</difficult>"),
            [("a", False)],
        ),
        (
            '<annotation xmlns="http://x/y"><object><name>cat</name><difficult>True</difficult>'
            "</object></annotation>",
            [("cat", True)],
        ),
        (
            '<v:annotation xmlns:v="u"><v:object><v:name>cat</v:name></v:object></v:annotation>',
            [("cat", False)],
        ),
        ("\ufeff" + one("<name>čáp</name>"), [("čáp", False)]),
        (
            f'<?xml version="1.0" encoding="ISO-8859-1"?>{one("<name>ü</name>")}'.encode("latin-1"),
            [("ü", False)],
        ),
        (
            f'<?xml version="1.0" encoding="utf-16"?>{one("<name>ü</name>")}'.encode("utf-16"),
            [("ü", False)],
        ),
        ("<!-- by hand -->" + one("<!-- a cat --><name>cat</name>"), [("cat", False)]),
        (one("<name>a</name></object><object><name>b</name>"), [("a", False), ("b", False)]),
    ],
)
def test_objects_are_read_as_tools_write_them(
    tmp_path: Path, data: str | bytes, found: list[tuple[str, bool]]
) -> None:
    assert read(tmp_path, data) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("<!DOCTYPE annotation><annotation/>", "it has a DOCTYPE .*Take it out of the file"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "it has a DOCTYPE"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "it has a DOCTYPE"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "Expected XML in UTF-8"),
        ('{"objects": []}', "no sound annotation"),
        (one(""), "an object has no name"),
        (one("<name> </name>"), "an object has no name"),
        (one("<name>cat</name><difficult>2</difficult>"), "is difficult '2'. Expected 0 or 1"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, data)
