"""What stands where: results beside the paper's figures, and ablations beside their base.

Everything follows from results and `paper.toml`; `vggfeat.report.typeset` shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vggfeat.recipe import Ablation, Recipe
from vggfeat.report.paper import Cell, Row, Table, cell_of, cells, published, substitutes
from vggfeat.report.result import Result, is_result

_log = logging.getLogger(__name__)

ABLATIONS = "ablations"
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One result beside a figure.

    Attributes:
        result: Its name, the stem of its file.
        score: Percent; None where there is none.
        deviation: Sample standard deviation over the splits, percent; None for one split.
        difference: Score minus the figure it stands beside, points; None where one is missing.
        weights: Of its nets, each once.
        substitutes: Why it must not stand in the paper's cell; empty for the real thing.
    """

    result: str
    score: float | None
    deviation: float | None
    difference: float | None
    weights: tuple[str, ...]
    substitutes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table of the paper with our runs.

    Attributes:
        table: The paper's.
        runs: Each with the cell that it cites, in the order of reading, then by name.
    """

    table: Table
    runs: tuple[tuple[Cell, Run], ...]

    @property
    def real(self) -> tuple[tuple[Cell, Run], ...]:
        """The runs that may stand in the paper's cells."""
        return tuple(pair for pair in self.runs if not pair[1].substitutes)

    @property
    def substituted(self) -> tuple[tuple[Cell, Run], ...]:
        """The runs that may not."""
        return tuple(pair for pair in self.runs if pair[1].substitutes)

    def of_row(self, row: Row) -> Iterator[tuple[Cell, tuple[Run, ...]]]:
        """Yield each cell of a row with its real runs."""
        for column in self.table.columns:
            cell = Cell(table=self.table, row=row, column=column)
            yield cell, tuple(run for at, run in self.real if at == cell)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One change of a base, and what came of it.

    Attributes:
        question: What is changed.
        answer: To what.
        run: Its difference is that to the base.
        fields: Of the recipe, those that do differ from the base's; empty without a base.
    """

    question: str
    answer: str
    run: Run
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """A base and everything that was changed in it.

    Attributes:
        base: Name of its result.
        run: Of the base; None if it has not been run.
        answers: By question and answer.
    """

    base: str
    run: Run | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All that the tables show.

    Attributes:
        comparisons: With the paper.
        ablations: By the name of the base; None where they were not asked for.
    """

    comparisons: tuple[Comparison, ...]
    ablations: tuple[AblationTable, ...] | None


def read_results(folder: Path) -> dict[str, Result]:
    """Read every result in a folder; JSON files that are none are left out.

    Args:
        folder: Of `<name>.json`; sub-folders are not looked into.

    Returns:
        Name → result, ordered by name.

    Raises:
        ResultError: If a file is damaged.
    """
    if not folder.is_dir():
        _log.warning("there is no folder '%s', so there are no results", folder)
    return {
        path.stem: Result.read(path).published()
        for path in sorted(folder.glob("*.json"))
        if is_result(path)
    }


def build_tables(results: Mapping[str, Result], which: str = ALL) -> Tables:
    """Decide what stands where.

    Args:
        results: By name, as from `read_results`.
        which: Number of one of the paper's tables, "ablations" or "all".

    Raises:
        ResultError: If a result cites a cell that does not exist.
    """
    cited = [(cell_of(result.recipe, f"'{name}.json'"), name) for name, result in results.items()]
    runs = [
        (cell, _run(name, results[name], cell.figure.value))
        for cell in cells()
        for own, name in cited
        if own == cell
    ]
    comparisons = tuple(
        Comparison(table=table, runs=tuple(pair for pair in runs if pair[0].table == table))
        for table in published().tables
        if which in {ALL, str(table.number)}
    )
    ablations = tuple(_ablations(results)) if which in {ALL, ABLATIONS} else None
    return Tables(comparisons=comparisons, ablations=ablations)


def _run(name: str, result: Result, beside: float | None) -> Run:
    score = None if result.score is None else 100 * result.score
    deviation = result.deviations.get(result.measure)
    return Run(
        result=name,
        score=score,
        deviation=None if deviation is None else 100 * deviation,
        difference=None if score is None or beside is None else score - beside,
        weights=tuple(dict.fromkeys(store.weights for store in result.stores)),
        substitutes=substitutes(result),
    )


def _ablations(results: Mapping[str, Result]) -> Iterator[AblationTable]:
    """Yield each base that something is changed in, ordered by name."""
    of_base: dict[str, list[tuple[Ablation, str]]] = {}
    for name, result in results.items():
        if (ablation := result.recipe.ablation) is not None:
            of_base.setdefault(ablation.base, []).append((ablation, name))
    for base, changes in sorted(of_base.items()):
        of = results.get(base)
        run = _run(base, of, None) if of else None
        answers = [
            Answer(
                question=ablation.question,
                answer=ablation.answer,
                run=_run(name, results[name], run.score if run else None),
                fields=_fields(results[name].recipe, of.recipe) if of else (),
            )
            for ablation, name in changes
        ]
        answers.sort(key=lambda one: (one.question, one.answer, one.run.result))
        yield AblationTable(base=base, run=run, answers=tuple(answers))


def _fields(recipe: Recipe, base: Recipe) -> tuple[str, ...]:
    """Return the fields in which two recipes differ, of those that change numbers."""
    ours, theirs = recipe.canonical(), base.canonical()
    return tuple(name for name in theirs if ours[name] != theirs[name])
