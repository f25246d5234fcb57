from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.results import caltech, voc2007
from vggfeat.errors import PublishError
from vggfeat.recipe import Recipe
from vggfeat.report.html import write_page
from vggfeat.report.result import ClassResult, Example, Result, Search, SplitOutcome

HOSTILE = ("<script>alert(1)</script>", "$x$", '" onload="alert(1)', "猫\x00\ud800", "{{ 7 * 7 }}")
VOID = {"meta", "link", "br", "img", "input", "hr"}


def one_class(name: str, value: float | None = 0.5, recall: float | None = None) -> ClassResult:
    return ClassResult(
        name=name,
        c=1.0,
        train=12,
        test=0 if value is None else 3456,
        values={
            "voc2007": value,
            "voc2010": None if value is None else 1 - value,
            "mean_class_recall": recall,
        },
        note="no positive in test" if value is None else None,
        curve=() if value is None else ((0.0, 1.0), (0.5, 0.8), (1.0, value)),
        best=tuple(
            Example(id=f"{name}-{k}.jpg", score=1.25 - k, label=label)
            for k, label in enumerate((1, -1, 0))
        ),
        worst=(Example(id=f"{name}-last.jpg", score=-7.5, label=1),),
        false_positives=(Example(id=f"{name}-1.jpg", score=0.25, label=-1),),
    )


def a_result(
    *classes: ClassResult,
    measure: str = "voc2007",
    means: tuple[float | None, ...] = (0.4, 0.6, 0.5),
) -> Result:
    counted = sum(record.values["voc2007"] is not None for record in classes)
    return Result(
        name="sample",
        recipe={"dataset": "voc2007", "models": ("vgg16", "vgg19"), "grid": None, "mirror": True},
        recipe_fingerprint="f" * 64,
        kind="multi-label",
        ignored=0,
        stores=(),
        descriptor_size=4096,
        splits=(
            SplitOutcome(
                sizes={"train": 2501, "val": 2510, "test": 4952},
                search=Search(
                    measure=measure,
                    grid=(0.5, 1.0, 2.0),
                    means=means,
                    grown=False,
                    at_edge=False,
                    fits=9,
                    not_converged=0,
                    solver="dual",
                    gap=5e-4,
                ),
                c=(1.0,),
                means={},
                counted={"voc2007": counted, "voc2010": counted, "mean_class_recall": len(classes)},
            ),
        ),
        classes=classes,
        confusion=(),
        means={"voc2007": 0.7654, "voc2010": 0.5, "mean_class_recall": 0.25},
        deviations={},
        measure=measure,
        score=0.7654,
        warnings=("The weights are <random>.",),
        seconds={"fit": 1.25},
        versions={"python": "3.12"},
    )


class Page(HTMLParser):
    """A page's tags in order, the texts by the tags and ids around them; all tags must close."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # path of open tags, text
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append(f"{tag}#{attributes['id']}" if "id" in attributes else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().partition("#")[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((" ".join(self._open), data.strip()))

    @property
    def text(self) -> str:
        return " ".join(text for path, text in self.texts if not path.endswith(("style", "script")))

    def found(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def table(self) -> list[str]:
        """The class names of the table, from top to bottom."""
        inside = re.compile(r"table#per-class tbody tr th( a)?$")
        return [text for path, text in self.texts if inside.search(path)]

    @property
    def cells(self) -> list[str]:
        """The texts of the same table's other cells, row by row."""
        return [text for path, text in self.texts if path.endswith("table#per-class tbody tr td")]

    def named(self, start: str) -> list[dict[str, str]]:
        """The pictures and plots whose name begins so."""
        drawn = [a for _, a in self.tags if a.get("role") == "img"]
        return [a for a in drawn if a["aria-label"].startswith(start)]


def written(folder: Path, result: Result, **options: object) -> str:
    path = folder / "page.html"
    write_page(result, path, **options)  # type: ignore[arg-type]
    return path.read_text("utf-8")


def encoded(form: str, size: tuple[int, int] = (400, 300), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def test_hostile_names_are_only_ever_text(tmp_path: Path) -> None:
    source = written(tmp_path, a_result(*map(one_class, HOSTILE)))
    page = Page(source)
    assert len(page.found("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.table[:3] == list(HOSTILE[:3])
    assert page.table[4] == "{{ 7 * 7 }}"
    curves = [a["aria-label"] for a in page.named("Precision over recall of")]
    assert [name for name in HOSTILE if any(f"of {name};" in label for label in curves)] == [
        *HOSTILE[:3],
        HOSTILE[4],  # UTF-8 has no lone surrogate
    ]


def test_the_policy_lets_only_the_own_script_run(tmp_path: Path) -> None:
    source = written(tmp_path, a_result(one_class("cat")))
    policies = [m["content"] for m in Page(source).found("meta") if "http-equiv" in m]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    script = source.partition("<script>")[2].partition("</script>")[0]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{own}'" in policies[0]


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    source = written(tmp_path, a_result(one_class("cat")), image=lambda _: encoded("PNG"))
    page = Page(source)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in {"src", "href", "xlink:href", "srcset"} & attributes.keys():
            assert attributes[name].startswith(("#", "data:image/jpeg;base64,"))
    assert "data:image/jpeg" in source
    assert not re.search(r"https?://|@import", source)


def test_numbers_names_notes_and_warnings_are_shown(tmp_path: Path) -> None:
    page = Page(written(tmp_path, a_result(one_class("cat", 0.123), one_class("dog", None))))
    for expected in (
        "76.5 %",
        "over 1 of 2 classes",
        "no positive in test",
        "The weights are <random>.",
        "vgg16, vgg19",
        "12.3",
        "3,456",
    ):
        assert expected in page.text, expected
    path = next(path for path, text in page.texts if "The weights are" in text)
    assert path.split()[:4] == ["html", "body", "main", "aside"]


@pytest.mark.parametrize("absent", [None, float("nan"), float("inf")])
def test_what_has_no_number_is_a_dash(tmp_path: Path, absent: float | None) -> None:
    nothing = one_class("dog", None).model_copy(update={"voc2007": absent, "voc2010": absent})
    result = a_result(one_class("cat"), nothing, means=(None, None, None)).model_copy(
        update={"score": absent, "means": {"voc2007": absent}}
    )
    page = Page(written(tmp_path, result))
    assert page.table == ["cat", "dog"]
    assert [text for path, text in page.texts if path.endswith("strong")] == ["–"]
    cells = page.cells
    assert cells[cells.index("no positive in test") - 5 :][:2] == ["–", "–"]
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    assert "No mean could be measured" in page.text


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("voc2007", ["high", "middle", "low"]),
        ("voc2010", ["low", "middle", "high"]),
        ("mean_class_recall", ["middle", "high", "low"]),
        ("sklearn", ["high", "middle", "low"]),  # kept for no class: AP VOC 2007 in its place
    ],
)
def test_table_and_bars_follow_the_measure(
    tmp_path: Path, measure: str, expected: list[str]
) -> None:
    classes = (
        one_class("low", 0.1, recall=0.2),
        one_class("high", 0.9, recall=0.5),
        one_class("middle", 0.4, recall=0.7),
    )
    page = Page(written(tmp_path, a_result(*classes, measure=measure)))
    assert page.table == expected
    bars = [a["data-class"] for a in page.found("div") if a.get("class") == "bar" if len(a) > 1]
    assert bars == expected
    assert ("keeps no value of sklearn" in page.text) == (measure == "sklearn")


def test_recall_stands_only_where_it_was_measured(tmp_path: Path) -> None:
    heads = [
        [
            text
            for path, text in Page(written(tmp_path, result)).texts
            if path.endswith("table#per-class thead tr th")
        ]
        for result in (a_result(one_class("a")), a_result(one_class("a", recall=0.5)))
    ]
    assert "recall, %" not in heads[0]
    assert "recall, %" in heads[1]


def test_every_picture_and_plot_has_a_name_and_every_reference_a_target(tmp_path: Path) -> None:
    classes = (one_class("a"), one_class("b"))
    page = Page(written(tmp_path, a_result(*classes), image=lambda _: encoded("PNG")))
    assert len(page.named("Bars of AP VOC 2007 in percent for 2 classes")) == 1
    assert len(page.named("Mean voc2007 on the validation images")) == 1
    assert len(page.named("Precision over recall of ")) == 2
    assert (
        len(page.named("Test image a-0.jpg under a, right: decision yes, truth yes, score 1.250"))
        == 1
    )
    nameless = [a for a in page.found("svg") if not a.get("aria-label")]
    assert all(a["aria-hidden"] == "true" for a in nameless)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [a["href"].removeprefix("#") for a in page.found("use") + page.found("a")]
    assert len(references) > 10
    assert set(references) <= set(ids)


def luminance(colour: str) -> float:
    """Relative luminance of "#rgb" or "#rrggbb" (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_inks_and_lines_stand_out_from_their_grounds(scheme: str) -> None:
    css = (files("vggfeat.report") / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#\w+)", part)) for part in css.split("@media")[:2]
    )
    colours = light if scheme == "light" else light | dark
    for ground in ("paper", "panel", "warn"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5
    assert contrast("#0072b2", colours["paper"]) >= 3  # the picture of the confusion matrix
    for ground in ("paper", "panel"):
        assert contrast(colours["muted"], colours[ground]) >= 4.5
        for line in ("blue", "orange", "green", "right", "wrong", "difficult", "warn-line"):
            assert contrast(colours[line], colours[ground]) >= 3, (line, ground)


def test_verdicts_are_told_apart_by_words(tmp_path: Path) -> None:
    page = Page(written(tmp_path, a_result(one_class("a"))))
    marks = [text for path, text in page.texts if path.endswith("div figure figcaption b")]
    best, worst = ["✓ right", "✗ wrong", "◇ difficult"], ["✗ wrong"]
    assert marks == ["a", *best, *worst]  # the first is the curve's
    titles = [text for path, text in page.texts if path.endswith("h4")]
    assert titles == ["scored highest", "images of the class that scored lowest"]
    assert "false positives, the highest first: all of them are among those above." in page.text
    said = [text for path, text in page.texts if path.endswith("figure figcaption span bdi")]
    assert said == ["yes", "yes", "yes", "no", "no", "difficult", "no", "yes"]
    assert "The decision is yes where the score is above 0." in page.text
    assert "✗ wrong the decision is not the truth" in page.text


def test_the_day_of_the_run_is_told(tmp_path: Path) -> None:
    result = a_result(one_class("a"))
    dated = result.model_copy(update={"date": "2026-11-25T17:05Z"})
    assert "Date 2026-11-25 17:05 UTC" in Page(written(tmp_path, dated)).text
    assert "Date" not in Page(written(tmp_path, result)).text


@pytest.mark.parametrize("count", [5, 30])
def test_every_plot_has_words_at_its_axes(tmp_path: Path, count: int) -> None:
    page = Page(written(tmp_path, caltech(count, 4)))
    drawn = [text for path, text in page.texts if path.endswith("svg text")]
    assert {"C (logarithmic)", "validation mean, %"} <= set(drawn)
    frame = [text for path, text in page.texts if path.endswith("g#frame text")]
    assert frame == ["1", "0.5", "0", "0", "0.5", "1", "recall", "precision"]
    places = [path for path, text in page.texts if text == "recall, %"]
    assert any(path.endswith("div div span") for path in places)  # below the bars
    if count > 24:
        heat = {"taken for, in the same order", "true class", "share of the row, %"}
        assert heat <= set(drawn)
    else:
        assert "true class ↓ taken for →" in page.text


def test_pictures_are_small_and_embedded_once(tmp_path: Path) -> None:
    shared = one_class("a")
    data = encoded("JPEG", comment=b"a secret")
    page = Page(written(tmp_path, a_result(shared, shared), image=lambda _: data))
    pictures = page.found("image")
    assert len(pictures) == 4  # of five examples, one is both a best one and a false positive
    assert {(p["width"], p["height"]) for p in pictures} == {("160", "120")}
    for picture in pictures:
        assert b"secret" not in base64.b64decode(picture["href"].partition(",")[2])
    shots = [use["href"] for use in page.found("use") if use["href"].startswith("#p")]
    assert set(shots) == {f"#{p['id']}" for p in pictures}
    assert len(shots) == 2 * 4
    assert not Page(written(tmp_path, a_result(shared))).found("image")


def test_a_picture_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = encoded("JPEG", exif=exif)
    page = Page(written(tmp_path, a_result(one_class("a")), image=lambda _: data))
    assert {(p["width"], p["height"]) for p in page.found("image")} == {("120", "160")}


def test_an_image_that_cannot_be_shown_costs_only_its_picture(tmp_path: Path) -> None:
    def image(name: str) -> bytes:
        if name == "a-0.jpg":
            raise KeyError(name)
        if name == "a-1.jpg":
            raise FileNotFoundError(name)
        return encoded("JPEG")[:500] if name == "a-2.jpg" else encoded("GIF")

    page = Page(written(tmp_path, a_result(one_class("a")), image=image))
    assert len(page.found("image")) == 1
    assert page.text.count("no picture") == 3
    assert "a-0.jpg" in page.text


def test_other_errors_of_the_image_source_are_not_swallowed(tmp_path: Path) -> None:
    def image(name: str) -> bytes:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        written(tmp_path, a_result(one_class("a")), image=image)
    assert not list(tmp_path.iterdir())


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    result = caltech(5, 4)
    first = written(tmp_path, result, image=lambda _: encoded("PNG"))
    assert written(tmp_path, result, image=lambda _: encoded("PNG")) == first


@pytest.mark.slow
def test_a_page_of_voc_2007_has_at_most_5_mb(tmp_path: Path, voc_photos: list[bytes]) -> None:
    def image(name: str) -> bytes:
        return voc_photos[int(name) % len(voc_photos)]

    source = written(tmp_path, voc2007(), image=image)
    page = Page(source)
    pictures = page.found("image")
    assert len(page.table) == len(page.named("Precision over recall of ")) == 20
    assert len(pictures) > 200  # 20 classes with at most 18, some of which are the same
    assert "are left out" not in page.text
    assert 1_000_000 < len(source.encode()) < 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize("count", [102, 257])
def test_many_classes_stay_small(tmp_path: Path, count: int) -> None:
    noise = encoded("JPEG", (160, 160), quality=95)  # the least compressible of pictures
    source = written(tmp_path, caltech(count, 5), image=lambda _: noise)
    assert len(source.encode()) < 5_000_000
    page = Page(source)
    assert len(page.table) == len(page.named("Precision over recall of ")) == count
    assert "the 12 best and the 12 worst" in page.text
    links = [path for path, _ in page.texts if path.endswith("table#per-class tbody tr th a")]
    assert len(links) == len([a for a in page.found("details") if a.get("name")]) == 24
    [matrix] = [a for a in page.found("image") if a["href"].startswith("data:image/png")]
    assert len(matrix["href"]) < 50_000


def test_the_recipe_on_the_page_makes_the_same_experiment(tmp_path: Path) -> None:
    values = {"dataset": 'folder:my "photos"', "models": ["vgg16"], "grid": [0.5, 1e-7]}
    published = {"table": 11, "row": "a \\ b", "column": "c", "value": 89.3}
    recipe = Recipe.build({**values, "paper": published}, "a test")
    result = a_result(one_class("a")).model_copy(update={"recipe": recipe})
    page = Page(written(tmp_path, result))
    command, text = (text for path, text in page.texts if path.endswith("pre"))
    assert command == "vggfeat run sample.toml"
    (tmp_path / "sample.toml").write_text(text)
    assert Recipe.from_toml(tmp_path / "sample.toml") == recipe


def test_the_published_figure_stands_beside_ours(tmp_path: Path) -> None:
    published = {"table": 11, "row": "D", "column": "mAP", "value": 89.3, "deviation": 1.5}
    values = {"dataset": "voc2007", "models": ["vgg16"], "paper": published}
    recipe = Recipe.build(values, "a test")
    result = a_result(one_class("a")).model_copy(update={"recipe": recipe})
    page = Page(written(tmp_path, result))
    assert "published: 89.3 ± 1.5 % (table 11, D, mAP); ours minus published: −12.8" in page.text
    assert "our mean 76.5 published mean 89.3" in page.text
    [bars] = page.named("Bars")
    assert bars["aria-label"].endswith("mean, 76.5; a double line for the published mean, 89.3")
    lines = [(a.get("class"), a["style"]) for a in page.found("i")]
    assert set(lines) == {(None, "left: 76.54%"), ("published", "left: 89.3%")}
    assert "published" not in Page(written(tmp_path, a_result(one_class("a")))).text


def test_a_few_classes_have_a_table_of_what_was_taken_for_what(tmp_path: Path) -> None:
    result = a_result(*(one_class(name, recall=0.5) for name in ("ant", "bee", "cat")))
    confused = ((0, 0, 6), (0, 2, 3), (0, -1, 1), (1, 1, 9), (2, 1, 3))
    page = Page(written(tmp_path, result.model_copy(update={"confusion": confused})))
    inside = [text for path, text in page.texts if "div tbody tr" in path.replace("table ", "")]
    start = inside.index("ant", inside.index("ant"))
    assert inside[start:][:7] == ["ant", "6", "3", "bee", "9", "cat", "3"]
    shares = [a["style"] for a in page.found("td") if a.get("style")]
    assert shares[:3] == ["--share: 0.6", "--share: 0.0", "--share: 0.3"]  # of ten, one unscored
    listed = [text for path, text in page.texts if re.search(r"#mistakes tbody tr t[hd]$", path)]
    assert listed == [
        *("cat", "bee", "3", "100.0"),
        *("ant", "cat", "3", "30.0"),
        *("ant", "no score", "1", "10.0"),
    ]
    assert "1 images have no score and count as wrong" in page.text
    assert 'class="matrix"' not in written(tmp_path, result)


def test_every_split_has_its_search_and_every_store_its_statistics(tmp_path: Path) -> None:
    page = Page(written(tmp_path, caltech(5, 4)))
    [plot] = page.named("Mean mean_class_recall on the validation images")
    assert plot["aria-label"].endswith("chosen: 1.0; 2.0; 4.0")
    lines = [a for a in page.found("path") if a["class"] == "line"]
    assert len(lines) == 3 + 3  # and those of the legend
    facts = [text for path, text in page.texts if re.search(r"table tbody tr t[hd]$", path)]
    for head, *values in (
        ("weights", "vgg16.caffemodel (oxford)", "vgg19.caffemodel (oxford)"),
        ("unreadable", "1", "1"),
        ("cropped", "2", "2"),
        ("size of the file", "449.4 MB", "449.4 MB"),  # 9,144 images · 3 scales · 4,096 · 4 bytes
        ("mean norm, Q = 512", "42.5", "42.5"),
        ("weights, SHA-256", "a1" * 32, "a1" * 32),
    ):
        assert facts[facts.index(head) + 1 :][: len(values)] == values


def test_pictures_stop_where_the_page_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, result = encoded("JPEG"), a_result(one_class("a"))
    every = Page(written(tmp_path, result, image=lambda _: data)).found("image")
    monkeypatch.setattr("vggfeat.report.pictures._ROOM", 2 * len(every[0]["href"]) + 1)
    page = Page(written(tmp_path, result, image=lambda _: data))
    assert (len(every), len(page.found("image"))) == (4, 2)
    assert "2 pictures are left out" in page.text


@pytest.mark.parametrize("classes", [(), (one_class("only", None),), (one_class("x", 0.0),)])
def test_a_result_with_next_to_nothing_has_a_page(
    tmp_path: Path, classes: tuple[ClassResult, ...]
) -> None:
    result = a_result(one_class("x"), means=(None, 0.5, None)).model_copy(
        update={"means": {}, "counted": {}, "warnings": (), "score": None}
    )
    result = result.model_copy(update={"classes": classes})
    assert Page(written(tmp_path, result)).table == [record.name for record in classes]


def test_interval_chance_and_accuracy_stand_beside_the_score(tmp_path: Path) -> None:
    result = caltech(5, 4)
    values = {
        "score": 0.9,
        "means": result.means | {"mean_class_recall": 0.9, "accuracy": 0.912},
        "intervals": {"mean_class_recall": (0.8731, 0.9204), "accuracy": (0.88, 0.931)},
        "chance": {"mean_class_recall": 0.2, "accuracy": 0.215},
        "resamples": 1234,
    }
    page = Page(written(tmp_path, result.model_copy(update=values)))
    assert "95 % interval 87.3 to 92.0; chance 20.0" in page.text
    assert "accuracy 91.2 %, 95 % interval 88.0 to 93.1; chance 21.5" in page.text
    assert "of 1,234 resamples of the test images" in page.text
    feet = [text for path, text in page.texts if "table#per-class tfoot" in path]
    assert feet[-6:] == ["90.0", "87.3 to 92.0", "chance", "–", "–", "20.0"]
    heads = [text for path, text in page.texts if path.endswith("table#per-class thead tr th")]
    assert heads[3:5] == ["recall, %", "95 % interval"]
    classes = [record.model_copy(update={"interval": (0.125, 0.75)}) for record in result.classes]
    shown = Page(written(tmp_path, result.model_copy(update={"classes": classes, **values})))
    assert shown.cells.count("12.5 to 75.0") == 5
    assert page.cells.count("–") == 5
    old: dict[str, object] = {"intervals": {}, "chance": {}, "resamples": None}
    page = Page(written(tmp_path, result.model_copy(update=old)))
    assert "95 % interval –; chance –" in page.text
    assert "resamples" not in page.text


def test_accuracy_shows_the_recall_of_classes(tmp_path: Path) -> None:
    classes = (one_class("a", 0.1, recall=0.25), one_class("b", 0.9, recall=0.75))
    result = a_result(*classes, measure="accuracy")
    page = Page(written(tmp_path, result))
    assert page.table == ["b", "a"]
    assert "accuracy, over" not in page.text
    assert len(page.named("Bars of recall in percent for 2 classes, the best first")) == 1


def test_random_weights_are_not_set_beside_the_published_figure(tmp_path: Path) -> None:
    result = caltech(5, 4)
    assert "ours minus published" in Page(written(tmp_path, result)).text
    random = result.stores[0].model_copy(update={"weights_family": "random"})
    page = Page(written(tmp_path, result.model_copy(update={"stores": (random,)})))
    assert "ours minus published" not in page.text
    assert "published mean" not in page.text
    assert "published: 91.8 ± 1.0 %" in page.text


def test_files_are_told_by_name_and_digest(tmp_path: Path) -> None:
    result = caltech(5, 4)
    rounded = result.stores[0].model_copy(update={"weights_rounded_to_bits": 8})
    result = result.model_copy(update={"stores": (rounded, result.stores[1])})
    page = Page(written(tmp_path, result))
    assert "vgg16.caffemodel, rounded to 8 bits; vgg19.caffemodel" in page.text
    assert "vgg16.caffemodel, rounded to 8 bits (oxford)" in page.text
    assert page.text.count("d4" * 32) == page.text.count("a1" * 32) == 2
    assert "manifest SHA-256 d4d4d4d4…" in page.text


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(PublishError):
        write_page(a_result(one_class("a")), tmp_path / "absent" / "page.html")
