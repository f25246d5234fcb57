"""One HTML page of a result, self-contained: it loads nothing, and works without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment

from vggfeat.classify.confidence import LEVEL
from vggfeat.classify.measures import MEASURES, companion
from vggfeat.files.publish import publish_bytes
from vggfeat.recipe import Recipe
from vggfeat.report.pictures import INKS, Pictures, heat_map
from vggfeat.report.plots import Curve, confusion_shares, confusions, curve, search, shots
from vggfeat.report.result import ClassResult, Result
from vggfeat.report.templates import environment
from vggfeat.report.verdicts import Kind, kinds_of, rule_of, words_of

_NONE = "–"
_FEW = 24  # classes whose examples all fit on a page, and whose confusions fit into a table


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One class on the page.

    Attributes:
        key: Of its section.
        record: Its numbers.
        curve: None where it has none.
        kinds: Its examples by their kind; None if it is not shown one by one.
    """

    key: str
    record: ClassResult
    curve: Curve | None
    kinds: list[Kind] | None


def write_page(result: Result, path: Path, image: Callable[[str], bytes] | None = None) -> None:
    """Write the page of a result; the same result and pictures give the same bytes.

    Args:
        result: What the page shows, and all it is made of but the pictures.
        path: Of the page.
        image: Gives the bytes of a test image by id, or raises OSError or KeyError, and the image
            is shown without its picture; None for a page without pictures.

    Raises:
        PublishError: If it cannot be written.
    """
    page = _environment().get_template("page.html.j2").render(_context(result.published(), image))
    publish_bytes(path, page.encode("utf-8", "replace"))  # an id from a file name may not be UTF-8


def _context(result: Result, image: Callable[[str], bytes] | None) -> dict[str, Any]:
    """Return what the template shows."""
    fields = _measured(result)
    field = _field(result.measure, fields)
    beside = companion(result.measure)
    places = sorted(
        range(len(result.classes)), key=lambda k: _descending(_value(result.classes[k], field))
    )
    ranked = [result.classes[k] for k in places]
    shown, selection = _selected(ranked, field)
    kinds = {k: kinds_of(result, places[k]) for k in shown}
    pictures = Pictures(image)
    examples = [s.example for k in sorted(kinds) for kind in kinds[k] for s in kind.shots]
    return {
        "result": result,
        "first": result.splits[0],
        "measure": MEASURES[result.measure].label if result.measure in MEASURES else result.measure,
        "substitute": None if field == result.measure else _column(field),
        "level": LEVEL,
        "beside": beside if beside in result.means else None,
        "field": field,
        "fields": fields,
        "column": _column,
        "rows": [
            _Row(
                key=f"class{k}",
                record=record,
                curve=curve(record.curve) if record.curve else None,
                kinds=kinds.get(k),
            )
            for k, record in enumerate(ranked)
        ],
        "many": len(ranked) > _FEW,
        "selection": selection,
        "rule": rule_of(result),
        "words": words_of(result, kinds.values()),
        "weights": list(dict.fromkeys(store.named_weights for store in result.stores)),
        "imitated": any(store.imitated for store in result.stores),
        "chosen": sorted(Counter(record.c for record in result.classes).items()),
        "search": search(result.splits),
        "shots": shots(result),
        "repeats": result.recipe.repeats,
        "confusion": _confusion(result) if result.confusion else None,
        "date": result.date and result.date.replace("T", " ").replace("Z", " UTC"),
        "thumbnails": {example.id: picture for example, picture in pictures.of(examples)},
        "pictures": pictures,
        "recipe": result.recipe,
        "toml": _toml(result.recipe),
    }


def _confusion(result: Result) -> dict[str, Any]:
    """Return the matrix, as numbers or as a picture, and the most frequent mistakes."""
    shares = confusion_shares(result)
    small = len(result.classes) <= _FEW
    return {
        "names": [record.name for record in result.classes],
        "counts": {(true, predicted): n for true, predicted, n in result.confusion},
        "shares": shares.tolist() if small else None,
        "picture": None if small else heat_map(shares),
        "inks": INKS,
        "unscored": sum(n for _, predicted, n in result.confusion if predicted < 0),
        "mistakes": confusions(result),
    }


# Numbers and text


def _finite(value: object) -> float | None:
    """Return a number, or None for what has no value."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _value(record: ClassResult, field: str) -> float | None:
    return _finite(record.values.get(field))


def _measured(result: Result) -> list[str]:
    """Return the measures that some class has a number of; the experiment's own if none has."""
    names = dict.fromkeys(name for record in result.classes for name in record.values)
    known = [n for n in names if any(_value(record, n) is not None for record in result.classes)]
    return known or [result.measure]


def _field(measure: str, fields: Sequence[str]) -> str:
    """Return the measure whose numbers of classes are shown: those of the experiment's own."""
    own = MEASURES[measure].over_images_of if measure in MEASURES else None
    return next((name for name in fields if name in {measure, own}), fields[0])


def _column(name: str) -> str:
    """Return what heads the numbers of one class; a measure may be of another version's."""
    return MEASURES[name].column if name in MEASURES else name


def _descending(value: float | None) -> float:
    return math.inf if value is None else -value


def _number(value: object, form: str = "g", factor: float = 1) -> str:
    """Return `factor` times a number in format `form`, "–" where there is none.

    >>> _number(0.8934, ".1f", 100), _number(float("nan")), _number(-1.5)
    ('89.3', '–', '−1.5')
    """
    number = _finite(value)
    return _NONE if number is None else format(factor * number, form).replace("-", "−")


def _percent(value: object) -> str:
    return _number(value, ".1f", 100)


def _span(interval: tuple[float, float] | None) -> str:
    """Return an interval as percentages.

    >>> _span((0.8731, 0.9)), _span(None)
    ('87.3 to 90.0', '–')
    """
    return _NONE if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}"


def _size(count: int) -> str:
    """Return a number of bytes as text.

    >>> _size(512), _size(50_000), _size(816_500_000)
    ('512 B', '50.0 kB', '816.5 MB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{count} B"


def _sort_key(value: object) -> str:
    number = _finite(value)
    return "" if number is None else repr(number)


def _setting(value: object) -> str:
    """Return one value of a recipe as text.

    >>> _setting((256, 384)), _setting(True), _setting(None), _setting({"b": 1})
    ('256, 384', 'true', '–', '{"b": 1}')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_setting(part) for part in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return _NONE if value is None or _finite(value) is None else str(value)


def _toml(recipe: Recipe) -> str:
    """Return a recipe as the file that makes it again; TOML has no word for None."""

    def without_none(value: Any) -> Any:  # noqa: ANN401  (whatever a recipe holds)
        if isinstance(value, dict):
            return {k: without_none(v) for k, v in value.items() if v is not None}
        if isinstance(value, list | tuple):
            return [without_none(part) for part in value if part is not None]
        return value

    return tomli_w.dumps(without_none(recipe.model_dump(mode="json")))


def _tail(image: str) -> str:
    """Return the last two parts of an image's id: a folder of images is named after their class."""
    return "/".join(image.split("/")[-2:])


def _script_hash(script: str) -> str:
    """Return a script's source expression for Content-Security-Policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _environment() -> Environment:
    pages = environment()
    pages.filters |= {
        "percent": _percent,
        "span": _span,
        "num": _number,
        "size": _size,
        "sort_key": _sort_key,
        "setting": _setting,
        "tail": _tail,
        "script_hash": _script_hash,
    }
    return pages


def _selected(ranked: Sequence[ClassResult], field: str) -> tuple[list[int], str]:
    """Return the ranks of the classes shown one by one, and a sentence if those are not all."""
    if len(ranked) <= _FEW:
        return list(range(len(ranked))), ""
    known = [k for k, record in enumerate(ranked) if _value(record, field) is not None]
    if len(known) <= _FEW:
        return known, f"Of {len(ranked)} classes, the {len(known)} that have a number."
    half = _FEW // 2
    text = f"Of {len(ranked)} classes, the {half} best and the {half} worst by {_column(field)}."
    return known[:half] + known[-half:], text
