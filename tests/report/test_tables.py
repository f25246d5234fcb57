"""Results beside the paper's figures: what stands where, and the four formats."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.report.test_result import one_class
from tests.report.test_result import result as sample
from vggfeat.cli import main
from vggfeat.recipe import Recipe
from vggfeat.report.paper import published, substitutes
from vggfeat.report.result import Result, ResultError, StoreUsed
from vggfeat.report.tables import build_tables, read_results
from vggfeat.report.typeset import FORMATS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "results" / "TABLES.md"
D, VOC07 = "VGG Net-D (16)", "VOC-2007 mAP"
WHOLE = {"train": 2501, "val": 2510, "test": 4952}
HOSTILE = r"<b>&amp; |a|_b_*c*`d`$e$ \f{g}%#~^[h] -- 猫"


def used(store: StoreUsed, **changes: object) -> StoreUsed:
    authors = {"model": "vgg16", "weights": "vgg16.caffemodel", "weights_family": "oxford"}
    return store.model_copy(update={"unreadable": 0, **authors, **changes})


def a_result(
    name: str = "voc2007-vgg16",
    *,
    score: float | None = 0.8926,
    sizes: dict[str, int] = WHOLE,
    classes: int = 20,
    splits: int = 1,
    store: dict[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401  (fields of a recipe)
) -> Result:
    """The whole experiment of net D on VOC 2007, but for what is given."""
    voc = {"table": 11, "row": D, "column": VOC07, "value": 89.3}
    values = {"dataset": "voc2007", "models": ["vgg16"], "paper": voc, **fields}
    recipe = Recipe.build({**values, "name": name}, "a test")
    plain = sample(*(one_class(f"class {k}", 0.5) for k in range(classes)))
    measure = recipe.measure
    return plain.model_copy(
        update={
            "name": name,
            "recipe": recipe,
            "stores": tuple(
                used(plain.stores[0], **{"model": model, **(store or {})})
                for model in recipe.models
            ),
            "splits": (plain.splits[0].model_copy(update={"sizes": sizes}),) * splits,
            "measure": measure,
            "score": score,
            "deviations": {measure: 0.0123} if splits > 1 else {},
        }
    )


def caltech(name: str = "caltech101-vgg16", **fields: Any) -> Result:  # noqa: ANN401  (see above)
    cited = {"table": 11, "row": D, "column": "Caltech-101 mean class recall", "value": 91.8}
    sizes = {"train": 2448, "val": 612, "test": 2995}
    usual: dict[str, Any] = {"dataset": "caltech101", "paper": cited, "score": 0.9}
    return a_result(name, **{**usual, "sizes": sizes, "classes": 102, "splits": 3, **fields})


def ablation(name: str, answer: str, **fields: Any) -> Result:  # noqa: ANN401  (see above)
    base = fields.pop("base", "voc2007-vgg16")
    asked = {"base": base, "question": "loss", "answer": answer}
    return a_result(name, **{"ablation": asked, "paper": None, **fields})


def named(*results: Result) -> dict[str, Result]:
    return {one.name: one for one in sorted(results, key=lambda one: one.name)}


SEVERAL = named(
    a_result(),
    a_result("again", score=0.9),
    caltech(),
    caltech(
        "thin", models=["vgg16-thin"], store={"weights_family": "random", "weights": "random:0"}
    ),
    caltech("other", store={"weights_family": "torchvision", "weights": "a.pth"}),
    ablation("squared", "squared_hinge", loss="squared_hinge", score=0.8976),
    ablation("bicubic", HOSTILE, interpolation="bicubic", limit=20, score=0.25),
    ablation("orphan", "b", base="absent"),
)

# What stands where


def test_the_real_thing_stands_in_the_papers_cell() -> None:
    [eleven, twelve] = build_tables(named(a_result())).comparisons
    [(cell, run)] = eleven.real
    assert (cell.row.name, cell.column.name) == (D, VOC07)
    assert run.score.value == pytest.approx(89.26)
    assert run.difference == pytest.approx(-0.04)
    assert run.weights == ("vgg16.caffemodel",)
    assert not eleven.substituted
    assert not twelve.runs


def test_the_deviation_is_that_of_the_splits() -> None:
    [eleven, _] = build_tables(named(caltech())).comparisons
    [(cell, run)] = eleven.real
    assert cell.figure.deviation == 1.0
    assert run.score.deviation == pytest.approx(1.23)
    assert run.difference == pytest.approx(-1.8)


ROUNDED = {"weights_rounded_to_bits": 8}
RANDOM = {"weights_family": "random", "weights": "random:0"}
VAL_SIZES = {"train": 4574, "val": 1143, "test": 5823}
VOC2012 = {"table": 11, "row": D, "column": "VOC-2012 mAP", "value": 89.0}


@pytest.mark.parametrize(
    ("result", "reasons"),
    [
        (a_result(), []),
        (caltech(), []),
        (a_result(loss="squared_hinge", interpolation="bicubic", difficult="negative"), []),
        (a_result(store=RANDOM), ["vgg16 with random weights (random:0)"]),
        (
            a_result(store={"weights_family": "torchvision", "weights": "a.pth"}),
            ["vgg16 with torchvision's weights (a.pth)"],
        ),
        (
            a_result(store={"weights_family": "own", "weights": "my.pth"}),
            ["vgg16 with the weights my.pth (sha256 wwwwwwww…)"],
        ),
        (
            a_result(store={"weights_family": "own", "weights": "my.pth", **ROUNDED}),
            ["vgg16 with the weights my.pth, rounded to 8 bits (sha256 wwwwwwww…)"],
        ),
        (
            a_result(store=ROUNDED),
            ["vgg16 with the authors' weights (vgg16.caffemodel, rounded to 8 bits)"],
        ),
        (a_result(models=["vgg16-thin"]), ["vgg16-thin in the place of vgg16"]),
        (a_result(models=["vgg19", "vgg16"]), ["vgg19, vgg16 in the place of vgg16"]),
        (a_result(limit=20), ["limited to 20 images of each part"]),
        (a_result(dataset="voc:/home/me/VOC2007"), ["voc:PATH in the place of voc2007"]),
        (
            a_result(dataset="voc2012-val", paper=VOC2012, sizes=VAL_SIZES),
            ["val in the place of test"],
        ),
        (
            a_result(dataset="voc2012-val", paper=VOC2012, sizes=VAL_SIZES | {"train": 4573}),
            ["val in the place of test", "5,716 of 5,717 in train and val"],
        ),
        (
            a_result(sizes={"train": 63, "val": 2510, "test": 56}),
            ["63 of 2,501 in train", "56 of 4,952 in test"],
        ),
        (a_result(classes=3), ["3 of 20 classes"]),
        (caltech(splits=1), ["1 of 3 splits"]),
        (a_result(store={"unreadable": 2}), ["unreadable images: 2"]),
        (a_result(measure="voc2010"), ["measure voc2010 in the place of voc2007"]),
        (a_result(precision="int8"), ["precision int8 in the place of float32"]),
        (a_result(scales=(256,)), ["scales 256 in the place of 256, 384, 512, 640, 768"]),
        (a_result(scales=(768, 256, 384, 512, 640)), []),
        (a_result(mirror=False), ["mirror off in the place of on"]),
        (a_result(tap="fc6"), ["tap fc6 in the place of fc7"]),
        (caltech(aggregate="average"), ["aggregate average in the place of stack"]),
        (ablation("a", "b", tap="fc6"), []),
        (ablation("a", "b", limit=5), ["limited to 5 images of each part"]),
    ],
)
def test_every_substitute_has_its_reason_and_a_part_of_its_own(
    result: Result, reasons: list[str]
) -> None:
    assert list(substitutes(result)) == reasons
    tables = build_tables(named(result))
    assert tables.ablations is not None
    real = [run for one in tables.comparisons for _, run in one.real]
    substituted = [run for one in tables.comparisons for _, run in one.substituted]
    answers = [answer.run for one in tables.ablations for answer in one.answers]
    assert len(real) + len(substituted) + len(answers) + len(tables.imitations) == 1
    assert len(real) == (not reasons and not answers)
    assert len(tables.imitations) == any(
        "random" in r or r.startswith("vgg16-thin") for r in reasons
    )
    assert tables.others == ()


def test_net_e_has_cells_of_its_own_and_both_nets_share_one_result() -> None:
    both = a_result(
        "both",
        models=["vgg16", "vgg19"],
        paper={**VOC2012, "row": "VGG Net-D & Net-E", "value": 89.3},
        dataset="voc2012",
        sizes={"train": 5717, "val": 5823, "test": 10991},
        score=None,
    )
    [eleven, _] = build_tables(named(both)).comparisons
    [(cell, run)] = eleven.real
    assert cell.row.models == ("vgg16", "vgg19")
    assert (run.score.value, run.difference) == (None, None)
    assert run.weights == ("vgg16.caffemodel",)


def test_boxes_are_a_row_of_their_own() -> None:
    row = "VGG Net-D & Net-E, image and bounding box"
    cited = {"table": 12, "row": row, "column": "VOC-2012 action mAP", "value": 84.0}
    sizes = {"train": 3134, "val": 3144, "test": 1}
    common: dict[str, Any] = {"dataset": "voc2012-action", "models": ["vgg16", "vgg19"]}
    common |= {"paper": cited, "sizes": sizes, "classes": 10, "score": None}
    assert substitutes(a_result(**common)) == ()
    assert substitutes(a_result(**common, regions=["box"])) == (
        "regions box in the place of image, box",
    )


def test_all_results_of_one_cell_are_listed() -> None:
    tables = build_tables(SEVERAL)
    listed = [run.result for cell, run in tables.comparisons[0].real if cell.column.name == VOC07]
    assert listed == ["again", "voc2007-vgg16"]
    assert "90.00 (+0.70); 89.26 (−0.04)" in FORMATS["markdown"](tables)


TRUST = {
    "means": {"voc2007": 0.5, "voc2010": 0.5, "mean_class_recall": 0.9, "accuracy": 0.9125},
    "intervals": {"mean_class_recall": (0.8875, 0.921), "accuracy": (0.9, 0.93)},
    "chance": {"mean_class_recall": 0.0098, "accuracy": 0.02},
}


def trusted(result: Result) -> Result:
    return result.model_copy(update=TRUST)


def test_every_run_has_its_interval_chance_and_what_stands_beside_it() -> None:
    tables = build_tables(
        named(
            trusted(caltech()),
            trusted(caltech("scale", scales=(256,))),
            trusted(caltech("change", ablation=ABLATED, scales=(384,), score=0.88)),
        )
    )
    lines = FORMATS["markdown"](tables).splitlines()
    interval, beside = "88.75 to 92.10 | 0.98", "accuracy 91.25, 90.00 to 93.00"
    row = (
        f"| {D} | Caltech-101 mean class recall | 90.00 ± 1.23 | {interval} | {beside} | 91.8 ± 1.0"
    )
    for expected in (
        f"{row} | −1.80 | vgg16.caffemodel | caltech101-vgg16 |",
        f"{row} | −1.80 | scales 256 in the place of 256, 384, 512 | scale |",
        "| scales | 384 | 88.00 ± 1.23 | 88.75 to 92.10 | −2.00 | scales | – | change |",
    ):
        assert expected in lines, expected
    assert "**90.00 ± 1.23, 88.75 to 92.10 (−1.80)**" in FORMATS["markdown"](tables)
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](tables))))
    [own] = [row for row in rows if row["result"] == "scale"]
    assert (own["interval_low"], own["interval_high"], own["chance"]) == ("88.75", "92.1", "0.98")
    assert (own["beside"], own["beside_score"]) == ("accuracy", "91.25")


ABLATED = {"base": "caltech101-vgg16", "question": "scales", "answer": "384"}


def test_results_that_cite_no_cell_have_a_table_of_their_own() -> None:
    store = {
        "weights": "vgg19-8bit.pth",
        "weights_family": "own",
        "weights_rounded_to_bits": 8,
        "manifest_sha256": "5ce7e15a" + "0" * 56,
    }
    scenes: dict[str, Any] = {"dataset": "folder:scene15", "models": ["vgg19"], "tap": "pool5"}
    scenes |= {"paper": None, "sizes": {"train": 1200, "val": 300, "test": 2985}, "scales": (256,)}
    one = trusted(caltech("scenes", **scenes, classes=15, splits=1, store=store, limit=9))
    tables = build_tables(named(one, a_result()))
    assert [run.result for run in tables.others] == ["scenes"]
    text = FORMATS["markdown"](tables)
    line = (
        "| folder:scene15, limited to 9 images of each part, sha256 5ce7e15a… "
        "| vgg19 with vgg19-8bit.pth, rounded to 8 bits | pool5 at 256 "
        "| 2,985 images, 15 classes | mean class recall 90.00 | 88.75 to 92.10 | 0.98 "
        "| accuracy 91.25, 90.00 to 93.00 | 1 | scenes |"
    )
    assert line in text.splitlines()
    assert text.index("## Other experiments") < text.index(line)
    [row] = [
        row
        for row in csv.DictReader(io.StringIO(FORMATS["csv"](tables)))
        if row["table"] == "others"
    ]
    assert (row["nets"], row["tap"], row["scales"]) == (
        "vgg19 with vgg19-8bit.pth, rounded to 8 bits",
        "pool5",
        "256",
    )
    assert build_tables(named(one), "11").others == ()


def test_random_weights_and_thin_nets_are_compared_with_nothing() -> None:
    """Whether they cite a cell of the paper or not."""
    random = caltech("random", store=RANDOM, paper=None)
    tables = build_tables(named(SEVERAL["thin"], random, caltech("own", paper=None)))
    assert [run.result for run in tables.imitations] == ["random", "thin"]
    assert [run.result for run in tables.others] == ["own"]
    assert all(run.difference is None for run in tables.others)
    text = FORMATS["markdown"](tables)
    start = text.index("## Random weights and thin nets, which reproduce nothing")
    assert text.index("| random |") > start
    assert text.index("| thin |") > start
    assert "difference" not in text[start:]
    assert "vgg16-thin with random:0" in text[start:]


def test_an_ablation_of_thin_nets_says_so() -> None:
    thin: dict[str, Any] = {"models": ["vgg16-thin"], "store": RANDOM}
    tables = build_tables(named(a_result(**thin), ablation("a", "b", loss="squared_hinge", **thin)))
    text = FORMATS["markdown"](tables)
    assert "### Ablations of voc2007-vgg16, with random weights or thin nets" in text


def test_an_answer_is_compared_with_its_base() -> None:
    tables = build_tables(SEVERAL)
    assert tables.ablations is not None
    absent, base = tables.ablations
    assert (absent.base, absent.run) == ("absent", None)
    assert absent.answers[0].run.difference is None
    assert absent.answers[0].fields == ()
    assert base.run is not None
    assert (base.run.result, base.run.difference) == ("voc2007-vgg16", None)
    bicubic, squared = base.answers
    assert squared.run.difference == pytest.approx(0.5)
    assert squared.fields == ("loss",)
    assert squared.run.substitutes == ()
    assert bicubic.run.difference == pytest.approx(25 - 89.26)
    assert bicubic.fields == ("interpolation", "limit")
    assert bicubic.run.substitutes == ("limited to 20 images of each part",)


def test_one_table_alone_can_be_asked_for() -> None:
    eleven, twelve, alone = (build_tables(SEVERAL, which) for which in ("11", "12", "ablations"))
    assert [one.table.number for one in eleven.comparisons] == [11]
    assert [one.table.number for one in twelve.comparisons] == [12]
    assert eleven.ablations is twelve.ablations is None
    assert not alone.comparisons
    assert alone.ablations == build_tables(SEVERAL).ablations


# Files


def test_only_results_are_read_and_ordered_by_name(tmp_path: Path) -> None:
    for result in SEVERAL.values():
        result.write(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "svm.json").write_text("no JSON")
    (tmp_path / "notes.json").write_text('["no result"]')
    (tmp_path / "aaa.json").write_text('{"name": "x"}')
    assert read_results(tmp_path) == SEVERAL
    assert list(read_results(tmp_path)) == sorted(SEVERAL)


@pytest.mark.parametrize("damage", ["", "{", '{"recipe_fingerprint": 1}', '{"recipe_fingerprint"}'])
def test_a_damaged_result_is_an_error_that_names_the_file(tmp_path: Path, damage: str) -> None:
    a_result().write(tmp_path)
    (tmp_path / "bad.json").write_text(damage)
    with pytest.raises(ResultError, match=r"bad\.json"):
        read_results(tmp_path)


def test_a_citation_that_leads_nowhere_is_an_error_that_names_the_file() -> None:
    wrong = a_result("wrong", paper={"table": 11, "row": "x", "column": VOC07, "value": 1.0})
    with pytest.raises(ResultError, match=r"'wrong\.json' cites Table 11, x, VOC-2007 mAP"):
        build_tables(named(wrong))


def test_the_committed_page_is_that_of_the_committed_results(tmp_path: Path) -> None:
    """Results of a developer's own runs are not committed, so they do not count here."""
    command = ["git", "ls-files", "-z", "--", "results/*.json"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which results are committed is not known")
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    for path in paths:
        if path.parent == PAGE.parent:
            shutil.copy(path, tmp_path)
    text = FORMATS["markdown"](build_tables(read_results(tmp_path)))
    assert PAGE.read_text("utf-8") == text, "type `vggfeat tables --output results/TABLES.md`"


# Formats


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_results_give_the_same_text_without_paths_or_dates(
    form: str, tmp_path: Path
) -> None:
    for result in SEVERAL.values():
        result.write(tmp_path)
    text = FORMATS[form](build_tables(read_results(tmp_path)))
    assert text == FORMATS[form](build_tables(SEVERAL))
    assert str(tmp_path) not in text
    assert "descriptors.h5" not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d", text)


def test_markdown() -> None:
    text = FORMATS["markdown"](build_tables(SEVERAL))
    lines = text.splitlines()
    for expected in (
        "| Wei et al. 2014 | 81.5 (85.2\\*) | 81.7 (90.3\\*) | – | – |",
        "| VGG Net-D (16) | 89.3 | 89.0 | 91.8 ± 1.0 | 85.0 ± 0.2 |",
        "| **VGG Net-D (16), ours** | **90.00 (+0.70); 89.26 (−0.04)** | **scored by the server** "
        "| **90.00 ± 1.23 (−1.80)** | **not run** |",
        "| VGG Net-D (16) | VOC-2007 mAP | 89.26 | – | – | – | 89.3 | −0.04 | vgg16.caffemodel "
        "| voc2007-vgg16 |",
        "| VGG Net-D (16) | Caltech-101 mean class recall | 90.00 ± 1.23 | – | – | – | 91.8 ± 1.0 "
        "| −1.80 | vgg16 with torchvision's weights (a.pth) | other |",
        "| caltech101 | vgg16-thin with random:0 | fc7 at 256, 384, 512 "
        "| 2,995 images, 102 classes | mean class recall 90.00 ± 1.23 | – | – | – | 1 | thin |",
        "| **the base** | **–** | **89.26** | **–** | **–** | **–** | **–** | **voc2007-vgg16** |",
        "| loss | squared\\_hinge | 89.76 | – | +0.50 | loss | – | squared |",
    ):
        assert expected in lines, expected
    assert text.index("| other |") > text.index("on substitutes")
    assert "sample standard deviation" in text
    assert "Nothing has been run" not in text


def test_without_results_the_page_says_what_to_do() -> None:
    text = FORMATS["markdown"](build_tables({}))
    assert "Nothing has been run yet as in the paper, with the authors' weights" in text
    assert "`vggfeat run RECIPE`" in text
    assert "on substitutes" not in text
    thin = {"thin": SEVERAL["thin"]}
    assert "Nothing has been run" in FORMATS["markdown"](build_tables(thin))


def test_csv_has_a_line_for_each_cell_and_run() -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](build_tables(SEVERAL)))))
    cells = sum(len(table.rows) * len(table.columns) for table in published().tables)
    # two runs more than cells that have one, two bases, three answers, one imitation
    assert len(rows) == cells + 2 + 2 + 3 + 1
    [own] = [row for row in rows if row["result"] == "voc2007-vgg16" and row["table"] == "11"]
    assert {name: value for name, value in own.items() if value} == {
        "table": "11",
        "row": D,
        "column": VOC07,
        "result": "voc2007-vgg16",
        "measure": "mean average precision, VOC 2007 (11 points)",
        "score": "89.26",
        "difference": "-0.04",
        "published": "89.3",
        "weights": "vgg16.caffemodel",
        "dataset": "voc2007",
        "nets": "vgg16 with vgg16.caffemodel",
        "tap": "fc7",
        "scales": "256; 384; 512; 640; 768",
        "images": "4952",
        "classes": "20",
        "seconds": "1.25",
    }
    [thin] = [row for row in rows if row["result"] == "thin"]
    assert (thin["table"], thin["published"], thin["difference"]) == ("imitations", "", "")
    assert thin["substitutes"].startswith("vgg16-thin in the place of vgg16; ")
    [asked] = [row for row in rows if row["result"] == "bicubic"]
    assert (asked["question"], asked["answer"]) == ("loss", HOSTILE)


class Page(HTMLParser):
    """Collects tags, the text of each cell, and what classes the sections have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def test_the_page_loads_nothing_and_escapes_what_it_is_given() -> None:
    text = FORMATS["html"](build_tables(SEVERAL))
    page = Page(text)
    assert not page.open
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "main", "section"),
        *("p", "code", "div", "table", "thead", "tbody", "tr", "th", "td"),
    }
    assert not re.search(r"url\(|@import|https?:", text)
    assert HOSTILE in page.cells
    assert "<b>" not in text
    assert "90.00 (+0.70); 89.26 (−0.04)" in page.cells
    marked = [a for tag, a in page.tags if tag == "section" and a.get("class") == "marked"]
    # the substitutes of Table 11, the ablations with a limited one, and the thin net
    assert len(marked) == 3


def latex_faults(text: str) -> list[str]:
    """Return what plain LaTeX would stumble over: letters, braces, environments, special signs."""
    faults = [f"not ASCII: {c!r}" for c in text if not c.isascii()]
    bare = re.sub(r"\\[{}&%$#_\\]", "", re.sub(r"(?m)^%.*$|(?<=[}{])%$", "", text))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        faults += ["a closing brace too many"] * (depth < 0)
    faults += ["an open brace"] * (depth > 0)
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        if kind == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            faults.append(f"\\end{{{name}}}")
    faults += opened
    faults += re.findall(r"[#%~^_\"<>|]|``|(?<=\\\\)\s*[*\[]", re.sub(r">\{\\ragged", "", bare))
    return faults + ["an open formula"] * (bare.count("$") % 2)


def test_latex_is_balanced_and_escaped() -> None:
    text = FORMATS["latex"](build_tables(SEVERAL))
    assert latex_faults(text) == []
    assert r"VGG Net-D \& Net-E & 89.7 & 89.3 & 92.7 $\pm$ 0.5 & 86.2 $\pm$ 0.3 \\" in text
    assert r"\textbf{90.00 $\pm$ 1.23 ($-$1.80)}" in text
    assert r"squared\_\allowbreak{}hinge" in text
    for damaged in (text[:-15], text + "}", text + "50 % of a_b", text.replace(r"\_", "_")):
        assert latex_faults(damaged), damaged[-20:]


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_can_stand_in_every_format(text: str) -> None:
    tables = build_tables(named(a_result(), ablation("a", text)))
    flat = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    assert latex_faults(FORMATS["latex"](tables)) == []
    assert flat in Page(FORMATS["html"](tables)).cells
    [row] = [r for r in csv.DictReader(io.StringIO(FORMATS["csv"](tables))) if r["result"] == "a"]
    assert row["answer"] == flat
    [line] = [
        line for line in FORMATS["markdown"](tables).split("\n") if line.startswith("| loss |")
    ]
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
    assert len(cells) == 10  # eight, and what is outside of the outer bars
    assert re.sub(r"\\([\\`*_\[\]<>|~$&])", r"\1", line).startswith(f"| loss | {flat} |")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    begin = "\\documentclass{article}\\usepackage{booktabs,array}\\begin{document}\n"
    body = FORMATS["latex"](build_tables(SEVERAL))
    (tmp_path / "t.tex").write_text(begin + body + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000


# The command


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    for result in SEVERAL.values():
        result.write(tmp_path / "in")
    place = ["--results", str(tmp_path / "in")]
    for form, made in FORMATS.items():
        text = made(build_tables(SEVERAL, "11"))
        done = CliRunner().invoke(main, ["tables", "11", "--format", form, *place])
        assert (done.exit_code, done.stdout) == (0, text)
        path = tmp_path / "out" / "tables"
        written = ["tables", "11", "--format", form, *place, "--output", str(path)]
        done = CliRunner().invoke(main, written)
        assert (done.exit_code, done.stdout) == (0, f"{path}\n")
        assert path.read_bytes() == text.encode()


@pytest.mark.slow
def test_a_recipe_that_was_run_is_found_beside_its_figure(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f'name = "tiny"\ndataset = "voc:{tiny_voc}"\nmodels = ["vgg16-thin"]\n'
        f'weights = ["random:0"]\nscales = [224]\ngrid = [1.0]\n'
        f'[paper]\ntable = 11\nrow = "{D}"\ncolumn = "{VOC07}"\nvalue = 89.3\n'
    )
    done = CliRunner().invoke(main, ["run", str(recipe)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["tables", "--format", "csv"])
    [row] = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["result"]]
    score = Result.read(Path("results/tiny.json")).score
    assert score is not None
    assert float(row["score"]) == pytest.approx(100 * score, abs=1e-3)
    assert (row["table"], row["difference"]) == ("imitations", "")
    assert row["substitutes"] == (
        "vgg16-thin in the place of vgg16; voc:PATH in the place of voc2007; "
        "scales 224 in the place of 256, 384, 512, 640, 768; "
        "vgg16-thin with random weights (random:0)"
    )


def test_the_command_refuses_a_damaged_result(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    out = tmp_path / "page.md"
    words = ["tables", "--results", str(tmp_path), "--output", str(out)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "bad.json" in done.stderr
    assert not out.exists()


def test_a_folder_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tables", "--results", str(tmp_path / "absent")])
    assert done.exit_code == 0
    assert done.stdout == FORMATS["markdown"](build_tables({}))
    assert "there is no folder" in done.stderr


def test_the_command_offers_what_there_is() -> None:
    which, form, *_ = main.commands["tables"].params
    assert isinstance(which.type, click.Choice)
    assert isinstance(form.type, click.Choice)
    numbers = [str(table.number) for table in published().tables]
    assert list(which.type.choices) == [*numbers, "ablations", "all"]
    assert list(form.type.choices) == list(FORMATS)
