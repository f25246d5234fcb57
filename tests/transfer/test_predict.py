from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.cli.test_commands import check_refused, run
from tests.conftest import photo
from tests.support import layouts
from vggfeat.data.folder import named_images
from vggfeat.data.records import Item, unlabelled
from vggfeat.errors import (
    ClassifierError,
    DatasetError,
    ImageNotFoundError,
    ImageReadError,
    Interrupted,
    RecipeError,
    StoreNotFoundError,
    WeightsError,
)
from vggfeat.extraction import budget
from vggfeat.extraction import provide as supplies
from vggfeat.extraction.fill import described
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.workers import extract
from vggfeat.files.digests import sha256_of
from vggfeat.files.sources import FileSource
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.report.result import Result, ResultError
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer import predict as predicting
from vggfeat.transfer.predict import Trained, open_trained, predict
from vggfeat.transfer.predictions import Predictions
from vggfeat.transfer.run import evaluate, write
from vggfeat.transfer.score import Evaluation
from vggfeat.watch import Watch
from vggfeat.weights.catalogue import PublishedWeights, catalogue
from vggfeat.weights.local import place_of

THIN = {"models": ["vgg16-thin"], "weights": ["random:0"], "scales": [224], "grid": [1.0]}


def recipe(dataset: str, **changed: object) -> Recipe:
    return Recipe.build({**THIN, "dataset": dataset, **changed}, "a test")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(cache=tmp_path / "features", results=tmp_path / "results", workers=2)


@pytest.fixture
def elsewhere(machine: Machine) -> Machine:
    """A machine without any store."""
    return machine.model_copy(update={"cache": machine.cache.with_name("nothing")})


def train(wanted: Recipe, machine: Machine) -> tuple[Evaluation, Path]:
    extract(wanted, machine, Watch())
    evaluation = evaluate(wanted, machine, Watch())
    return evaluation, write(evaluation, machine)


def voc_items(root: Path, ids: tuple[str, ...]) -> list[Item]:
    return [Item(i, FileSource(root / "JPEGImages" / f"{i}.jpg")) for i in ids]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tap": ["pool5", "fc7"], "mirror": False},
        pytest.param(
            {"scales": [224, 256], "aggregate": "stack", "tap": "fc6", "interpolation": "bicubic"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"mirror": False, "pooling": "floor", "normalise": "before", "aggregate": "max"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "models": ["vgg16-thin", "vgg19-thin"],
                "weights": ["random:0", "random:1"],
                "profile": "torchvision",
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_scores_are_those_of_the_training_run(
    tiny_voc: Path, machine: Machine, elsewhere: Machine, changed: dict[str, object]
) -> None:
    evaluation, path = train(recipe(f"voc:{tiny_voc}", limit=5, **changed), machine)
    [only] = evaluation.runs
    found = predict(
        open_trained(path), voc_items(tiny_voc, only.samples["test"].ids), elsewhere, Watch()
    )
    assert np.abs(found.scores - only.fitted.scores).max() < 1e-6
    assert found.ids == only.samples["test"].ids
    assert found.classes == ("cat", "dog", "emu")
    for own, names in zip(found.scores, found.predicted, strict=True):
        assert set(names) == {found.classes[k] for k in np.flatnonzero(own > 0)}
        assert list(names) == sorted(names, key=lambda name: -own[found.classes.index(name)])
    assert not elsewhere.cache.exists()


@pytest.mark.slow
def test_rows_that_are_not_kept_have_the_bits_of_those_that_are(
    tiny_voc: Path, machine: Machine, elsewhere: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*_: Any) -> int:  # noqa: ANN401  (as the original)
        return 8

    monkeypatch.setattr(budget, "shard_rows", small)
    wanted = recipe(f"voc:{tiny_voc}")
    [path] = extract(wanted, machine, Watch())
    dataset = unlabelled(
        "", [Item(p.stem, FileSource(p)) for p in (tiny_voc / "JPEGImages").iterdir()]
    )
    job = job_of(wanted, elsewhere, dataset, Described("vgg16-thin", "image", "fc7"), Watch())
    parts = [rows for (rows,) in described([job], elsewhere, Watch())]
    assert [len(rows.image_id) for rows in parts] == [8, 8, 8]
    with DescriptorStore.open(path) as store:
        kept = store.read()
    for name in ("descriptors", "norms", "image_size", "image_sha256", "status"):
        ours = np.concatenate([getattr(rows, name) for rows in parts])
        assert ours.tobytes() == getattr(kept, name).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["fc7", ["pool5", "fc7"]])
def test_images_that_stores_hold_are_not_described_again(
    tiny_voc: Path, machine: Machine, forwards: list[int], tap: str | list[str]
) -> None:
    evaluation, path = train(recipe(f"voc:{tiny_voc}", tap=tap), machine)
    forwards.clear()
    items = voc_items(tiny_voc, evaluation.runs[0].samples["test"].ids[::-1])
    new = tiny_voc.parent / "new.png"
    Image.fromarray(photo(90, 120, seed=99)).save(new)
    found = predict(open_trained(path), [*items, Item("new", FileSource(new))], machine, Watch())
    assert sum(forwards) == 2  # both sides of the new one, once for all taps
    assert np.abs(found.scores[:-1] - evaluation.runs[0].fitted.scores[::-1]).max() < 1e-6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four images each."""
    root = tmp_path / "photos"
    for k, name in enumerate(("red", "green")):
        (root / name).mkdir(parents=True)
        for n in range(4):
            pixels = photo(90, 100, seed=n)
            pixels[:, :, k], pixels[:, :, 1 - k] = 255, 0
            Image.fromarray(pixels).save(root / name / f"{n}.png")
    return root


@pytest.fixture
def trained(photos: Path, machine: Machine) -> Trained:
    return open_trained(train(recipe(f"folder:{photos}", grid=[1000.0]), machine)[1])


def test_where_each_image_has_one_class_the_best_is_predicted(
    trained: Trained, photos: Path, machine: Machine
) -> None:
    found = predict(trained, named_images([photos]), machine, Watch())
    best = tuple((found.classes[k],) for k in found.scores.argmax(axis=1))
    assert found.predicted == best
    truth = [Path(i).parent.name for i in found.ids]
    assert [names[0] for names in found.predicted] == truth


def test_unreadable_images_are_told_and_the_rest_goes_on(
    trained: Trained, photos: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "red" / "0.png").write_bytes(b"")
    items = named_images([photos / "red"])
    found = predict(trained, items, machine, Watch())
    assert np.isnan(found.scores).all(axis=1).tolist() == [True] + [False] * 3
    assert found.predicted == ((), *[("red",)] * 3)
    assert found.errors == {str(photos / "red" / "0.png"): "it is empty"}
    assert "1 of 4 images are unreadable" in caplog.text
    strict = machine.model_copy(update={"on_error": "raise"})
    with pytest.raises(ImageReadError, match="it is empty"):
        predict(trained, items, strict, Watch())
    with pytest.raises(DatasetError, match=r"None of the 1 images can be read.*it is empty"):
        predict(trained, items[:1], machine, Watch())


def test_a_signal_stops_it(trained: Trained, photos: Path, machine: Machine) -> None:
    class Stopped(Watch):
        def stop_signal(self) -> int | None:
            return 2

    with pytest.raises(Interrupted, match="Nothing was kept"):
        predict(trained, named_images([photos]), machine, Stopped())


def test_other_weights_are_refused_and_a_moved_file_can_be_named(
    trained: Trained, photos: Path, machine: Machine, tmp_path: Path
) -> None:
    items = named_images([photos / "red" / "0.png"])
    other = open_trained(trained.path, weights=["random:7"])
    with pytest.raises(WeightsError, match=r"other weights.*Expected random:0, sha256 \w{64}"):
        predict(other, items, machine, Watch())
    gone = open_trained(trained.path, weights=[str(tmp_path / "gone.pth")])
    with pytest.raises(WeightsError, match=r"are not at '.*gone.pth'.*--weights PATH"):
        predict(gone, items, machine, Watch())
    same = open_trained(trained.path, weights=["random:0"])
    assert len(predict(same, items, machine, Watch()).ids) == 1
    with pytest.raises(RecipeError, match="2 weights for 1 models"):
        open_trained(trained.path, weights=["random:0", "random:0"])


@pytest.mark.slow
def test_a_weight_file_may_move_and_a_published_one_is_fetched(
    photos: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, moved = tmp_path / "keras.h5", tmp_path / "moved.h5"
    layouts.keras_old(here, ARCHITECTURES["vgg16-thin"], layouts.thin_truth())
    _, path = train(recipe(f"folder:{photos}", weights=[str(here)]), machine)
    items = named_images([photos / "red"])
    before = predict(open_trained(path), items, machine, Watch()).scores
    here.rename(moved)
    with pytest.raises(WeightsError, match=r"are not at '.*keras\.h5'.*Pass that file: --weights"):
        predict(open_trained(path), items, machine, Watch())
    again = predict(open_trained(path, weights=[str(moved)]), items, machine, Watch())
    assert np.array_equal(again.scores, before)

    file = replace(catalogue()[0], name=here.name, digests={"sha256": sha256_of(moved)})

    def fetch_file(wanted: PublishedWeights, watch: Watch) -> None:
        place_of(wanted).parent.mkdir(parents=True)
        shutil.copy(moved, place_of(wanted))

    monkeypatch.setattr(predicting, "published_as", lambda name, digest: file)
    monkeypatch.setattr(supplies, "fetch_file", fetch_file)
    offline = machine.model_copy(update={"offline": True})
    with pytest.raises(WeightsError, match=r"`vggfeat weights fetch keras\.h5`, or pass that file"):
        predict(open_trained(path), items, offline, Watch())
    fetched = predict(open_trained(path), items, machine, Watch())
    assert np.array_equal(fetched.scores, before)
    trained = open_trained(path)  # with a net beside it whose file had to be told by its profile
    recipe_of_two = trained.recipe.model_copy(update={"profile": "torchvision"})
    fetched = predict(replace(trained, recipe=recipe_of_two), items, machine, Watch())
    assert np.array_equal(fetched.scores, before)


def test_published_weights_that_are_absent_are_named(
    trained: Trained, photos: Path, machine: Machine
) -> None:
    file = next(f for f in catalogue() if f.family == "torchvision" and f.net == "vgg16")
    stores = [s.model_copy(update={"model": "vgg16", "weights": file.name}) for s in trained.stores]
    digest = file.digests.get("sha256") or file.digests["sha256_prefix"].ljust(64, "0")
    stores = [s.model_copy(update={"weights_sha256": digest}) for s in stores]
    changed = {"models": ("vgg16",), "weights": ("torchvision",)}
    recipe = trained.recipe.model_copy(update=changed)
    wanting = replace(trained, recipe=recipe, stores=tuple(stores))
    offline = machine.model_copy(update={"offline": True})
    with pytest.raises(WeightsError, match=rf"`vggfeat weights fetch {file.name}`.*--weights PATH"):
        predict(wanting, named_images([photos]), offline, Watch())


def test_a_result_without_its_own_classifier_is_refused(trained: Trained) -> None:
    path = trained.path
    result = Result.read(path)
    [(name, digest)] = result.classifiers.items()
    file = path.with_name(name)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ClassifierError, match=rf"its result says {digest[:16]}"):
        open_trained(path)
    file.unlink()
    with pytest.raises(ClassifierError, match="belongs beside its result"):
        open_trained(path)
    path.write_text(result.model_copy(update={"classifiers": {}}).model_dump_json())
    with pytest.raises(ResultError, match=r"names no classifier.*vggfeat svm"):
        open_trained(path)


def test_the_name_of_a_classifier_leads_nowhere_else(trained: Trained, tmp_path: Path) -> None:
    result = Result.read(trained.path)
    [(name, digest)] = result.classifiers.items()
    shutil.move(trained.path.with_name(name), tmp_path / name)
    outside = {"classifiers": {str(tmp_path / name): digest}}
    trained.path.write_text(result.model_copy(update=outside).model_dump_json())
    with pytest.raises(ResultError, match=r"is damaged: 'classifiers\..*Expected letters, digits"):
        open_trained(trained.path)


def test_a_classifier_of_another_result_is_refused(trained: Trained) -> None:
    result = Result.read(trained.path)
    renamed = result.classes[0].model_copy(update={"name": "blue"})
    other = result.model_copy(update={"classes": (renamed, *result.classes[1:])})
    trained.path.write_text(other.model_dump_json())
    with pytest.raises(ResultError, match="do not belong together"):
        open_trained(trained.path)


def test_boxes_are_refused_with_the_reason(trained: Trained) -> None:
    result = Result.read(trained.path)
    boxes = tuple(s.model_copy(update={"region": "box"}) for s in result.stores)
    trained.path.write_text(result.model_copy(update={"stores": boxes}).model_dump_json())
    with pytest.raises(ResultError, match=r"boxes around persons.*--regions image"):
        open_trained(trained.path)


def test_one_of_several_splits_is_chosen(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    result = Result.read(trained.path)
    second = trained.path.with_name("second.safetensors")
    turned = np.ascontiguousarray(-trained.classifier.coef)
    classifier = type(trained.classifier)(
        classes=trained.classifier.classes, coef=turned, intercept=trained.classifier.intercept
    )
    both = {**result.classifiers, second.name: classifier.save(second, {})}
    trained.path.write_text(result.model_copy(update={"classifiers": both}).model_dump_json())
    caplog.set_level("INFO", "vggfeat")
    assert np.array_equal(open_trained(trained.path, split=2).classifier.coef, turned)
    assert "split 2 of 2 scores (--split): 'second.safetensors'" in caplog.text
    assert np.array_equal(open_trained(trained.path).classifier.coef, trained.classifier.coef)
    for wrong in (0, 3):
        with pytest.raises(ResultError, match=rf"No split {wrong} .*Expected 1 to 2"):
            open_trained(trained.path, split=wrong)


@pytest.mark.slow
def test_an_8_bit_net_takes_the_calibration_of_the_training_run(
    tiny_voc: Path, machine: Machine, elsewhere: Machine
) -> None:
    pytest.importorskip("openvino", reason='pip install "vggfeat[int8]"')
    evaluation, path = train(recipe(f"voc:{tiny_voc}", limit=3, precision="int8"), machine)
    [only] = evaluation.runs
    items = voc_items(tiny_voc, only.samples["test"].ids)
    found = predict(open_trained(path), items, elsewhere, Watch())
    assert np.abs(found.scores - only.fitted.scores).max() < 1e-6
    shutil.move(machine.cache, machine.cache.with_name("moved"))
    moved = machine.model_copy(update={"cache": machine.cache.with_name("moved")})
    assert np.array_equal(
        predict(open_trained(path), items, moved, Watch()).scores, only.fitted.scores
    )
    with pytest.raises(StoreNotFoundError, match=r"calibration of the 8-bit net .* not at hand"):
        predict(open_trained(path), items, elsewhere, Watch())


def test_what_has_changed_since_the_training_is_told(
    trained: Trained, photos: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    [store] = trained.stores
    older = store.model_copy(update={"recipe": store.recipe | {"decoder": "pillow-9"}})
    before = replace(trained, stores=(older,))
    predict(before, named_images([photos / "red"]), machine, Watch())
    told = f"not quite as in '{trained.path}', vgg16-thin: decoder was 'pillow-9', is"
    assert told in caplog.text


def test_named_images_are_files_and_what_folders_hold(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/a/1.jpg", "b/notes.txt", "z.tif", "a.unknown"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    given = [tmp_path / "z.tif", tmp_path / "b", tmp_path / "b/2.png", tmp_path / "a.unknown"]
    names = [Path(item.id).relative_to(tmp_path).as_posix() for item in named_images(given)]
    assert names == ["z.tif", "b/2.png", "b/a/1.jpg", "a.unknown"]
    with pytest.raises(ImageNotFoundError, match=r"There is no '.*nothing.jpg'\. Check the path"):
        named_images([tmp_path / "z.tif", tmp_path / "nothing.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageNotFoundError, match=r"'.*empty' holds no image\. Expected files"):
        named_images([tmp_path / "empty"])


def made_up() -> Predictions:
    return Predictions(
        classes=("cat", 'a "dog", big', "emu", "fox", "gnu"),
        ids=("x/1.jpg", "x,2.jpg", "x/3.jpg"),
        scores=np.array([[0.25, 1.5, -1, np.nan, -3], [-1, -2, -3, np.nan, -4], [np.nan] * 5]),
        predicted=(('a "dog", big', "cat"), (), ()),
        errors={"x/3.jpg": "it is empty"},
    )


def test_the_table_has_the_best_scores() -> None:
    assert made_up().table() == [
        {
            "image": "x/1.jpg",
            "predicted": 'a "dog", big, cat',
            "best scores": 'a "dog", big 1.500, cat 0.2500, emu -1.000',
        },
        {
            "image": "x,2.jpg",
            "predicted": "–",
            "best scores": 'cat -1.000, a "dog", big -2.000, emu -3.000',
        },
        {"image": "x/3.jpg", "predicted": "–", "best scores": "unreadable: it is empty"},
    ]


def test_the_table_tells_tiny_scores_apart() -> None:
    """A tiny C gives tiny scores, which order images as well as any."""
    tiny = replace(made_up(), scores=made_up().scores * 2.0**-15)
    shown = [row["best scores"] for row in tiny.table()]
    assert shown[0] == 'a "dog", big 4.578e-05, cat 7.629e-06, emu -3.052e-05'


def test_csv_and_json_have_all_scores() -> None:
    predictions = made_up()
    header, *lines = csv.reader(io.StringIO(predictions.csv()))
    assert header == ["image", "predicted", "cat", 'a "dog", big', "emu", "fox", "gnu"]
    assert lines[0] == ["x/1.jpg", 'a "dog", big|cat', "0.25", "1.5", "-1.0", "", "-3.0"]
    assert lines[2] == ["x/3.jpg", *[""] * 6]
    records = json.loads(json.dumps(predictions.records(), allow_nan=False))
    assert [record["error"] for record in records] == [None, None, "it is empty"]
    for line, record in zip(lines, records, strict=True):
        assert record["image"] == line[0]
        assert "|".join(record["predicted"]) == line[1]
        for name, cell in zip(header[2:], line[2:], strict=True):
            assert record["scores"][name] == (float(cell) if cell else None)


def test_probabilities_stand_beside_their_scores() -> None:
    shares = np.array([[0.25, 0.75, np.nan, np.nan, 0], [0.5, 0.125, 0, np.nan, 0], [np.nan] * 5])
    predictions = replace(made_up(), probabilities=shares)
    title = "best scores, probability"
    assert [row[title] for row in predictions.table()] == [
        'a "dog", big 1.500 (75.0 %), cat 0.2500 (25.0 %), emu -1.000',
        'cat -1.000 (50.0 %), a "dog", big -2.000 (12.5 %), emu -3.000 (0.0 %)',
        "unreadable: it is empty",
    ]
    header, *lines = csv.reader(io.StringIO(predictions.csv()))
    assert header[7:] == [f"probability of {name}" for name in predictions.classes]
    assert [line[7:] for line in lines] == [
        ["0.25", "0.75", "", "", "0.0"],
        ["0.5", "0.125", "0.0", "", "0.0"],
        [""] * 5,
    ]
    records = predictions.records()
    assert records[0]["probabilities"] == {
        "cat": 0.25,
        'a "dog", big': 0.75,
        "emu": None,
        "fox": None,
        "gnu": 0.0,
    }
    assert made_up().records()[0]["probabilities"] is None


def test_a_classifier_of_an_earlier_version_has_no_probabilities(
    trained: Trained, photos: Path, elsewhere: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    items = named_images([photos / "red" / "1.png"])
    before = replace(trained, classifier=replace(trained.classifier, sigmoids=None))
    assert predict(before, items, elsewhere, Watch()).probabilities is None
    assert "has no probabilities: an earlier version has fitted it" in caplog.text
    bare = replace(trained.classifier, sigmoids=np.full((2, 2), np.nan))
    nothing = replace(trained, classifier=bare)
    assert predict(nothing, items, elsewhere, Watch()).probabilities is None
    assert "2 of 2 classes have no probability, the first is" in caplog.text


def test_the_command_prints_a_table_csv_or_json(
    trained: Trained, photos: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    call = CliRunner()
    base = ["predict", "--svm", trained.path.stem, "--results", str(machine.results)]
    base += ["--cache", str(machine.cache), "photos/green", "photos/red/1.png"]
    lines = run(call, *base).stdout.splitlines()
    assert lines[0].split() == ["image", "predicted", "best", "scores,", "probability"]
    assert lines[1].split()[:2] == ["photos/green/0.png", "green"]
    assert lines[-1].split()[:3] == ["photos/red/1.png", "red", "red"]
    done = run(call, *base, "--format", "json")
    records = json.loads(done.stdout)
    assert [r["image"] for r in records[-2:]] == ["photos/green/3.png", "photos/red/1.png"]
    assert "images/s" in done.stderr
    assert "probabilities: sigmoids, fitted to 2 validation images" in done.stderr
    assert json.loads(run(call, *base, "--json").stdout) == records
    assert [sum(r["probabilities"].values()) for r in records] == pytest.approx([1] * len(records))
    rows = list(csv.DictReader(io.StringIO(run(call, *base, "--format", "csv").stdout)))
    assert [float(row["red"]) for row in rows] == [r["scores"]["red"] for r in records]
    shares = [float(row["probability of red"]) for row in rows]
    assert shares == [r["probabilities"]["red"] for r in records]
    check_refused(call, [*base, "nowhere.jpg"], "There is no 'nowhere.jpg'. Check the path.")
    check_refused(call, ["predict", "--svm", "nowhere.json", "photos"], "No result 'nowhere.json'")
    check_refused(call, ["predict", "--svm", "x"], "Usage:", code=2)
