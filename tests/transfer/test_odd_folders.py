"""What is odd about a folder is told by the commands that use it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import photo
from vggfeat.errors import DatasetError
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.transfer.run import evaluate
from vggfeat.watch import Watch


def recipe(dataset: str) -> Recipe:
    values = {
        "dataset": dataset,
        "models": ["vgg16-thin"],
        "weights": ["random:0"],
        "scales": [224],
        "mirror": False,
        "grid": [1.0],
    }
    return Recipe.build(values, "a test")


def machine_below(folder: Path) -> Machine:
    values = {"cache": folder / "features", "results": folder / "results", "device": "cpu"}
    return Machine.build(values)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(60, 60, seed)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_equal_bytes_in_train_and_test_are_told_by_extract_and_in_the_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    root, lines = tmp_path / "photos", ["path,label,split"]
    for seed, name in enumerate(("cat", "dog")):
        for part, number in (("train", 0), ("valid", 1), ("test", 2)):
            draw(root / part / name / "0.png", seed=10 * number + seed)
            split = {"valid": "val"}.get(part, part)
            lines.append(f"{part}/{name}/0.png,{name},{split}")
    shutil.copy(root / "train/cat/0.png", root / "test/cat/other.png")
    lines.append("test/cat/other.png,cat,test")
    (root / "list.csv").write_text("\n".join(lines))
    wanted = recipe(f"folder:{root}" if kind == "folder" else f"csv:{root / 'list.csv'}")
    machine = machine_below(tmp_path)
    with caplog.at_level(logging.INFO, "vggfeat"):
        extract(wanted, machine, Watch())
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    doubt = (
        "1 images have the same bytes as one of another part, so that the score may be too high, "
        "the first is 'test/cat/other.png' of test, which is 'train/cat/0.png' of train"
    )
    assert doubt in told
    result = evaluate(wanted, machine, Watch()).result
    assert f"{doubt}." in result.warnings
    assert len(result.classes) == 2


def test_one_class_has_descriptors_but_no_svm(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for number in range(4):
        draw(root / "photos" / ("cat", "dog")[number % 2] / f"{number}.png", seed=number)
    with pytest.raises(
        DatasetError, match=r"has one class only, 'photos'\. .* folders further down"
    ):
        evaluate(recipe(f"folder:{root}"), machine_below(tmp_path), Watch())
