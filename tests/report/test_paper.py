"""The published numbers as data: against the specification, the catalogue and the recipes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vggfeat.data.catalogue import published_dataset
from vggfeat.recipe import Recipe
from vggfeat.report.paper import Cell, Figure, cell_of, cells, departures, published
from vggfeat.report.result import ResultError

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "pipelines" / "real"  # real nets that are not whole, and say what they lack
RECIPES = sorted(set((ROOT / "pipelines").rglob("*.toml")) - set(REAL.rglob("*.toml")))
OWN = {cell.name: cell for cell in cells() if cell.row.models}
COLUMNS = {cell.column.dataset: cell.column for cell in cells()}

D, E, BOTH = "VGG Net-D (16)", "VGG Net-E (19)", "VGG Net-D & Net-E"
VOC07, VOC12, ACTION = "VOC-2007 mAP", "VOC-2012 mAP", "VOC-2012 action mAP"
C101, C256 = "Caltech-101 mean class recall", "Caltech-256 mean class recall"


@pytest.fixture(scope="module")
def specification(shared: Path) -> str:
    return (shared.parent / "spec" / "paper.md").read_text("utf-8")


def section(text: str, number: str) -> str:
    """Return one section of the specification, without what is bold."""
    match = re.search(rf"^### {re.escape(number)} .*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert match, number
    return match[0].replace("**", "")


def pipe_rows(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table's rows, head and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def figure(text: str) -> Figure:
    """Return what "91.8 ± 1.0", "81.5 (85.2*)", "70.2*" or "–" says."""
    match = re.fullmatch(
        r"–|(?P<value>\d+\.\d)?(?: ± (?P<deviation>\d\.\d))?(?: ?\(?(?P<starred>\d+\.\d)\*\)?)?",
        text,
    )
    assert match, text
    return Figure.model_validate(match.groupdict())


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        *((D, VOC07, "89.3"), (D, VOC12, "89.0"), (D, C101, "91.8 ± 1.0"), (D, C256, "85.0 ± 0.2")),
        *((E, VOC07, "89.3"), (E, VOC12, "89.0"), (E, C101, "92.3 ± 0.5"), (E, C256, "85.1 ± 0.3")),
        *((BOTH, VOC07, "89.7"), (BOTH, VOC12, "89.3")),
        *((BOTH, C101, "92.7 ± 0.5"), (BOTH, C256, "86.2 ± 0.3")),
        (f"{BOTH}, image-only", ACTION, "79.2"),
        (f"{BOTH}, image and bounding box", ACTION, "84.0"),
    ],
)
def test_the_papers_own_figures(row: str, column: str, expected: str) -> None:
    [cell] = [c for c in OWN.values() if (c.row.name, c.column.name) == (row, column)]
    assert cell.figure == figure(expected)
    assert cell.table.number == (12 if column == ACTION else 11)


def test_there_are_no_other_figures_of_its_own() -> None:
    assert len(OWN) == 14
    assert all(cell.figure.value for cell in OWN.values())


def test_table_11_is_that_of_the_specification(specification: str) -> None:
    expected = pipe_rows(section(specification, "1.11"))
    table = published().tables[0]
    assert len(table.rows) == len(expected) == 7
    for row, (name, *figures) in zip(table.rows, expected, strict=True):
        author = row.name.removesuffix("2013").removesuffix("2014").split(" et al")[0].strip()
        assert name.startswith(author)
        printed = [row.figures.get(column.name, Figure()) for column in table.columns]
        assert printed == [figure(text) for text in figures], name
    head = next(line for line in specification.splitlines() if f"| {VOC07} |" in line)
    assert [cell.strip() for cell in head.strip("|").split("|")][1:] == [
        column.name for column in table.columns
    ]


def test_table_12_is_that_of_the_specification(specification: str) -> None:
    line = section(specification, "1.12").splitlines()[1]
    expected = [entry.split() for entry in line.partition(". `*`")[0].split(" ; ")]
    [rows] = [table.rows for table in published().tables if table.number == 12]
    assert len(rows) == len(expected) == 5
    for row, (author, *_, value) in zip(rows, expected, strict=True):
        assert row.name.startswith(author)
        assert row.figures == {ACTION: figure(value)}
    assert "1512 classes" in line
    assert "1512 classes" in published().tables[1].star


def test_the_sizes_are_those_of_the_specification(specification: str) -> None:
    rows = {name: row for name, *row in pipe_rows(section(specification, "3.4"))}

    def numbers(name: str, column: int = 0) -> list[int]:
        return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", rows[name][column])]

    train, val, both = numbers("VOC2007 train / val / trainval")
    [test] = numbers("VOC2007 test")
    assert COLUMNS["voc2007"].sizes == {"train": train, "val": val, "test": test}
    assert train + val == both
    train, val, both = numbers("VOC2012 Main train / val / trainval")
    [test] = numbers("VOC2012 Main test")
    assert COLUMNS["voc2012"].sizes == {"train": train, "val": val, "test": test}
    train, val, both = numbers("VOC2012 Action train / val / trainval", 1)
    assert COLUMNS["voc2012-action"].sizes == {"train": train, "val": val}
    assert train + val == both


def test_the_sizes_are_those_of_the_catalogue_and_of_the_protocol() -> None:
    for name in ("voc2007", "voc2012"):
        lists = published_dataset(name).lists
        for part in ("train", "val"):
            assert COLUMNS[name].sizes[part] == lists[f"ImageSets/Main/{part}.txt"]
    for name, train in (("caltech101", 30), ("caltech256", 60)):
        column, whole = COLUMNS[name], published_dataset(name)
        assert column.classes == whole.class_count
        assert column.sizes["val"] == column.classes * train // 5
        assert column.sizes["train"] + column.sizes["val"] == column.classes * train
    assert sum(COLUMNS["caltech256"].sizes.values()) == published_dataset("caltech256").image_count


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_sizes_of_caltech_101_are_those_of_its_lists(number: int) -> None:
    with (ROOT / "datasets" / "caltech101" / f"split{number}.csv").open() as file:
        parts = Counter(row["split"] for row in csv.DictReader(file))
    assert COLUMNS["caltech101"].sizes == parts


@pytest.mark.parametrize("cell", OWN.values(), ids=lambda cell: cell.name)
def test_what_the_paper_says_is_a_recipe_with_our_defaults(cell: Cell) -> None:
    """But for the fields that name the experiment, the defaults are the paper's."""
    given = {"dataset": cell.column.dataset, "models": cell.row.models, "regions": cell.row.regions}
    assert departures(Recipe.build(given, "a test"), cell) == ()
    changed = {"mirror": False, "tap": "fc6", "precision": "int8", "aggregate": "max"}
    assert len(departures(Recipe.build(given | changed, "a test"), cell)) == 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_cites_what_the_paper_says(path: Path) -> None:
    recipe = Recipe.from_toml(path)
    cell = cell_of(recipe, f"'{path}'")
    assert (cell is None) == (recipe.paper is None or recipe.ablation is not None)
    if cell is not None:
        told = {"val in the place of test"}
        others = [text for text in departures(recipe, cell) if text not in told]
        assert all("-thin" in text for text in others), others


@pytest.mark.parametrize("path", sorted(REAL.glob("caltech101-*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_a_real_net_differs_from_its_cell_only_in_what_its_name_says(
    path: Path,
) -> None:
    recipe = Recipe.from_toml(path)
    cell = cell_of(recipe, f"'{path}'")
    assert cell is not None
    fields = {"scales": "256-384-512" not in path.stem, "tap": recipe.tap != ("fc7",)}
    fields["precision"] = path.stem.endswith("bfloat16")
    assert {text.partition(" ")[0] for text in departures(recipe, cell)} == {
        name for name, differs in fields.items() if differs
    }


CITED = {"table": 11, "row": D, "column": C101, "value": 91.8, "deviation": 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"row": "VGG Net-D"}, f"Did you mean 'Table 11, {D}, {C101}'"),
        ({"row": "He et al. 2014", "value": 93.4}, "no such figure of its own nets"),
        ({"table": 12}, "no such figure of its own nets"),
        ({"value": 91.9}, "cites 91.9 ± 1.0"),
        ({"deviation": 0.5}, r"The paper has 91.8 ± 1.0 there"),
    ],
)
def test_what_the_paper_does_not_say_cannot_be_cited(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ResultError, match=re.escape(said)):
        cell_of(citing(CITED | change), "'a.toml'")


def citing(paper: dict[str, Any] | None, **fields: object) -> Recipe:
    values = {"dataset": "caltech101", "models": ["vgg16"], "paper": paper, **fields}
    return Recipe.build(values, "a test")


def test_a_citation_leads_to_its_cell() -> None:
    cell = cell_of(citing(CITED), "'a.toml'")
    assert cell is not None
    assert cell.name == f"Table 11, {D}, {C101}"
    assert cell_of(citing(CITED | {"deviation": None}), "'a.toml'") == cell
    assert cell_of(citing(None), "'a.toml'") is None
    ablated = {"base": "b", "question": "q", "answer": "a"}
    assert cell_of(citing(CITED, ablation=ablated), "'a.toml'") is None


def test_only_voc_2012_needs_the_server() -> None:
    needing = {name for name, column in COLUMNS.items() if column.server}
    assert needing == {"voc2012", "voc2012-action"}
