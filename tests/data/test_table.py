from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vggfeat.data.columns import is_known
from vggfeat.data.table import SEPARATORS, Table, read_table
from vggfeat.errors import DatasetError


def read(folder: Path, text: str, encoding: str = "utf-8") -> Table:
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return read_table(path, is_known)


CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(str.strip)


@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=5),
    st.sampled_from(sorted(SEPARATORS)),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_what_was_written_is_read(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    separator: str,
    encoding: str,
    newline: str,
    announced: bool,
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerows([("path", "label"), *rows])
    first = f"sep={separator}\r\n" if announced else ""
    table = read(tmp_path, first + text.getvalue(), encoding)
    assert table.separator == separator
    assert table.names == ("path", "label")
    assert [cells for _, cells in table.rows] == rows


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    table = read(tmp_path, '\npath,label\n\na,"b\nc"\n,,\n \nd,e\n')
    assert table.rows == ((5, ("a", "b\nc")), (8, ("d", "e")))
    assert read(tmp_path, "sep=,\npath,label\na,b\n").rows == ((3, ("a", "b")),)


@pytest.mark.parametrize(
    ("head", "separator"),
    [
        ("path,label", ","),
        ("path;label;a,b", ";"),
        ("File Name\tclass", "\t"),
        ("x;y", ";"),
        ("x", ","),
        ("label,a;b;c;d", ","),  # the names count more than the cells
    ],
)
def test_the_header_tells_the_separator(tmp_path: Path, head: str, separator: str) -> None:
    assert read(tmp_path, f"{head}\n").separator == separator


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na\n", "line 2: another number of columns than the header, 1. Expected 2"),
        ("path,label\na,b\na,b,c\n", "line 3: another number of columns than the header, 3"),
        ('path,label\n"a,b\n', "no CSV file: unexpected end of data.*Mend the quotes"),
        ("a" * 200_000, "no CSV file: field larger than field limit"),
    ],
)
def test_a_line_of_other_cells_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, text)
