from __future__ import annotations

import hashlib
import re
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
        ("path\nb.jpg\n", "has the columns path. Expected path, label"),
        ("path,lable\nb.jpg,a\n", "a column 'lable'. Did you mean 'label'"),
        ("path,label,label\nb.jpg,a,a\n", "each once"),
        ("path,label\nb.jpg\n", "line 2: another number of columns"),
        ("path,label\nb.jpg,a,c\n", "line 2: another number of columns"),
        ("path,label\n,a\n", "line 2: no path"),
        ("path,label,split\nb.jpg,a,tain\n", "split 'tain'. Did you mean 'train'"),
        ("path,label\nb.jpg,a\nb.jpg,a\n", "line 3: 'b.jpg' is listed twice"),
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
