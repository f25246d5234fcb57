"""The paper's Tables 11 and 12 as data, and which results may stand beside their figures."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vggfeat.data.names import proxy_of
from vggfeat.errors import nearest
from vggfeat.recipe import Paper, Recipe
from vggfeat.report.result import Result, ResultError

_DATA = Path(__file__).with_name("paper.toml")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """One printed figure, percent; None for what was not printed.

    Attributes:
        value: The figure.
        deviation: The printed ±.
        starred: The figure that was printed with a *.
    """

    value: float | None = None
    deviation: float | None = None
    starred: float | None = None


class Column(_Record):
    """A column: a data set, and what the paper says of the experiments on it.

    Attributes:
        name: As printed.
        dataset: Name of the data set.
        measure: How it is scored.
        scales: S shorter sides Q, pixels.
        aggregate: How the scales become one descriptor.
        classes: Of the data set.
        splits: Over which the score is averaged.
        sizes: Of train, val and test, as far as they are known: images, of actions persons.
        server: Whether only the evaluation server has the labels of test.
    """

    name: str
    dataset: str
    measure: str
    scales: tuple[int, ...]
    aggregate: str
    classes: int
    splits: int = 1
    sizes: dict[str, int]
    server: bool = False


class Row(_Record):
    """A row: a method.

    Attributes:
        name: As printed.
        models: The paper's own nets, by our names; empty for somebody else's method.
        regions: What of each image they describe.
        figures: By the column's name; what is absent was not printed.
    """

    name: str
    models: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    figures: dict[str, Figure]


class Table(_Record):
    """A table.

    Attributes:
        number: In the paper.
        title: What it is about.
        star: What a * means.
        columns: From left to right.
        rows: From top to bottom.
    """

    number: int
    title: str
    star: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


class Published(_Record):
    """What was published.

    Attributes:
        source: Of all figures.
        settings: What the paper says of all experiments, by the fields of a recipe.
        tables: In their order.
    """

    source: str
    settings: dict[str, Any]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of a table.

    Attributes:
        table: Its table.
        row: Its row.
        column: Its column.
    """

    table: Table
    row: Row
    column: Column

    @property
    def figure(self) -> Figure:
        """What is printed there, nothing perhaps."""
        return self.row.figures.get(self.column.name, Figure())

    @property
    def name(self) -> str:
        """Where it is, in words."""
        return _cell_name(self.table.number, self.row.name, self.column.name)

    @property
    def settings(self) -> dict[str, Any]:
        """What the paper says of the experiment, by the fields of a recipe."""
        of_row = {"models": self.row.models, "regions": self.row.regions}
        own = ("dataset", "scales", "aggregate", "measure")
        of_column = {name: getattr(self.column, name) for name in own}
        return {**of_row, **of_column, **published().settings}


@cache
def published() -> Published:
    """Return the published figures."""
    return Published.model_validate(tomllib.loads(_DATA.read_text("utf-8")))


def cells() -> Iterator[Cell]:
    """Yield every cell, in the order of reading."""
    for table in published().tables:
        for row in table.rows:
            for column in table.columns:
                yield Cell(table=table, row=row, column=column)


def cell_of(recipe: Recipe, source: str) -> Cell | None:
    """Return the cell whose figure a recipe stands beside.

    Args:
        recipe: Any recipe.
        source: Where it comes from, for messages.

    Returns:
        The cell; None for a recipe that cites none, or is an ablation: that stands beside its base.

    Raises:
        ResultError: If the paper has no such cell of its own nets, or another figure there.
    """
    cited = recipe.paper
    if cited is None or recipe.ablation is not None:
        return None
    own = {cell.name: cell for cell in cells() if cell.row.models}
    name = _cell_name(cited.table, cited.row, cited.column)
    if name not in own:
        raise ResultError(
            f"{source} cites {name}: the paper has no such figure of its own nets.",
            nearest(name, own),
            "Mend its [paper].",
        )
    printed = own[name].figure
    if cited.value != printed.value or cited.deviation not in {None, printed.deviation}:
        raise ResultError(
            f"{source} cites {_printed(cited)} from {name}.",
            f"The paper has {_printed(printed)} there.",
            "Mend its [paper].",
        )
    return own[name]


def substitutes(result: Result) -> tuple[str, ...]:
    """Return every reason why a result must not stand in the paper's own cell.

    Other weights than the authors', a part of the data set, unreadable images; and, where the
    result cites a cell, all in which its experiment is not what the paper says of that cell.

    Args:
        result: Any result.

    Returns:
        The reasons in short words; none for the real thing.

    Raises:
        ResultError: If it cites a cell that does not exist.
    """
    cell = cell_of(result.recipe, f"'{result.name}'")
    found = list(departures(result.recipe, cell)) if cell else []
    found += [
        f"{store.model} with {store.substitute}" for store in result.stores if store.substitute
    ]
    found += _lacking(result)
    if unreadable := max((store.unreadable for store in result.stores), default=0):
        found.append(f"unreadable images: {unreadable:,}")
    return tuple(dict.fromkeys(found))


def departures(recipe: Recipe, cell: Cell) -> tuple[str, ...]:
    """Return in what a recipe is not the experiment of a cell, in short words.

    Args:
        recipe: Any recipe.
        cell: Of the paper.
    """
    found = []
    for field, theirs in cell.settings.items():
        ours = getattr(recipe, field)
        if field == "dataset" and proxy_of(recipe.dataset) == theirs:
            found.append("val in the place of test")
        elif not _same(ours, theirs):
            name = "" if field in {"dataset", "models"} else f"{field} "
            found.append(f"{name}{_as_text(ours)} in the place of {_as_text(theirs)}")
    return tuple(found)


def _lacking(result: Result) -> Iterator[str]:
    """Yield what of its data set a result does not run over, as far as the whole is known."""
    recipe = result.recipe
    if recipe.class_weight != "none":
        yield f"{recipe.class_weight} class weights"
    if recipe.folds or recipe.shots:
        yield f"{recipe.repeats} of its images in the place of its splits"
    if recipe.limit is not None:
        yield f"limited to {recipe.limit} images of each part"
    for dataset, column in {cell.column.dataset: cell.column for cell in cells()}.items():
        if recipe.dataset == dataset:
            yield from _smaller(result, column, {(part,): n for part, n in column.sizes.items()})
        elif proxy_of(recipe.dataset) == dataset:
            sizes = column.sizes
            yield from _smaller(
                result, column, {("train", "val"): sizes["train"], ("test",): sizes["val"]}
            )


def _smaller(result: Result, column: Column, sizes: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """Yield the differences from a data set with `sizes`, each of one part or of several."""
    if len(result.splits) != column.splits:
        yield f"{len(result.splits)} of {column.splits} splits"
    if len(result.classes) != column.classes:
        yield f"{len(result.classes)} of {column.classes} classes"
    for split in result.splits:
        for parts, size in sizes.items():
            ours = sum(split.sizes.get(part, 0) for part in parts)
            if ours != size:
                yield f"{ours:,} of {size:,} in {' and '.join(parts)}"


def _cell_name(table: int, row: str, column: str) -> str:
    return f"Table {table}, {row}, {column}"


def _printed(figure: Figure | Paper) -> str:
    spread = "" if figure.deviation is None else f" ± {figure.deviation}"
    return f"{figure.value}{spread}"


def _same(ours: object, theirs: object) -> bool:
    """Compare two settings; the order of several does not matter."""
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return sorted(map(str, ours)) == sorted(map(str, theirs))
    return ours == theirs


def _as_text(setting: object) -> str:
    """Return a setting as text, without the paths of the machine.

    >>> _as_text((256, 512)), _as_text(False), _as_text("voc:/home/me/tree")
    ('256, 512', 'off', 'voc:PATH')
    """
    if isinstance(setting, list | tuple):
        return ", ".join(map(str, setting))
    if isinstance(setting, bool):
        return "on" if setting else "off"
    kind, colon, _ = str(setting).partition(":")
    return f"{kind}:PATH" if colon else kind
