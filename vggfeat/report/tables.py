"""What stands where: results beside the paper's figures, and ablations beside their base.

Everything follows from results and `paper.toml`; `vggfeat.report.typeset` shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vggfeat.classify.measures import MEASURES, companion
from vggfeat.recipe import Ablation, Recipe
from vggfeat.report.paper import Cell, Row, Table, cell_of, cells, published, substitutes
from vggfeat.report.result import Result, is_result

_log = logging.getLogger(__name__)

ABLATIONS = "ablations"
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one measure gives, percent; None where there is no such number.

    Attributes:
        measure: For people.
        value: The mean over the splits.
        deviation: Sample standard deviation over the splits; None for one split.
        interval: Low and high end of the 95 % interval.
        chance: What it is where scores are dealt to the images at random.
    """

    measure: str
    value: float | None
    deviation: float | None
    interval: tuple[float, float] | None
    chance: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One result, beside a figure or by itself.

    Attributes:
        result: Its name, the stem of its file.
        score: By its own measure.
        beside: By the measure that belongs beside that one; None if it has none.
        difference: Score minus the figure it stands beside, points; None where one is missing.
        dataset: What it ran on, the limit and the digest of the images included.
        nets: Each with its weights and what else is not the usual.
        tap: The layer that is averaged.
        scales: S shorter sides Q, pixels.
        images: Test images of the first split.
        classes: K.
        seconds: Of all steps, that of describing images where it is known.
        weights: Of its nets, each once.
        substitutes: Why it must not stand in the paper's cell; empty for the real thing.
        imitated: Whether a net of it has random weights or is a thin one.
    """

    result: str
    score: Score
    beside: Score | None
    difference: float | None
    dataset: str
    nets: tuple[str, ...]
    tap: str
    scales: tuple[int, ...]
    images: int
    classes: int
    seconds: float
    weights: tuple[str, ...]
    substitutes: tuple[str, ...]
    imitated: bool


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
        comparisons: With the paper, of trained nets.
        ablations: By the name of the base; None where they were not asked for.
        others: Runs of trained nets that stand beside no figure, by data set, nets and name.
        imitations: Runs of random weights or thin nets, which reproduce nothing, in that order.
    """

    comparisons: tuple[Comparison, ...]
    ablations: tuple[AblationTable, ...] | None
    others: tuple[Run, ...] = ()
    imitations: tuple[Run, ...] = ()


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
    cited = {name: cell_of(result.recipe, f"'{name}.json'") for name, result in results.items()}
    beside = {
        name: _run(name, result, _figure(result, cited[name]))
        for name, result in results.items()
        if result.recipe.ablation is None
    }
    runs = [
        (cell, run)
        for cell in cells()
        for name, run in beside.items()
        if cited[name] == cell and not run.imitated
    ]
    comparisons = tuple(
        Comparison(table=table, runs=tuple(pair for pair in runs if pair[0].table == table))
        for table in published().tables
        if which in {ALL, str(table.number)}
    )
    ordered = sorted(beside.values(), key=lambda run: (run.dataset, run.nets, run.result))
    alone = ordered if which == ALL else []
    return Tables(
        comparisons=comparisons,
        ablations=tuple(_ablations(results)) if which in {ALL, ABLATIONS} else None,
        others=tuple(run for run in alone if not run.imitated and cited[run.result] is None),
        imitations=tuple(run for run in alone if run.imitated),
    )


def _figure(result: Result, cell: Cell | None) -> float | None:
    """Return the figure that a result may be compared with; None for what reproduces nothing."""
    return None if cell is None or _imitated(result) else cell.figure.value


def _imitated(result: Result) -> bool:
    return any(store.imitated for store in result.stores)


def _run(name: str, result: Result, beside: float | None) -> Run:
    recipe, score = result.recipe, _score(result, result.measure)
    other = companion(result.measure)
    return Run(
        result=name,
        score=score,
        beside=_score(result, other) if other in result.means else None,
        difference=None if score.value is None or beside is None else score.value - beside,
        dataset=_dataset(result),
        nets=tuple(dict.fromkeys(f"{s.model} with {s.named_weights}" for s in result.stores)),
        tap=", ".join(recipe.tap),
        scales=recipe.scales,
        images=result.splits[0].sizes.get("test", 0),
        classes=len(result.classes),
        seconds=sum(result.seconds.values()),
        weights=tuple(dict.fromkeys(store.named_weights for store in result.stores)),
        substitutes=substitutes(result),
        imitated=_imitated(result),
    )


def _score(result: Result, measure: str) -> Score:
    interval = result.intervals.get(measure)
    value = result.score if measure == result.measure else result.means[measure]
    return Score(
        measure=MEASURES[measure].label if measure in MEASURES else measure,
        value=_percent(value),
        deviation=_percent(result.deviations.get(measure)),
        interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
        chance=_percent(result.chance.get(measure)),
    )


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _dataset(result: Result) -> str:
    """Return the data set's name, what part of it was used, and the digest of the images."""
    limit = result.recipe.limit
    found = [result.recipe.dataset, f"limited to {limit} images of each part" if limit else ""]
    digest = next((store.manifest_sha256 for store in result.stores), None)
    found.append(f"sha256 {digest[:8]}…" if digest else "")
    return ", ".join(filter(None, found))


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
                run=_run(name, results[name], run.score.value if run else None),
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
