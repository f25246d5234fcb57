"""Results files of the VOC devkit: written, packed for the evaluation server, checked and read.

Devkit documentation of 18 May 2012: one file for each class, one line for each image of the test
list (classification) or for each of its persons (action), with a confidence at the end.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vggfeat.classify.measures import Doubles, Scores
from vggfeat.errors import VggfeatError, nearest

ROOT = "results/VOC2012"
_MOST_LINES = 20_000  # of a file; the longest test list has 10,991
_SHOWN = 60  # characters of a line in a message
_FILE = re.compile(r"comp([1-9][0-9]?)_([a-z]+)_([a-z0-9]+)_([A-Za-z0-9]+)\.txt")
_OBJECT = re.compile(r"[1-9][0-9]{0,5}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


class SubmissionError(VggfeatError, ValueError):
    """A results file or an archive of them is not what the devkit or the server takes."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the challenge's tasks that want a confidence for each image, or for each person.

    Attributes:
        folder: Of its files, below `results/VOC2012`.
        kind: In the names of its files, "cls" or "action".
        competitions: Numbers of its competitions: for methods that have seen only VOC's training
            images, and for those that have seen others, such as ImageNet's.
        classes: K names.
        size: Lines of a file, as far as the size of the official test list is known.
        certain: Whether that size is published; one that is not refuses nothing.
        ids: n ids of the official test list, `image` or `image/object`; None if it is not here.
    """

    folder: str
    kind: Literal["cls", "action"]
    competitions: tuple[int, int]
    classes: tuple[str, ...]
    size: int
    certain: bool = True
    ids: tuple[str, ...] | None = None

    @property
    def unit(self) -> str:
        """What a line is about."""
        return "persons" if self.kind == "action" else "images"

    def doubt(self, ids: Sequence[str]) -> str:
        """Say in what a list is not as long as the official one; nothing if it is.

        Args:
            ids: Of the list.
        """
        if len(ids) == self.size:
            return ""
        return f"{_count(len(ids), self.unit)}; the official list has {self.said_size}"

    @property
    def said_size(self) -> str:
        """The size of the official list, in words."""
        return f"{self.size:,}{'' if self.certain else ', a figure that could not be verified'}"

    def file(self, competition: int, name: str) -> str:
        """Return the place of one class's file in an archive."""
        return f"{ROOT}/{self.folder}/comp{competition}_{self.kind}_test_{name}.txt"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check has found.

    Attributes:
        level: An "error" is what the server refuses or scores wrongly.
        where: The file, or the competition.
        message: What is wrong there, and what was expected.
    """

    level: Literal["error", "warning", "note"]
    where: str
    message: str


def results_files(task: Task, ids: Sequence[str], scores: Scores) -> dict[str, bytes]:
    """Write the results files of a method that has seen other data than VOC's.

    Confidences are written with all digits that their value needs, so that no two become equal.

    Args:
        task: Says the names.
        ids: n ids, `image` or `image/object`.
        scores: (n, K) float64, finite.

    Returns:
        Place in the archive → content.
    """
    return {
        task.file(task.competitions[1], name): "".join(
            f"{i.replace('/', ' ')} {score!r}\n"
            for i, score in zip(ids, scores[:, k].tolist(), strict=True)
        ).encode()
        for k, name in enumerate(task.classes)
    }


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a .tar.gz of some files; equal files give equal bytes, whenever they are packed."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)  # owner 0, time 0
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def read_scores(path: Path, ids: Sequence[str]) -> Doubles:
    """Read a results file as the devkit does before it measures (VOCevalcls.m, VOCevalaction.m).

    Every image starts at −inf; of a repeated one the last line counts; one without a line keeps
    −inf and so ranks last. Deviates: a confidence must be a finite number.

    Args:
        path: Of the results file.
        ids: n ids, `image` or `image/object`, in the order of the ground truth.

    Returns:
        (n,) float64 in that order, as `average_precision` takes them.

    Raises:
        SubmissionError: If it cannot be read, a line makes no sense or an id is unknown, or the
            ground truth has an id twice.
    """
    row_of = {i: row for row, i in enumerate(ids)}
    if len(row_of) != len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise SubmissionError(f"The ground truth has {twice!r} twice.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SubmissionError(f"'{path}' cannot be read: {error.strerror}.") from error
    lines = _lines(data, persons=any("/" in i for i in ids))
    if lines.faults:
        raise SubmissionError(f"'{path}': {' '.join(lines.faults)}")
    scores = np.full(len(ids), -np.inf)
    for i, confidence in zip(lines.ids, lines.confidences, strict=True):
        if i not in row_of:
            raise SubmissionError(f"'{path}' has {i!r}, which the ground truth has not.")
        scores[row_of[i]] = confidence
    return scores


def check(files: Mapping[str, bytes], tasks: Sequence[Task]) -> tuple[Finding, ...]:
    """Check the files of an archive for the evaluation server; nothing is trusted.

    What belongs to no task is an error: the results of other tasks are not known here.

    Args:
        files: Name → content of every file of the archive.
        tasks: What may be in it.

    Returns:
        Everything that was found, not only the first; no error among it if the server takes it.
    """
    findings = []
    found: dict[tuple[int, int], dict[str, bytes]] = {}
    for name, content in files.items():
        try:
            number, competition, label = _placed(name, tasks)
        except SubmissionError as error:
            findings.append(Finding(level="error", where=f"'{name}'", message=str(error)))
        else:
            found.setdefault((number, competition), {})[label] = content
    if not found:
        expected = " or ".join(task.file(task.competitions[1], "<class>") for task in tasks)
        message = f"It holds no results file of the test set. Expected {expected}."
        findings.append(Finding(level="error", where="the archive", message=message))
    for (number, competition), of_class in sorted(found.items()):
        findings += _check_competition(tasks[number], competition, of_class)
    return tuple(findings)


def _placed(name: str, tasks: Sequence[Task]) -> tuple[int, int, str]:
    """Return the task's number, the competition and the class of a file."""
    folder, _, file = name.rpartition("/")
    folders = {f"{ROOT}/{task.folder}": number for number, task in enumerate(tasks)}
    if folder not in folders:
        raise SubmissionError("It is in no folder of such results.", f"Expected {_or(folders)}.")
    task = tasks[folders[folder]]
    match = _FILE.fullmatch(file)
    if match is None or match[2] != task.kind:
        pattern = task.file(task.competitions[1], "<class>").rpartition("/")[2]
        raise SubmissionError("It has no name of such results.", f"Expected {pattern}.")
    if int(match[1]) not in task.competitions:
        expected = _or(f"comp{n}" for n in reversed(task.competitions))
        raise SubmissionError(f"comp{match[1]} is another competition.", f"Expected {expected}.")
    if match[3] != "test":
        raise SubmissionError(f"Its scores are of {match[3]!r}.", "Expected those of 'test'.")
    if match[4] == "other":
        raise SubmissionError("'other' is no class that is measured.", "Leave its file out.")
    if match[4] not in task.classes:
        raise SubmissionError(f"Unknown class {match[4]!r}.", nearest(match[4], task.classes))
    return folders[folder], int(match[1]), match[4]


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)


def _check_competition(
    task: Task, competition: int, of_class: Mapping[str, bytes]
) -> list[Finding]:
    where, findings = f"comp{competition}", []
    missing = [name for name in task.classes if name not in of_class]
    if missing:
        message = f"{len(missing)} of {len(task.classes)} classes have no file: "
        findings.append(Finding(level="error", where=where, message=message + ", ".join(missing)))
    own, other = task.competitions
    if competition == own:
        message = "It is for methods that have seen only VOC's training images. "
        message += f"Nets trained on ImageNet belong to comp{other}."
        findings.append(Finding(level="warning", where=where, message=message))
    read = {name: _lines(data, persons=task.kind == "action") for name, data in of_class.items()}
    ids = _most_files_ids(read.values()) if task.ids is None else task.ids
    for name, lines in read.items():
        place = f"'{task.file(competition, name)}'"
        findings += [Finding(level="error", where=place, message=m) for m in _faults(lines, ids)]
        if tied := _ties(lines):
            message = f"{tied:,} confidences are equal to another image's, so that the order of "
            message += "the test list decides. Write more digits, as %.17g does."
            findings.append(Finding(level="warning", where=place, message=message))
    message = f"{_count(len(of_class), 'files')}, {_count(len(ids), task.unit)}, "
    level: Literal["warning", "note"] = "note"
    if task.ids is not None:
        message += "compared with the official list."
    else:
        message += "compared with each other only: the official list is not here."
        if len(ids) != task.size:
            level = "warning"
            message += f" It has {task.said_size}."
    return [*findings, Finding(level=level, where=where, message=message)]


def _faults(lines: _Lines, ids: Sequence[str]) -> list[str]:
    """Say what is wrong with one file."""
    if not lines.ids and not lines.faults:
        return ["It is empty."]
    known, seen = set(ids), Counter(lines.ids)
    kinds = {
        "unknown": [i for i in seen if i not in known],
        "missing": [i for i in ids if i not in seen],
        "there more than once": [i for i, count in seen.items() if count > 1],
    }
    return [
        *lines.faults,
        *(
            f"{_count(len(found), 'ids')} {'is' if len(found) == 1 else 'are'} {kind}, "
            f"the first is {_short(found[0])}."
            for kind, found in kinds.items()
            if found
        ),
    ]


def _most_files_ids(files: Iterable[_Lines]) -> list[str]:
    """Return the ids that most of the files have, since the others are likelier to be wrong."""
    of_set = {frozenset(lines.ids): lines.ids for lines in files}
    votes = Counter(frozenset(lines.ids) for lines in files)
    chosen = max(votes, key=lambda found: (votes[found], len(found)))
    return list(dict.fromkeys(of_set[chosen]))


def _ties(lines: _Lines) -> int:
    """Count equal confidences of different images; the persons of one image may well share one."""
    pairs = {
        (confidence, i.partition("/")[0])
        for i, confidence in zip(lines.ids, lines.confidences, strict=True)
        if math.isfinite(confidence)
    }
    shared = Counter(confidence for confidence, _ in pairs)
    return sum(count for count in shared.values() if count > 1)


# --- lines --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """The lines of a results file.

    Attributes:
        ids: `image` or `image/object` of each line that has one.
        confidences: Of each of these; NaN if it is no finite number.
        faults: What is wrong with the lines, a sentence for each kind.
    """

    ids: list[str]
    confidences: list[float]
    faults: list[str]


def _lines(data: bytes, *, persons: bool) -> _Lines:
    columns = 3 if persons else 2
    ids, confidences = [], []
    faulty: dict[str, list[str]] = {}
    rows = data.split(b"\n")
    for number, row in enumerate(rows[:_MOST_LINES], 1):
        words, fault = [word.decode("ascii", "replace") for word in row.split()], None
        if not words:
            continue
        if len(words) != columns:
            fault = f"Not {columns} columns"
        elif persons and not _OBJECT.fullmatch(words[1]):
            fault = "No object number, from 1,"
        else:
            confidence, fault = _confidence(words[-1])
            ids.append("/".join(words[:-1]))
            confidences.append(confidence)
        if fault:
            faulty.setdefault(fault, []).append(f"line {number}: {_short(' '.join(words))}")
    faults = [
        f"{fault} in {_count(len(places), 'lines')}, the first is {places[0]}."
        for fault, places in faulty.items()
    ]
    if len(rows) > _MOST_LINES + 1:
        faults.append(f"{len(rows):,} lines; only the first {_MOST_LINES:,} were read.")
    return _Lines(ids=ids, confidences=confidences, faults=faults)


def _confidence(word: str) -> tuple[float, str | None]:
    """Return the number, or NaN and why there is none."""
    if not _NUMBER.fullmatch(word) and not _NO_NUMBER.fullmatch(word):
        return math.nan, "No number as confidence"
    if not math.isfinite(float(word)):
        return math.nan, "A confidence that is not finite"
    return float(word), None


def _count(count: int, unit: str) -> str:
    return f"{count:,} {unit if count != 1 else unit.removesuffix('s')}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
