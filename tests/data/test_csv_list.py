from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from vggfeat.data import open_dataset
from vggfeat.data.records import Dataset, Kind
from vggfeat.errors import DatasetError, DatasetNotFoundError, RecipeError
from vggfeat.files.sources import FileSource
from vggfeat.recipe import Recipe


def opened(folder: Path, text: str, *, seed: int = 0) -> Dataset:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    for line in text.splitlines()[1:]:
        file = folder / line.partition(",")[0]
        if file.suffix == ".jpg":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return open_dataset(f"csv:{path}", Path("unused"), seed=seed)


GIVEN = "path,label,split\nb.jpg,cat,train\na/c.jpg,dog,val\nd.jpg,cat,test\ne.jpg,dog,train\n"


def test_paths_labels_and_parts_are_the_lists(tmp_path: Path) -> None:
    dataset = opened(tmp_path, GIVEN)
    assert (dataset.kind, dataset.classes) == (Kind.ONE_CLASS, ("cat", "dog"))
    assert [item.id for item in dataset.items] == ["a/c.jpg", "b.jpg", "d.jpg", "e.jpg"]
    assert all(item.source == FileSource(tmp_path / item.id) for item in dataset.items)
    [split] = dataset.splits
    assert split.train.ids == ("b.jpg", "e.jpg")
    assert split.train.labels.tolist() == [[1, -1], [-1, 1]]
    assert (split.val.ids, split.test.ids) == (("a/c.jpg",), ("d.jpg",))


def test_several_labels_are_independent(tmp_path: Path) -> None:
    text = "label,path,split\ncat|dog,b.jpg,train\n,a.jpg,val\n dog | dog ,d.jpg,test\n"
    for name in ("b.jpg", "a.jpg", "d.jpg"):
        (tmp_path / name).touch()
    dataset = opened(tmp_path, text)
    assert dataset.kind is Kind.MULTI_LABEL
    [split] = dataset.splits
    assert split.train.labels.tolist() == [[1, 1]]
    assert split.val.labels.tolist() == [[-1, -1]]
    assert split.test.labels.tolist() == [[-1, 1]]


def test_without_parts_a_hash_decides_for_each_class(tmp_path: Path) -> None:
    names = [f"{label}{n}.jpg" for label in "ab" for n in range(10)]
    text = "path,label\n" + "".join(f"{name},{name[0]}\n" for name in names)
    [split] = opened(tmp_path, text, seed=3).splits
    for label in "ab":
        own = [name for name in names if name[0] == label]
        order = sorted(own, key=lambda i: hashlib.sha256(f"3:{i}".encode()).digest())
        for part, ids in (("test", order[:2]), ("val", order[2:4]), ("train", order[4:])):
            assert [i for i in getattr(split, part).ids if i[0] == label] == sorted(ids)


def test_a_fifth_of_train_is_val_where_there_is_none(tmp_path: Path) -> None:
    rows = [f"{label}{n}.jpg,{label},train\n" for label in "ab" for n in range(5)]
    text = "path,label,split\n" + "".join(rows) + "t.jpg,a,test\n"
    [split] = opened(tmp_path, text).splits
    sizes = [len(part.ids) for part in (split.train, split.val, split.test)]
    assert sizes == [8, 2, 1]
    assert split.val.labels.sum(axis=0).tolist() == [0, 0]  # one of each class


def test_a_list_without_any_label_has_no_classes(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "path,label\n" + "".join(f"{n}.jpg,\n" for n in range(5)))
    assert (dataset.kind, dataset.classes) == (Kind.UNLABELLED, ())
    assert len(dataset.items) == 5


def test_quotes_and_a_byte_order_mark_are_csvs(tmp_path: Path) -> None:
    names = ["x, y.jpg", "ü.jpg", 'q"q.jpg']
    for name in names:
        (tmp_path / name).touch()
    text = '\ufeffpath,label,split\r\n"x, y.jpg",a,train\r\nü.jpg,b,val\r\n"q""q.jpg",a,test\r\n'
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    dataset = open_dataset(f"csv:{path}", Path("unused"))
    assert {item.id for item in dataset.items} == set(names)


def test_an_absolute_path_stays_one(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    image = tmp_path / "far.jpg"
    image.touch()
    path = tmp_path / "lists" / "a.csv"
    path.write_text(f"path,label,split\n{image},a,train\n")
    [item] = open_dataset(f"csv:{path}", Path("unused")).items
    assert item.source == FileSource(image)


def test_a_store_stands_in_for_the_images(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(GIVEN)
    stored = ["a/c.jpg", "b.jpg", "d.jpg", "e.jpg"]
    dataset = open_dataset(f"csv:{path}", Path("unused"), stored_ids=stored)
    assert [item.id for item in dataset.items] == stored
    with pytest.raises(DatasetError, match=r"line 5: there is no '.*e.jpg'"):
        open_dataset(f"csv:{path}", Path("unused"), stored_ids=stored[:3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns none"),
        ("path,label\n", "lists no image"),
        ("path\nb.jpg\n", "columns path, and none of labels.* the first line `path,label`"),
        ("path,lable\nb.jpg,a\n", "If 'lable' holds them, make the first line `path,label`"),
        ("path,label,label\nb.jpg,a,a\n", "each once"),
        ("path,label\nb.jpg\n", "line 2: another number of columns"),
        ("path,label\nb.jpg,a,c\n", "line 2: another number of columns"),
        ("path,label\n,a\n", "line 2: no path"),
        ("path,label,split\nb.jpg,a,tain\n", "split 'tain'. Did you mean 'train'"),
        ("path,label\nb.jpg,a\n\nb.jpg,c\n", "line 4: 'b.jpg' is .* as a in line 2 and as c here"),
        ("path,label\nb.jpg,a\nx.png,a\n", r"line 3: there is no '.*x.png'"),
        ("path,label\nb.jpg,a\nc.jpg,a\n", "Class 'a' has 2 images. Expected at least 3"),
        ('path,label\n"b.jpg,a\n', "no CSV file"),
    ],
)
def test_a_wrong_list_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path, text)


def test_absence_and_a_forgotten_prefix(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"Looked for '.*nothing.csv'"):
        open_dataset(f"csv:{tmp_path / 'nothing.csv'}", Path("unused"))
    with pytest.raises(RecipeError, match=r"Did you mean 'csv:photos\.csv'"):
        open_dataset("photos.csv", Path("unused"))


def test_one_file_under_two_paths_may_not_be_in_two_parts(tmp_path: Path) -> None:
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "sub" / "x.jpg").symlink_to("../b.jpg")
    (tmp_path / "d.jpg").hardlink_to(tmp_path / "a.jpg")
    path = tmp_path / "list.csv"
    for other in ("sub/../a.jpg", "b.jpg", "d.jpg", "sub/x.jpg"):
        path.write_text(f"path,label,split\na.jpg,x,train\nc.jpg,y,test\n{other},x,test\n")
        both = f"train and in test, the first is 'a.jpg' ('a.jpg' and '{other}')"
        with pytest.raises(DatasetError, match=re.escape(f"1 images are in {both}.")):
            open_dataset(f"csv:{path}", Path("unused"))
        path.write_text(f"path,label,split\na.jpg,x,train\nc.jpg,y,val\n{other},x,train\n")
        assert len(open_dataset(f"csv:{path}", Path("unused")).items) == 3
    rows = "a.jpg,x,train\nc.jpg,y,test\nsub/../a.jpg,x,test\n"
    path.write_text(f"path,label,split\n{rows}")
    for name in ("b.jpg", "d.jpg", "a.jpg", "c.jpg"):
        (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match="1 images are in train and in test"):
        stored = ["a.jpg", "c.jpg", "sub/../a.jpg"]
        open_dataset(f"csv:{path}", Path("unused"), stored_ids=stored)


# --- what it is scored by -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "measure"),
    [
        (["a", "b"], "mean_class_recall"),
        (["a|b", "b"], "voc2007"),
        (["a", ""], "voc2007"),
        (["", ""], "mean_class_recall"),  # without labels: never scored
    ],
)
def test_a_list_is_scored_by_what_fits_its_labels(
    tmp_path: Path, labels: list[str], measure: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label\n" + "".join(f"{n}.jpg,{x}\n" for n, x in enumerate(labels)))
    caplog.set_level("INFO", "vggfeat")
    values = {"dataset": f"csv:{path}", "models": ["vgg16"]}
    assert Recipe.build(values, "a test").measure == measure
    told = f"csv:{path} is scored by voc2007: its images have any number of classes"
    assert caplog.messages == ([told] if measure == "voc2007" else [])
    assert Recipe.build({**values, "measure": "voc2010"}, "a test").measure == "voc2010"


@pytest.mark.parametrize("data", [b"", b"path,lable\na,b\n", b"\xff", None])
def test_a_list_that_cannot_be_read_is_refused_when_it_is_opened(
    tmp_path: Path, data: bytes | None
) -> None:
    path = tmp_path / "list.csv"
    if data is not None:
        path.write_bytes(data)
    recipe = Recipe.build({"dataset": f"csv:{path}", "models": ["vgg16"]}, "a test")
    assert recipe.measure == "mean_class_recall"
    with pytest.raises((DatasetError, DatasetNotFoundError)):
        open_dataset(recipe.dataset, Path("unused"))


# --- lists of other programs: each is the plain one, written otherwise --------------------------

IMAGES = {f"{name}/{n}.jpg": name for name in ("cat", "dog") for n in range(5)}
PLAIN = "path,label\n" + "".join(f"{i},{name}\n" for i, name in IMAGES.items())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for image in IMAGES:
        (tmp_path / image).parent.mkdir(exist_ok=True)
        (tmp_path / image).touch()
    return tmp_path


def read(folder: Path, data: str | bytes, stored: Sequence[str] | None = None) -> Dataset:
    path = folder / "list.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_dataset(f"csv:{path}", Path("unused"), stored_ids=stored)


def contents(dataset: Dataset) -> object:
    [split] = dataset.splits
    parts = [(part.ids, part.labels.tolist()) for part in split.parts]
    return dataset.kind, dataset.classes, [item.id for item in dataset.items], parts


def columns(header: str, row: str, separator: str = ",") -> str:
    lines = [row.format(i=i, name=name) for i, name in IMAGES.items()]
    return "\n".join([header, *lines, ""]).replace(",", separator)


BACKSLASHES = PLAIN.replace("/", "\\")
ENDLESS = PLAIN.replace(".jpg", "")
VARIANTS: dict[str, tuple[str | bytes, str]] = {  # → what is told
    "semicolons": (columns("path,label", "{i},{name}", ";"), "is separated by semicolons"),
    "tabs": (columns("path,label", "{i},{name}", "\t"), "is separated by tabs"),
    "sep=": ("sep=;\r\n" + PLAIN.replace(",", ";"), "is separated by semicolons"),
    "mark": (PLAIN.encode("utf-8-sig"), ""),
    "utf-16": (PLAIN.encode("utf-16"), ""),
    "utf-16-be": (b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"), "by tabs"),
    "crlf": (PLAIN.replace("\n", "\r\n"), ""),
    "cr": (PLAIN.replace("\n", "\r"), ""),
    "case": (columns("Path,LABEL", "{i},{name}"), "the column 'Path' of"),
    "names": (columns("File Name,Class_Name", "{i},{name}"), "'Class_Name' of .* is its label"),
    "order": (columns("category,image-path", "{name},{i}"), "'image-path' of .* is its path"),
    "blanks": (columns("path, label", '{i}, "{name}"'), ""),
    "quotes": (columns("path,label", '"{i}","{name}"'), ""),
    "blank lines": ("\n" + PLAIN.replace("\n", "\n,\n\n"), ""),
    "index": (columns(",path,label", "7,{i},{name}"), "1 columns of .* are ignored, .* is ''"),
    "trailing": (columns("path,label,,", "{i},{name},,"), "2 columns of .* are ignored"),
    "more": (columns("id,path,label,width", "7,{i},{name},90"), "2 columns .* ignored, .* 'id'"),
    "backslashes": (
        BACKSLASHES,
        r"10 paths have backslashes, .*line 2: 'cat\\\\0.jpg', which is 'cat/0",
    ),
    "endless": (ENDLESS, "10 paths lack the ending .* line 2: 'cat/0', which is 'cat/0.jpg'"),
    "both": (BACKSLASHES.replace(".jpg", ""), "10 paths lack the ending"),
    "detour": (PLAIN.replace("cat/", "./cat/"), ""),
    "padded": (PLAIN.replace("cat/0.jpg", " cat/0.jpg "), "1 paths have blanks around them"),
    "blank labels": (
        PLAIN.replace("0.jpg,cat", "0.jpg,cat "),
        "1 labels have blanks .*line 2: 'cat '",
    ),
    "again": (PLAIN + "dog/4.jpg,dog\n", "1 lines repeat an earlier one.* line 12: 'dog/4.jpg'"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_list_of_another_program_is_the_plain_one(
    photos: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    plain = read(photos, PLAIN)
    assert caplog.messages == []
    data, told = VARIANTS[name]
    found = read(photos, data)
    assert contents(found) == contents(plain)
    assert all(Path(item.source.name).is_file() for item in found.items)
    assert re.search(told, "\n".join(caplog.messages))
    assert bool(caplog.messages) == bool(told)
    stored = read(photos, data, [*IMAGES])
    assert contents(stored) == contents(plain)


@pytest.mark.parametrize(
    ("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("1", "-1")]
)
def test_columns_of_yes_and_no_are_classes(
    photos: Path, yes: str, no: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    cells = {"cat": f"{yes},{no}", "dog": f"{no},{yes}"}
    rows = "".join(f"{i},{cells[name]},90\n" for i, name in IMAGES.items())
    found = read(photos, f"filename,cat,dog,width\n{rows}")
    assert contents(found) == contents(read(photos, PLAIN))
    assert any(
        "hold nothing but yes and no, and are its classes: cat, dog" in m for m in caplog.messages
    )
    assert any("1 columns of" in message and "'width'" in message for message in caplog.messages)
    several = read(
        photos,
        f"filename,cat,dog\ncat/0.jpg,{yes},{yes}\ncat/1.jpg,{no},{no}\ncat/2.jpg,{no},{yes}\n",
    )
    assert several.kind is Kind.MULTI_LABEL
    found_labels = {
        i: labels
        for part in several.splits[0].parts
        for i, labels in zip(part.ids, part.labels.tolist(), strict=True)
    }
    assert found_labels == {"cat/0.jpg": [1, 1], "cat/1.jpg": [-1, -1], "cat/2.jpg": [-1, 1]}


@pytest.mark.parametrize(
    "parts",
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "dev", " test ")],
)
@pytest.mark.parametrize("column", ["split", "Set", "data set", "Partition"])
def test_parts_may_have_other_names(photos: Path, parts: Sequence[str], column: str) -> None:
    rows = "".join(f"{i},{name},{parts[n % 3]}\n" for n, (i, name) in enumerate(IMAGES.items()))
    [split] = read(photos, f"path,label,{column}\n{rows}").splits
    for n, part in enumerate((split.train, split.val, split.test)):
        assert part.ids == tuple([*IMAGES][n::3])


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["train", "val", "test"], []),
        (["train", "test"], ["no image of val: a hash takes a fifth of train"]),
        (["train", "val"], ["no image of test, so that nothing can be scored"]),
        (["test"], ["no image of train, so that nothing can be learnt"]),
        (["train"], ["no image of val", "no image of test"]),
    ],
)
def test_parts_without_an_image_are_told(
    photos: Path, parts: list[str], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    rows = [f"{i},{name},{parts[n % len(parts)]}" for n, (i, name) in enumerate(IMAGES.items())]
    read(photos, "\n".join(["path,label,split", *rows]))
    assert len(caplog.messages) == len(told)
    assert all(one in message for one, message in zip(told, caplog.messages, strict=True))


def test_paths_may_be_relative_to_the_working_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vggfeat")
    (photos / "lists").mkdir()
    monkeypatch.chdir(photos)
    found = read(photos / "lists", PLAIN)
    assert [item.id for item in found.items] == [*IMAGES]
    assert found.items[0].source == FileSource(Path("cat/0.jpg"))
    [told] = caplog.messages
    assert told == f"the paths are relative to the working folder, not to '{photos / 'lists'}'"
    (photos / "lists" / "cat").mkdir()
    (photos / "lists" / "cat" / "0.jpg").touch()  # of the two, the folder with more of them
    assert read(photos / "lists", PLAIN).items[0].source == FileSource(Path("cat/0.jpg"))
    with pytest.raises(DatasetError, match=r"line 3: there is no '.*lists/x.jpg'; 1 of 2 paths"):
        read(photos / "lists", "path,label\ncat/0.jpg,a\nx.jpg,a\n")


def test_one_image_without_a_label_is_named(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read(photos, PLAIN.replace("cat/4.jpg,cat", "cat/4.jpg, "))
    assert found.kind is Kind.MULTI_LABEL
    [told] = caplog.messages
    assert told.startswith("1 images have no label and all others have one")
    assert told.endswith("the first is line 6: 'cat/4.jpg'")
    caplog.clear()
    read(photos, PLAIN.replace("cat/4.jpg,cat", "cat/4.jpg,").replace("0.jpg,cat", "0.jpg,cat|x"))
    assert caplog.messages == []  # where some have two, none is a number like any other


@pytest.mark.parametrize(
    ("labels", "suspects"),
    [
        (["clear, primary", "clear", "haze"], ["clear, primary"]),
        (["a;b", "c", "c"], ["a;b"]),
        (["['a']", "c", "c"], ["['a']"]),
        (["clear primary", "clear", "haze primary"], ["clear primary"]),
        (["golden retriever", "labrador retriever", "dog"], []),
        (["a|b", "b", "c"], []),
    ],
)
def test_labels_that_look_like_several_are_told(
    photos: Path, labels: list[str], suspects: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f'{i},"{labels[n % 3]}"' for n, i in enumerate([*IMAGES][:9])]
    read(photos, "\n".join(["path,label", *rows]))
    assert len(caplog.messages) == (1 if suspects else 0)
    for message, suspect in zip(caplog.messages, suspects, strict=True):
        assert message.startswith("1 labels look like several in one")
        assert f"first is {suspect!r} in line" in message


def test_one_file_with_other_labels_under_another_path_is_told(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = (
        "cat/0.jpg,cat,train\ncat/../cat/0.jpg,dog,train\ndog/0.jpg,dog,val\ndog/1.jpg,dog,test\n"
    )
    read(photos, f"path,label,split\n{rows}")
    assert caplog.messages == [
        "1 files are listed under two paths with other labels, the first is 'cat/../cat/0.jpg' and "
        "'cat/0.jpg'"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat/0.jpg,cat\n", "names an image: if there is no header, write `path,label` above"),
        ("cat;cat/0.jpg\n", "write `label;path` above"),
        ("TRAIN,cat/0.jpg,cat,90\n", "write `split,path,label,other3` above"),
        ("photo,label\ncat/0.jpg,a\n", "columns photo, label, and none of paths"),
        ("file,image,label\n0,0,a\n", "'file' and 'image' may both be the path"),
        ("path,tag,target\n0,0,a\n", "'tag' and 'target' may both be the label"),
        ("path,breed,age\n0,a,1\n", "If 'age' holds|If 'breed' holds"),
        ("path,a,b\ncat/0.jpg,0.5,0.5\n", "and none of labels"),
        ("path,a\ncat/0.jpg,1\n", "and none of labels"),
        ("path,a,b\ncat/0.jpg,1,-1\ncat/1.jpg,0,-1\ncat/2.jpg,-1,2\n", "and none of labels"),
        ("path,label,spilt\n0,a,train\n1,a,test\n", "a column 'spilt' of test, train.*'split'"),
        ("path,label,split\n0,a,\n", "line 2: split ''"),
        *(
            (f"path,label\ncat/0.jpg,{x}\n", f"line 2: label '{x}', which is how programs")
            for x in ("nan", "NaN", "<NA>", "N/A", "null", "None", "NA")
        ),
        ("path,label\ncat/0.JPG,a\n", "There is 'cat/0.jpg'"),
        ("path,label\n0.jpg,a\n", "There is 'cat/0.jpg'; write that"),
        ("path,label\n0,a\n", "There is 'cat/0.jpg'; write that"),
        ("path,label\nC:\\photos\\0.jpg,a\n", "of files on this machine"),
        ("path,label\nhttps://a.b/0.jpg,a\n", "of files on this machine"),
        (
            "path,label\ncat/0.jpg,cat\ncat/0.jpg,cat|dog\n",
            r"as cat in line 2 and as cat\|dog here",
        ),
        (
            "path,label,split\ncat/0.jpg,a,train\ncat/0.jpg,a,test\n",
            "a in train in line 2 .*a in test",
        ),
    ],
)
def test_what_is_not_read_says_what_to_write(photos: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(photos, text)


def test_two_files_of_one_name_without_ending_are_refused(photos: Path) -> None:
    (photos / "cat" / "0.png").touch()
    assert len(read(photos, PLAIN).items) == 10
    message = "line 2: 'cat/0' may be 'cat/0.jpg' or 'cat/0.png'"
    with pytest.raises(DatasetError, match=message):
        read(photos, ENDLESS)
    with pytest.raises(DatasetError, match=message):
        read(photos, ENDLESS, [*IMAGES, "cat/0.png"])
