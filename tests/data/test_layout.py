from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.data.layout import Layout, arrange
from vggfeat.data.notes import Notes
from vggfeat.data.records import Kind
from vggfeat.data.split import part_of
from vggfeat.errors import DatasetError

NAMES = {
    "train": (
        *("train", "Train", "TRAIN", "training", "Training", "train_set", "training_set"),
        *("TrainingSet", "train-images", "images_train", "imagesTrain", "train2017", "seg_train"),
        *("trainval", "Training Data", "train.split", "ｔｒａｉｎ"),
    ),
    "val": (
        *("val", "VAL", "valid", "Valid", "validation", "Validation", "validation_set"),
        *("val2017", "valset", "images-val", "dev", "seg_valid"),
    ),
    "test": ("test", "TEST", "Test", "testing", "Testing", "test_set", "test1", "Test Images"),
}
NO_PARTS = (
    *("cat", "trains", "trainer", "retrain", "evaluation", "eval", "valley", "valid ation x"),
    *("contest", "tests", "tester", "detest", "sample", "labels", "images", "device", "12", ""),
)


def laid_out(ids: Sequence[str], folders: Sequence[str] = ()) -> tuple[Layout, list[str]]:
    """Arrange images, and return the layout with what is told of it."""
    notes = Notes()
    return arrange(ids, folders, "photos", seed=0, notes=notes), notes.lines()


def images(*folders: str, count: int = 3) -> list[str]:
    return [f"{folder}/{n}.jpg" for folder in folders for n in range(count)]


# --- names of parts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "name"), [(p, name) for p, names in NAMES.items() for name in names]
)
def test_a_part_has_many_names(part: str, name: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize("name", NO_PARTS)
def test_other_names_are_those_of_no_part(name: str) -> None:
    assert part_of(name) is None


@given(*(st.sampled_from(names) for names in NAMES.values()))
@settings(max_examples=60, deadline=None)
def test_parts_of_other_names_are_read_as_those_of_the_usual_ones(
    train: str, val: str, test: str
) -> None:
    plain, lines = laid_out(images(*map("/".join, product(NAMES, ("cat", "dog")))))
    assert lines == []
    called = {"train": train, "val": val, "test": test}
    found, lines = laid_out(images(*map("/".join, product(called.values(), ("cat", "dog")))))
    assert found.classes == plain.classes == ("cat", "dog")
    for part, name in called.items():
        expected = {(f"{name}/{i.partition('/')[2]}", k) for i, k in plain.chosen[part]}
        assert {*found.chosen[part]} == expected
    told = [
        f"the folder {name!r} is read as the part {p}" for p, name in called.items() if p != name
    ]
    assert sorted(lines) == sorted(told)


@pytest.mark.parametrize("base", ["images", "archive/images", "a/b/c"])
def test_parts_are_found_below_single_folders(base: str) -> None:
    ids = images(*(f"{base}/{part}/{k}" for part in ("train", "valid", "test") for k in "xy"))
    found, lines = laid_out([*ids, "cover.jpg", f"{base}/sheet.jpg"])
    assert found.classes == ("x", "y")
    assert {i for rows in found.chosen.values() for i, _ in rows} == {*ids}
    assert lines[0] == f"the parts 'test', 'train' and 'valid' are those of the folder '{base}'"
    assert lines[2].startswith("2 images stand beside the parts 'test', 'train' and 'valid', and ")
    assert lines[2].endswith(
        f"are left out, the first is '{min('cover.jpg', base + '/sheet.jpg')}'"
    )


def test_the_same_folder_once_more_inside_of_a_part_is_no_class() -> None:
    """As `training_set/training_set/cats` in an archive that was made of the folder itself."""
    ids = images("training_set/training_set/cat", "training_set/training_set/dog")
    ids += images("test_set/test_set/cat", "test_set/test_set/dog")
    found, lines = laid_out(ids)
    assert found.classes == ("cat", "dog")
    assert (
        "the folder 'test_set/test_set' stands alone in its part, and is read as the part" in lines
    )
    kept, _ = laid_out(images("train/train", "train/bus", "test/train", "test/bus"))
    assert kept.classes == ("bus", "train")  # the vehicle


# --- what may be read in two ways ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "wrong"),
    [
        (("train/a", "val/a", "valid/a", "test/a"), "has 'val' and 'valid', and each may be val"),
        (("Train/a", "train/a", "test/a"), "has 'Train' and 'train', and each may be train"),
        (("train/a", "validation/a"), "has images in train and validation only"),
        (("val/a", "testing/a", "sample"), "has images in testing and val only"),
        (("Training/a",), "has images in Training only"),
        (("train/a", "eval/a"), "'train' of 'photos' holds sub-folders as a part does, but 'eval'"),
        (("train/a", "holdout/a"), "Rename 'holdout' if it is a part, or 'train' if it is none"),
        (("train", "test"), r"Image 'test/0\.jpg' has no class. Expected PART/CLASS/IMAGE"),
        (("train/a", "test"), r"Image 'test/0\.jpg' has no class"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "'cat' of 'photos' holds 'test' and"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(folders: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(DatasetError, match=wrong):
        laid_out(images(*folders))


def test_a_class_may_be_called_train() -> None:
    found, lines = laid_out(images("bus", "car", "train"))
    assert found.classes == ("bus", "car", "train")
    assert lines == [
        "1 folders are named as parts, but hold images alone, and are classes, the first is 'train'"
    ]


# --- what is left out, renamed or merged --------------------------------------------------------


def test_a_stray_folder_beside_the_parts_is_left_out_and_told() -> None:
    ids = images("train/cat", "test/cat", "val/cat")
    found, lines = laid_out([*ids, *images("sample", "preview/cat")], ["labels", "labels/train"])
    assert {i for rows in found.chosen.values() for i, _ in rows} == {*ids}
    assert lines == [
        "6 images stand beside the parts 'test', 'train' and 'val', and are left out, the first is "
        "'preview/cat/0.jpg'",
        "1 folders hold no image, and are neither class nor part, the first is 'labels'",
    ]


def test_empty_folders_are_told_where_they_would_be_classes_or_parts() -> None:
    _, lines = laid_out(images("cat", "dog"), ["cat", "cat/empty", "dog", "emu", "bird", "bird/x"])
    assert lines == ["2 folders hold no image, and are neither class nor part, the first is 'bird'"]
    parts = images("train/cat", "test/cat", "test/dog")
    _, lines = laid_out(parts, ["train", "train/dog", "train/emu", "test/emu", "val"])
    assert lines == [
        "3 folders hold no image, and are neither class nor part, the first is 'test/emu'",
        "a fifth of train becomes val, whose folder holds no image",
    ]
    flat, lines = laid_out(["a.jpg", "b.jpg"], ["cat"])
    assert flat.kind is Kind.UNLABELLED
    assert lines == ["1 folders hold no image, and are neither class nor part, the first is 'cat'"]


@given(st.text(st.sampled_from("aeouAñçéüßÅё한"), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_one_class_in_two_unicode_forms_is_one(name: str) -> None:
    nfd, nfc = unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", name)
    forms = {"train": nfd, "test": nfc}
    found, lines = laid_out(images(*(f"{part}/{form}" for part, form in forms.items())))
    assert found.classes == (nfc,)
    merged = ["1 class names are normalised to Unicode NFC, and merged where they look alike"]
    assert [line.partition(", the first")[0] for line in lines] == merged * (nfd != nfc)
    assert {i for rows in found.chosen.values() for i, _ in rows} == {
        f"{part}/{form}/{n}.jpg" for part, form in forms.items() for n in range(3)
    }


def test_deeper_folders_and_the_folder_above_the_classes_are_told() -> None:
    found, lines = laid_out(images("photos/cat", "photos/dog"))
    assert found.classes == ("photos",)
    assert lines == [
        "6 images are in sub-folders of their class, which are no classes, the first is "
        "'photos/cat/0.jpg'",
        "the only class, 'photos', has sub-folders, the first is 'cat': if these are the classes, "
        "pass 'folder:photos/photos'",
    ]
