"""Trees that other tools write, each beside the plain one of tests/data/test_voc.py's layout."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vggfeat.data import open_dataset
from vggfeat.data.records import Dataset
from vggfeat.data.voc_tree import own_measure
from vggfeat.errors import DatasetError, DatasetNotFoundError, ListNotFoundError

PARTS: Mapping[str, Sequence[str]] = {"train": "cad", "val": "eb", "test": "fg"}
LABELS: Mapping[str, Mapping[str, int]] = {  # class → image → label
    "cat": {"c": 1, "a": -1, "d": 0, "e": 1, "b": -1, "f": 1, "g": -1},
    "dog": {"c": -1, "a": 1, "d": 1, "e": -1, "b": 1, "f": 1, "g": 0},
}


def write(root: Path, parts: Mapping[str, Sequence[str]] = PARTS) -> Path:
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    for part, ids in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"{i}\n" for i in ids))
        for name, labels in LABELS.items():
            rows = [f"{i} {labels[i]:2d}\n" for i in ids]
            (lists / f"{name}_{part}.txt").write_text("".join(rows))
        for i in ids:
            (root / "JPEGImages" / f"{i}.jpg").touch()
    return root


def annotate(root: Path, *, case: str = "Annotations") -> Path:
    """Write what the labels say as XML: 0 is an object that is difficult."""
    (root / case).mkdir()
    for i in LABELS["cat"]:
        objects = [
            f"<object><name>{name}</name><difficult>{int(labels[i] == 0)}</difficult></object>"
            for name, labels in LABELS.items()
            if labels[i] >= 0
        ]
        (root / case / f"{i}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    return root


def opened(root: Path) -> Dataset:
    return open_dataset(f"voc:{root}", Path("unused"))


def parts_of(dataset: Dataset) -> list[tuple[Sequence[str], list[list[int]]]]:
    assert [item.id for item in dataset.items] == sorted(dataset.splits[0].ids)
    return [(part.ids, part.labels.tolist()) for part in dataset.splits[0].parts]


PLAIN = [(tuple(ids), [[LABELS[c][i] for c in LABELS] for i in ids]) for ids in PARTS.values()]


def rewritten(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], None]:
    def rewrite(root: Path) -> None:
        for path in (root / "ImageSets" / "Main").iterdir():
            path.write_bytes(change(path.read_text()).encode(encoding))

    return rewrite


def moved(**names: str) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        for old, new in names.items():
            place = root if (root / old).exists() else root / "ImageSets"
            place = place if (place / old).exists() else root / "ImageSets" / "Main"
            for path in [place / old] if (place / old).exists() else place.glob(f"*{old}.txt"):
                path.rename(path.with_name(re.sub(f"{old}(?=.txt$|$)", new, path.name)))

    return move


def apple(root: Path) -> None:
    for path in [*root.rglob("*.*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7\0\0")


def stray(root: Path) -> None:
    for name in ("default.txt", "labels.csv", "README"):
        (root / "ImageSets" / "Main" / name).write_text("x")


def flat(root: Path) -> None:
    for path in (root / "ImageSets" / "Main").iterdir():
        path.rename(root / "ImageSets" / path.name)
    (root / "ImageSets" / "Main").rmdir()


def unlabelled(root: Path) -> None:
    for path in (root / "ImageSets" / "Main").glob("*_*"):
        path.unlink()
    annotate(root)


def shouting(root: Path) -> None:
    unlabelled(root)
    for path in (root / "Annotations").iterdir():
        path.rename(path.with_suffix(".XML"))


def more(root: Path) -> None:
    (root / "JPEGImages" / "z.png").touch()
    (root / "JPEGImages" / "notes.md").touch()


VARIANTS: dict[str, tuple[Callable[[Path], object], str]] = {  # → what is told
    "mark": (rewritten(str, "utf-8-sig"), ""),
    "utf-16": (rewritten(str, "utf-16"), ""),
    "crlf": (rewritten(lambda text: text.replace("\n", "\r\n")), ""),
    "plus": (rewritten(lambda text: text.replace("  1", " +1")), ""),
    "tabs": (rewritten(lambda text: text.replace(" ", "\t")), ""),
    "order": (
        rewritten(lambda text: text if len(text) < 8 else "\n".join(text.split("\n")[::-1])),
        "",
    ),
    "endings": (
        rewritten(lambda text: re.sub(r"^(\w)", r"\1.jpg", text, flags=re.M)),
        "7 ids stand in the lists with a folder or an ending.* 'c.jpg', which is 'c'",
    ),
    "apple": (apple, r"hidden files in '.*Main' are left out, the first is '\._cat_test.txt'"),
    "stray": (stray, "3 files in '.*Main' are no lists of train, val, test, trainval.*'README'"),
    "more": (more, "1 images in '.*JPEGImages' are named nowhere, and are left out.* 'z.png'"),
    "folders": (moved(JPEGImages="jpegimages", Main="main", ImageSets="IMAGESETS"), ""),
    "images": (moved(JPEGImages="Images"), ""),
    "parts": (moved(train="training", val="Valid", test="Testing"), ""),
    "flat": (flat, ""),
    "annotations": (unlabelled, "no class has a list: the labels are those of the objects in"),
    "annotations in capitals": (shouting, "no class has a list"),
    "both": (annotate, ""),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_tree_of_another_tool_is_the_plain_one(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = write(tmp_path / "mine")
    change, told = VARIANTS[name]
    change(root)
    dataset = opened(root)
    assert dataset.classes == tuple(LABELS)
    found = parts_of(dataset)
    if name == "order":  # of the list of the part; each image keeps its labels
        found = [
            (ids[::-1], labels[::-1]) if len(ids) < 3 else (ids, labels) for ids, labels in found
        ]
        assert {i: row for ids, rows in found for i, row in zip(ids, rows, strict=True)} == {
            i: row for ids, rows in PLAIN for i, row in zip(ids, rows, strict=True)
        }
    else:
        assert found == PLAIN
    assert re.search(told, "\n".join(caplog.messages))
    assert bool(caplog.messages) == bool(told)
    stored = open_dataset(f"voc:{root}", Path("unused"), stored_ids=())
    assert parts_of(stored) == parts_of(dataset)
    assert all(Path(item.source.name).is_file() for item in dataset.items)


# --- where it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["", "..", "../..", "ImageSets", "ImageSets/Main", "JPEGImages", "Annotations"]
)
def test_the_folder_above_or_below_is_found(
    tmp_path: Path, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = annotate(write(tmp_path / "data" / "VOCdevkit" / "VOC2012"))
    (tmp_path / "data" / "other").mkdir()
    path = (root / given).resolve()
    dataset = opened(path)
    assert parts_of(dataset) == PLAIN
    assert dataset.name == f"voc:{path}"
    assert caplog.messages == [f"the VOC tree of '{path}' is '{root}'"] * bool(given)
    assert own_measure(path) == ("voc2010", f"it is of 2012, as the name of '{root}' says")


def test_of_several_trees_each_is_named(tmp_path: Path) -> None:
    for year in (2007, 2012):
        write(tmp_path / "VOCdevkit" / f"VOC{year}")
    for given in (tmp_path, tmp_path / "VOCdevkit"):
        with pytest.raises(DatasetError, match=r"has 2 VOC trees .*Write voc:.*VOC2007 or voc:"):
            opened(given)
        assert own_measure(given) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"Looked for '.*ImageSets/Main', '.*Annotations'.*; '.*' holds nothing"),
        (["train/a.jpg", "test/b.jpg"], "holds test, train"),
        (["a.xml", "a.jpg"], r"Put its .xml files into '.*Annotations'"),
    ],
)
def test_what_is_there_instead_is_said(tmp_path: Path, files: Sequence[str], message: str) -> None:
    for file in files:
        (tmp_path / "x" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / file).touch()
    (tmp_path / "x").mkdir(exist_ok=True)
    with pytest.raises(DatasetNotFoundError, match=message):
        opened(tmp_path / "x")
    with pytest.raises(DatasetNotFoundError, match="there is no '"):
        opened(tmp_path / "nowhere")


# --- its parts ----------------------------------------------------------------------------------

EVERYTHING = "cadebfg"


def first_fifth(ids: Sequence[str]) -> set[str]:
    order = sorted(ids, key=lambda i: hashlib.sha256(f"0:{i}".encode()).digest())
    return {*order[: max(1, round(len(ids) / 5))]}


def divided(dataset: Dataset) -> list[str]:
    return ["".join(part.ids) for part in dataset.splits[0].parts]


def without(ids: str, some: set[str]) -> str:
    return "".join(i for i in ids if i not in some)


def only(ids: str, some: set[str]) -> str:
    return "".join(i for i in ids if i in some)


@pytest.mark.parametrize("annotations", [False, True])
@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"trainval": "cadeb", "test": "fg"}, "no list of val: a hash takes a fifth of train"),
        ({"train": "cadeb", "test": "fg"}, "no list of val: a hash takes a fifth of train"),
        ({"train": "cadeb", "val": "", "test": "fg"}, "1 lists name no image"),
        ({"train": "cadeb", "trainval": "cadeb", "test": "fg"}, "no list of val"),
    ],
)
def test_without_val_a_fifth_of_train_is(
    tmp_path: Path,
    parts: Mapping[str, str],
    told: str,
    annotations: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = write(tmp_path / "mine", parts)
    if annotations:
        unlabelled(root)
    val = first_fifth("cadeb")
    assert divided(opened(root)) == [without("cadeb", val), only("cadeb", val), "fg"]
    assert any(told in message for message in caplog.messages)


@pytest.mark.parametrize("given", ["train", "val"])
def test_of_trainval_and_one_of_them_the_rest_is_the_other(tmp_path: Path, given: str) -> None:
    parts = {"trainval": "cadeb", given: PARTS[given], "test": "fg"}
    assert parts_of(opened(write(tmp_path / "mine", parts))) == PLAIN


def test_the_class_lists_of_trainval_serve_for_both(tmp_path: Path) -> None:
    root = write(tmp_path / "mine", {**PARTS, "trainval": "cadeb"})
    for path in [*(root / "ImageSets" / "Main").glob("*_*")]:
        if path.stem.partition("_")[2] in {"train", "val"}:
            path.unlink()
    assert parts_of(opened(root)) == PLAIN


def test_what_no_list_names_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = write(tmp_path / "mine")
    unlabelled(root)
    shutil.copy(root / "Annotations" / "a.xml", root / "Annotations" / "z.xml")
    (root / "Annotations" / "notes.txt").touch()
    for name in ("y.gif", "z.jpg", "notes.md", ".DS_Store"):
        (root / "JPEGImages" / name).touch()
    assert parts_of(opened(root)) == PLAIN
    images, annotations = root / "JPEGImages", root / "Annotations"
    assert {*caplog.messages} >= {
        f"1 files in '{annotations}' are no annotations, and are left out, the first is "
        "'notes.txt'",
        f"1 annotations are of images in no list, and are left out, the first is "
        f"'{annotations / 'z.xml'}'",
        f"1 hidden files in '{images}' are left out, the first is '.DS_Store'",
        f"1 files in '{images}' are no images, and are left out, the first is 'notes.md'",
        f"2 images in '{images}' are named nowhere, and are left out, the first is 'y.gif'",
    }


def test_what_trainval_has_beyond_both_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path / "mine", {"train": "ca", "val": "e", "test": "fg", "trainval": "cadeb"})
    assert divided(opened(root)) == ["ca", "e", "fg"]
    assert caplog.messages == [
        "2 images of trainval are in no list of a part, and are left out, the first is 'd'"
    ]


def test_without_test_val_stands_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path / "mine", {"train": "cadf", "val": "ebg"})
    val = first_fifth("cadf")
    assert divided(opened(root)) == [without("cadf", val), only("cadf", val), "ebg"]
    assert caplog.messages == [
        "there is no list of test: val stands in its place, and a fifth of train for val"
    ]


@pytest.mark.parametrize("part", ["train", "trainval", None])
def test_without_test_and_val_a_hash_divides(
    tmp_path: Path, part: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path / "mine", {part or "train": EVERYTHING})
    if part is None:  # annotations and images alone
        annotate(root)
        shutil.rmtree(root / "ImageSets")
    order = EVERYTHING if part else "".join(sorted(EVERYTHING))
    test = first_fifth(order)
    val = first_fifth(without(order, test))
    assert divided(opened(root)) == [
        without(order, test | val),
        only(order, val),
        only(order, test),
    ]
    assert any("there is no list of test: a hash takes a fifth" in m for m in caplog.messages)
    again = open_dataset(f"voc:{root}", Path("unused"), seed=1)
    assert divided(again) != divided(opened(root))


def test_unknown_labels_of_test_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = write(tmp_path / "mine")
    for path in (root / "ImageSets" / "Main").glob("*_test.txt"):
        path.unlink()
    assert not opened(root).splits[0].test.labels.any()
    [told] = caplog.messages
    assert told.startswith("no class has a list of test in")


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JPEGImages/c.png": ""}, r"c\.jpg' and '.*c\.png' are 2 files of the image 'c'"),
        ({"ImageSets/Main/valid.txt": "e\nb\n"}, "'valid.txt' are two lists of one part"),
        ({"ImageSets/Main/cat_train.txt": "c 1\na 1\nd 1\nc -1\n"}, "'c' has the label -1, and 1"),
        ({"ImageSets/Main/cow_train.txt": "c 1\na 1\nd 1\n"}, "There is no list '.*cow_val.txt'"),
        ({"ImageSets/Main/val.txt": "e\nx\n"}, "2 images.*'x' is missing"),
        ({"ImageSets/Main/train.txt": "c\na.png\na.jpg\n"}, "two images of one id"),
        (
            {
                "ImageSets/Main/test.txt": "F\ng\n",
                "ImageSets/Main/cat_test.txt": "F 1\ng 1\n",
                "ImageSets/Main/dog_test.txt": "F 1\ng 1\n",
            },
            r"name 'F', but .* 1 of 7 images are absent.*There is 'f.jpg'; write that",
        ),
    ],
)
def test_lists_that_contradict_are_refused(
    tmp_path: Path, change: Mapping[str, str], message: str
) -> None:
    root = write(tmp_path / "mine")
    for name, text in change.items():
        (root / name).write_text(text)
    with pytest.raises((DatasetError, ListNotFoundError), match=message):
        opened(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c.xml": None}, r"name 'c', but there is no '.*c\.xml'; 1 annotations are absent"),
        ({"c.xml": "<!DOCTYPE x><annotation/>"}, r"c\.xml' is no sound annotation: it has a DOC"),
        ({"c.xml": "<annotation><object/></annotation>"}, "an object has no name"),
        ({f"{i}.xml": "<annotation/>" for i in EVERYTHING}, "The 7 annotations .* name no object"),
        (dict.fromkeys((f"{i}.xml" for i in EVERYTHING), None), "holds no annotation"),
    ],
)
def test_annotations_that_say_too_little_are_refused(
    tmp_path: Path, change: Mapping[str, str | None], message: str
) -> None:
    root = write(tmp_path / "mine")
    unlabelled(root)
    for name, text in change.items():
        (root / "Annotations" / name).unlink()
        if text is not None:
            (root / "Annotations" / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        opened(root)


def test_images_without_an_object_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    root = write(tmp_path / "mine")
    unlabelled(root)
    path = root / "Annotations" / "a.xml"
    path.write_text("<annotation/>")
    (root / "Annotations" / "c.xml").write_text(
        "<annotation><object><name>Cat</name></object></annotation>"
    )
    dataset = opened(root)
    assert dataset.classes == ("Cat", "cat", "dog")
    assert dataset.splits[0].train.labels.tolist() == [[1, -1, -1], [-1, -1, -1], [-1, 0, 1]]
    told = "\n".join(caplog.messages)
    assert (
        f"1 annotations name no object: their images have no class, the first is '{path}'" in told
    )


@pytest.mark.parametrize("parts", [{"test": "fg"}, {"val": "eb"}, {"train": "", "test": "fg"}])
def test_a_tree_without_train_is_refused(tmp_path: Path, parts: Mapping[str, str]) -> None:
    root = write(tmp_path / "mine", parts)
    with pytest.raises(DatasetError, match=r"Expected train\.txt or trainval\.txt"):
        opened(root)
