"""One HTML page of a result, self-contained: it loads nothing, and works without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image, ImageOps

from vggfeat.publish import publish_bytes
from vggfeat.report.result import ClassResult, Example, Result

_NONE = "–"
_FEW = 24  # classes whose curves and examples all fit on a page
_EXAMPLES = 6  # of each kind for a class
_THUMBNAIL = 160  # longer side, pixels
_QUALITY = 80  # JPEG
_ROOM = 4_000_000  # base64 characters of pictures: pages over 5 MB are slow on a phone
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_NAME_LENGTH = 22  # characters of a class name that fit beside the bars

_FIELDS = {
    "voc2007": "AP VOC 2007",
    "voc2010": "AP VOC 2010",
    "recall": "recall",
}
_FIELD_OF = {"voc2007": "voc2007", "voc2010": "voc2010", "mean_class_recall": "recall"}
_MEAN_OF = {"voc2007": "voc2007", "voc2010": "voc2010", "recall": "mean_class_recall"}
_MEASURES = {
    "voc2007": "mean average precision, VOC 2007 (11 points)",
    "voc2010": "mean average precision, VOC 2010 (area under the curve)",
    "sklearn": "mean average precision as scikit-learn defines it",
    "mean_class_recall": "mean class recall",
}

# Stand-ins that matplotlib can write; the page's style sheet has a light and a dark value of each.
_INK, _LINE, _ACCENT, _MEAN = "#010203", "#020304", "#030405", "#040506"
_CSS = {_INK: "var(--muted)", _LINE: "var(--line)", _ACCENT: "var(--accent)", _MEAN: "var(--mean)"}
_STYLE: Any = {  # Any: each release of matplotlib annotates its own list of names
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "vggfeat",  # otherwise ids are random
    "text.parse_math": False,  # a class may be called "$x$"
    "font.family": "DejaVu Sans",  # matplotlib brings it, so lengths are the same everywhere
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
}
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_NOT_XML = re.compile(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, Sec. 2.2


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
    page = _environment().get_template("page.html.j2").render(_context(result, image))
    publish_bytes(path, page.encode("utf-8", "replace"))  # an id from a file name may not be UTF-8


def _context(result: Result, image: Callable[[str], bytes] | None) -> dict[str, Any]:
    """Return what the template shows."""
    field = _FIELD_OF.get(result.measure, "voc2010")
    ranked = sorted(result.classes, key=lambda record: _descending(_value(record, field)))
    shown, selection = _selected(ranked, field)
    pictures = _Pictures(image)
    with _style():
        curves = [
            (ranked[k], _curve(ranked[k], field, f"curve{k}")) for k in shown if ranked[k].curve
        ]
        bars, search = _bars(result, ranked, field), _search(result)
    paper = result.recipe.get("paper")
    return {
        "result": result,
        "first": result.splits[0],
        "measure": _MEASURES.get(result.measure, result.measure),
        "substitute": None if result.measure in _FIELD_OF else _FIELDS[field],
        "field": field,
        "fields": [f for f in _FIELDS if f != "recall" or _any(result, f)],
        "mean_of": _MEAN_OF,
        "labels": _FIELDS,
        "classes": ranked,
        "shown": shown,
        "selection": selection,
        "weights": list(dict.fromkeys(store.weights for store in result.stores)),
        "chosen": sorted({record.c for record in result.classes}),
        "paper": paper if isinstance(paper, dict) else None,
        "bars": bars,
        "search": search,
        "curves": curves,
        "gallery": [
            (k, pictures.of(ranked[k].best[:_EXAMPLES]), pictures.of(ranked[k].worst[:_EXAMPLES]))
            for k in shown
        ],
        "pictures": pictures,
    }


# Numbers and text


def _finite(value: object) -> float | None:
    """Return a number, or None for what has no value."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _value(record: ClassResult, field: str) -> float | None:
    return _finite(getattr(record, field))


def _any(result: Result, field: str) -> bool:
    return any(_value(record, field) is not None for record in result.classes)


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


def _tail(image: str) -> str:
    """Return the last two parts of an image's id: a folder of images is named after their class."""
    return "/".join(image.split("/")[-2:])


def _label_name(text: str) -> str:
    """Return a class name that can stand in an SVG, and beside a bar."""
    text = _NOT_XML.sub("\ufffd", " ".join(text.split()))
    return text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…"


def _mark(label: int) -> tuple[str, str]:
    """Return the word and the sign for an image's label; colour alone would not do."""
    if label == 0:
        return "difficult", "◇"
    return ("right", "✓") if label > 0 else ("wrong", "✗")


def _script_hash(script: str) -> str:
    """Return a script's source expression for Content-Security-Policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vggfeat.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "num": _number,
        "sort_key": _sort_key,
        "setting": _setting,
        "tail": _tail,
        "mark": _mark,
        "script_hash": _script_hash,
    }
    return environment


def _selected(ranked: Sequence[ClassResult], field: str) -> tuple[list[int], str]:
    """Return the ranks of the classes shown one by one, and a sentence if those are not all."""
    if len(ranked) <= _FEW:
        return list(range(len(ranked))), ""
    known = [k for k, record in enumerate(ranked) if _value(record, field) is not None]
    if len(known) <= _FEW:
        return known, f"Of {len(ranked)} classes, the {len(known)} that have a number."
    half = _FEW // 2
    text = f"Of {len(ranked)} classes, the {half} best and the {half} worst by {_FIELDS[field]}."
    return known[:half] + known[-half:], text


# Pictures


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A thumbnail.

    Attributes:
        key: Its id in the page.
        uri: The JPEG.
        width: Pixels.
        height: Pixels.
    """

    key: str
    uri: str
    width: int
    height: int


class _Pictures:
    """Thumbnails of test images, each of which stands in the page once.

    Attributes:
        embedded: In the order of their first use.
        left_out: How many found no room in the page.
    """

    def __init__(self, image: Callable[[str], bytes] | None) -> None:
        self._image = image
        self._known: dict[str, _Picture | None] = {}
        self._room = _ROOM
        self.left_out = 0

    @property
    def embedded(self) -> list[_Picture]:
        return [picture for picture in self._known.values() if picture]

    def of(self, examples: Sequence[Example]) -> list[tuple[Example, _Picture | None]]:
        """Return each example with its picture, None where there is none."""
        for example in examples:
            if self._image and example.id not in self._known:
                self._known[example.id] = self._embed(self._image, example.id)
        return [(example, self._known.get(example.id)) for example in examples]

    def _embed(self, image: Callable[[str], bytes], name: str) -> _Picture | None:
        try:
            data = image(name)
        except (OSError, KeyError):
            return None
        picture = _thumbnail(data, f"p{len(self._known)}")
        if picture and len(picture.uri) > self._room:
            self.left_out += 1
            return None
        self._room -= len(picture.uri) if picture else 0
        return picture


def _thumbnail(data: bytes, key: str) -> _Picture | None:
    """Return the thumbnail of an image file's bytes, None if they are none."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            opened.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))  # JPEG decodes small ones faster
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.info.clear()  # a comment in the file would be copied
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
    except Exception:  # decoders raise anything for damaged bytes; a page can do without a picture
        return None
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return _Picture(key=key, uri=uri, width=picture.width, height=picture.height)


# Plots; a unit of length is a CSS pixel at the size where a telephone shows them


@contextmanager
def _style() -> Iterator[None]:
    """Set matplotlib's own defaults and ours: a user's matplotlibrc must not change the page."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _axes(
    width: float, height: float, margins: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """Return a figure and the axes that fill it.

    Args:
        width: Of the figure, pixels.
        height: The same.
        margins: Left, right, bottom and top, pixels.
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # the SVG backend has 72 to the inch
    inner = ((width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes((left / width, bottom / height, *inner))
    axes.tick_params(length=0)
    return figure, axes


def _bars(result: Result, ranked: Sequence[ClassResult], field: str) -> Markup:
    """Return a bar for each class, the best on top, and a line for their mean."""
    names = [_label_name(record.name) for record in ranked]
    left = 12 + 6.4 * max(map(len, names), default=0)  # a character of 10 pixels is 6.4 wide
    figure, axes = _axes(360, 17 * len(ranked) + 46, (left, 34, 22, 24))
    values = [100 * (_value(record, field) or 0) for record in ranked]
    axes.barh(range(len(ranked)), values, height=0.7, color=_ACCENT)
    axes.set_yticks(range(len(ranked)), names)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for k, record in enumerate(ranked):
        text = _percent(_value(record, field))
        axes.text(104, k, text, ha="left", va="center_baseline", fontsize=9)
    mean = _finite(result.means.get(_MEAN_OF[field]))
    label = f"Bars of {_FIELDS[field]} in percent for {len(ranked)} classes, the best first"
    if mean is not None:
        axes.axvline(100 * mean, color=_MEAN, linewidth=1.5, dashes=(4, 2))
        side: Literal["left", "right"] = "right" if mean > 0.5 else "left"
        axes.annotate(
            f"mean {_percent(mean)}",
            (100 * mean, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha=side,
        )
        label += f"; their mean is {_percent(mean)}"
    return _svg(figure, "bars", label)


def _curve(record: ClassResult, field: str, key: str) -> Markup:
    """Return precision over recall of one class."""
    figure, axes = _axes(150, 118, (25, 6, 16, 6))
    recall, precision = zip(*record.curve, strict=True)
    axes.fill_between(recall, precision, color=_ACCENT, alpha=0.15, linewidth=0)
    axes.plot(recall, precision, color=_ACCENT, linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=9)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=9)
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    name, value = _label_name(record.name), _percent(_value(record, field))
    return _svg(figure, key, f"Precision over recall of {name}; {_FIELDS[field]} {value} percent")


def _search(result: Result) -> Markup | None:
    """Return the mean validation measure over C, the chosen ones marked; None without numbers."""
    search = result.splits[0].search
    known = [
        (c, 100 * value)
        for c, mean in zip(search.grid, search.means, strict=False)
        if c > 0 and (value := _finite(mean)) is not None
    ]
    if not known:
        return None
    grid, means = zip(*known, strict=True)
    chosen = Counter(record.c for record in result.classes if record.c > 0)
    figure, axes = _axes(360, 230, (44, 14, 38, 22))
    axes.set_xscale("log")
    axes.plot(grid, means, color=_ACCENT, linewidth=1.5, marker="o", markersize=4)
    axes.set_xlim(min([*grid, *chosen]) / 1.5, max([*grid, *chosen]) * 1.5)
    axes.margins(y=0.1)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = grid[:: math.ceil(len(grid) / 7)]
    axes.set_xticks(ticks, [f"{c:g}" for c in ticks])
    axes.set_xlabel("C (logarithmic)")
    axes.set_ylabel("validation mean, %")
    for c, count in sorted(chosen.items()):
        axes.axvline(c, color=_MEAN, linewidth=1.5, dashes=(4, 2))
        text = f"chosen: C = {c:g}" if len(chosen) == 1 else f"{count}×"
        axes.annotate(
            text,
            (c, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
        )
    label = f"Mean validation measure in percent over C, from {grid[0]:g} to {grid[-1]:g}; chosen: "
    return _svg(figure, "search", label + ", ".join(f"{c:g}" for c in sorted(chosen)))


def _svg(figure: Figure, key: str, label: str) -> Markup:
    """Return a figure as an element of the page.

    Args:
        figure: Drawn.
        key: Unlike that of any other figure in the page; its ids begin with it.
        label: For readers who do not see it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Matplotlib only measures the text; the browser has fonts for what DejaVu Sans lacks.
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not", UserWarning)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith("}style")]:
            parent.remove(child)  # its rule "*" would hold for the whole page
        parent.tag = _local(parent.tag)
        parent.attrib = {
            _local(name): _inlined(_local(name), value, key) for name, value in parent.items()
        }
    box = root.attrib["viewBox"]
    root.attrib = {"class": f"plot {key}", "viewBox": box, "role": "img", "aria-label": label}
    return Markup(ET.tostring(root, encoding="unicode"))  # escapes every text


def _local(name: str) -> str:
    """Return a name without its namespace, which HTML knows by itself."""
    return name.rpartition("}")[2]


def _inlined(name: str, value: str, key: str) -> str:
    """Return an attribute's value with ids of its own figure and colours of the page."""
    if name == "id":
        return f"{key}-{value}"
    if name == "href":
        return f"#{key}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{key}-")
    for stand_in, colour in _CSS.items():
        value = value.replace(stand_in, colour)
    return value
