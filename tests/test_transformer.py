from __future__ import annotations

import inspect
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import estimator_checks_generator

from tests.conftest import photo
from tests.support import layouts
from vggfeat import VggDescriptor
from vggfeat.errors import (
    ImageNotFoundError,
    ImageReadError,
    InputError,
    RecipeError,
    WeightsError,
)
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.recipe import Draft, Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.run import evaluate
from vggfeat.transformer import ImageLike
from vggfeat.watch import Watch

BOUND = 1e-5  # between any two batchings


def net(**changed: object) -> VggDescriptor:
    thin: dict[str, object] = {"models": "vgg16-thin", "weights": "random:0", "scales": (224,)}
    return VggDescriptor(**{**thin, **changed})  # type: ignore[arg-type]  # by name


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    sizes = [(90, 120), (120, 90), (100, 100), (80, 130)]
    for seed, size in enumerate(sizes):
        Image.fromarray(photo(*size, seed=seed)).save(tmp_path / f"{seed}.png")
    return [tmp_path / f"{seed}.png" for seed in range(len(sizes))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"aggregate": "average", "scales": (224, 256)},
        pytest.param(
            {"models": ("vgg16-thin", "vgg19-thin"), "weights": ("random:0", "random:1")},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_rows_are_those_of_the_experiment(tmp_path: Path, changed: dict[str, object]) -> None:
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(3):
            path = tmp_path / "photos" / name / f"{n}.png"
            Image.fromarray(photo(90, 100, seed=10 * k + n)).save(path)
    values = {**net().get_params(), **changed, "dataset": f"folder:{tmp_path / 'photos'}"}
    values = {name: value for name, value in values.items() if name in Recipe.model_fields}
    recipe, machine = Recipe.build({**values, "grid": [1.0]}, "a test"), Machine(cache=tmp_path)
    extract(recipe, machine, Watch())
    [run] = evaluate(recipe, machine, Watch()).runs
    files = [tmp_path / "photos" / i for sample in run.samples.values() for i in sample.ids]
    theirs = np.concatenate([sample.x for sample in run.samples.values()])
    for cache in (None, tmp_path / "descriptors"):
        ours = net(cache=cache, **changed).transform(files)
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs, axis=1).max() <= BOUND
        assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


def test_order_and_company_do_not_matter_and_an_image_may_come_twice(paths: list[Path]) -> None:
    whole = net().transform(paths)
    turned = net().transform([*paths[::-1], paths[1]])
    assert turned.shape == (5, 512)
    assert np.linalg.norm(turned - whole[[3, 2, 1, 0, 1]], axis=1).max() <= BOUND
    assert np.linalg.norm(whole[0] - whole[1]) > 100 * BOUND


@pytest.mark.slow
def test_paths_may_be_strings_and_come_in_arrays(paths: list[Path]) -> None:
    whole = net().transform(paths)
    for same in (np.array(paths), np.array([str(p) for p in paths]), (str(p) for p in paths)):
        assert np.array_equal(net().transform(same), whole)


def files_of_many_kinds(folder: Path) -> list[Path]:
    """Images whose decoding is more than a copy of their pixels."""
    pixels = Image.fromarray(photo(90, 120, seed=5))
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = Image.fromarray(photo(90, 120, seed=6)[:, :, 0])
    wide = Image.fromarray(photo(90, 120, seed=7)[:, :, 0].astype(np.uint16) * 257)
    clear = pixels.copy()
    clear.putalpha(alpha)
    pixels.save(folder / "turned.jpg", exif=turned, quality=95)
    pixels.save(folder / "turned.tif", exif=turned)
    clear.save(folder / "alpha.png")
    wide.save(folder / "wide.png")
    pixels.convert("L").save(folder / "grey.jpg")
    pixels.convert("CMYK").save(folder / "ink.jpg")
    pixels.quantize(16).save(folder / "palette.gif")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_an_image_in_memory_has_the_row_of_its_file(tmp_path: Path) -> None:
    files = files_of_many_kinds(tmp_path)
    assert len(files) == 7
    with ExitStack() as stack:
        opened = [stack.enter_context(Image.open(path)) for path in files]
        from_files, from_memory = net().transform(files), net().transform(opened)
    assert np.linalg.norm(from_files - from_memory, axis=1).max() <= BOUND
    array = photo(90, 120, seed=1)
    both = net().transform([array, Image.fromarray(array)])
    assert np.array_equal(both[0], both[1])
    assert np.array_equal(net().transform(array[None]), net().transform([array]))


def test_a_frame_of_an_animation_is_described_as_it_is_shown(tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(90, 120, seed=n)).quantize(64) for n in (1, 2)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "film.gif") as film:
        film.seek(1)
        shown = np.asarray(film.convert("RGB"))
        assert np.array_equal(net().transform([film]), net().transform([shown]))
        assert film.tell() == 1


@pytest.mark.slow
def test_what_is_cached_is_never_computed_again(
    paths: list[Path], tmp_path: Path, forwards: list[int], elsewhere: Callable[[Any], Any]
) -> None:
    kept = net(cache=tmp_path / "cache")

    def passes(images: Sequence[ImageLike], transformer: VggDescriptor = kept) -> int:
        forwards.clear()
        transformer.transform(images)
        return sum(forwards)

    first = net().transform(paths)
    assert passes(paths) == 2 * len(paths)
    assert passes(paths) == 0
    assert passes(paths[2:0:-1]) == 0
    assert np.linalg.norm(kept.transform(paths) - first, axis=1).max() <= BOUND
    renamed = [shutil.copy(path, tmp_path / f"as-{path.name}") for path in paths]
    assert passes(renamed) == 0
    assert passes(paths, elsewhere(kept)) == 0
    assert passes(paths, clone(kept).set_params(aggregate="max", normalise="before")) == 0
    assert passes(paths, clone(kept).set_params(scales=(224, 256))) == 2 * len(paths)
    assert passes(paths, clone(kept).set_params(mirror=False)) == len(paths)
    assert passes(paths, clone(kept).set_params(weights="random:1")) == 2 * len(paths)
    Image.fromarray(photo(90, 120, seed=50)).save(paths[0])
    assert passes(paths) == 2
    arrays = [photo(90, 120, seed=n) for n in (60, 61)]
    assert passes(arrays) == 4
    assert passes(arrays[::-1]) == 0
    stores = list((tmp_path / "cache").glob("*/descriptors.h5"))
    for path in stores:
        with DescriptorStore.open(path) as store:
            assert store.verify().faults == ()


@pytest.mark.parametrize("kept", [False, True])
def test_an_unreadable_image_is_a_row_of_nan_or_an_error(
    paths: list[Path], tmp_path: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    paths[2].write_bytes(b"I am no image")
    cache = tmp_path / "cache" if kept else None
    for _ in range(2):
        x = net(cache=cache).transform(paths)
        assert np.isnan(x).all(axis=1).tolist() == [False, False, True, False]
    assert "2.png is unreadable: it is text, and no image of a known format" in caplog.text
    with pytest.raises(ImageReadError, match=r"2\.png' cannot be read"):
        net(cache=cache, on_error="raise").transform(paths)
    assert np.isfinite(net(cache=cache, on_error="raise").transform(paths[:2])).all()


class Frame:
    """What a pandas.DataFrame looks like from here; iterating over it gives names of columns."""

    ndim, shape = 2, (3, 1)

    def __iter__(self) -> object:
        return iter(["path"])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("0.png", r"X is one image, '0\.png'\..*Pass a list with it"),
        (Path("0.png"), "X is one image"),
        (Image.new("RGB", (300, 300)), "X is one image"),
        ([], r"X is empty: 0 images\. Expected a sequence of paths"),
        (None, r"X is None\. Expected a sequence"),
        (Frame(), r"shape \(3, 1\)"),
        (np.zeros((300, 300, 3), np.uint8), r"X has the shape \(300, 300, 3\).*a list of them"),
        (np.zeros((4, 7)), r"X has the shape \(4, 7\)"),
        (
            [np.zeros((300, 300), np.int64)],
            r"X\[0\] has values of the type int64 from 0 to 0\..*uint8",
        ),
        ([np.full((300, 300, 3), 9.0)], r"X\[0\] .* float64 from 9 to 9\. .* Divide them by 255"),
        ([np.zeros((0, 300, 3), np.uint8)], r"X\[0\] is an array of shape \(0, 300, 3\)"),
        (torch.zeros(3, 30, 40), r"X has the shape \(3, 30, 40\)"),
        ([b"0.png"], r"X\[0\] is of the type bytes"),
        ([1.5], r"X\[0\] is of the type float"),
    ],
)
def test_what_is_no_sequence_of_images_is_refused(images: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        net().transform(images)  # type: ignore[arg-type]  # on purpose


def test_paths_that_lead_nowhere_are_refused(paths: list[Path], tmp_path: Path) -> None:
    strict = net(on_error="raise")
    with pytest.raises(ImageNotFoundError, match=r"X\[1\]: there is no file '.*gone\.png'"):
        strict.transform([paths[0], tmp_path / "gone.png"])
    with pytest.raises(ImageNotFoundError, match=r"X\[0\]: there is no file"):
        strict.transform([tmp_path])
    with pytest.raises(ImageReadError, match=r"'X\[0\]' cannot be read: it has floating-point"):
        strict.transform([Image.new("F", (300, 300), 2)])


@pytest.mark.parametrize("kept", [False, True])
def test_paths_that_lead_nowhere_are_rows_of_nan_where_they_are_recorded(
    paths: list[Path], tmp_path: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache" if kept else None
    gone = tmp_path / "gone.png"
    x = net(cache=cache, mirror=False).transform([paths[0], gone, tmp_path, paths[1]])
    assert np.isnan(x).all(axis=1).tolist() == [False, True, True, False]
    assert np.isfinite(x[[0, 3]]).all()
    assert "gone.png is unreadable: No such file or directory" in caplog.text
    shutil.copy(paths[1], gone)  # it is described once it is there
    again = net(cache=cache, mirror=False).transform([gone, paths[1]])
    assert np.array_equal(again[0], again[1])
    assert np.linalg.norm(again[0] - x[3]) <= BOUND


def test_progress_is_shown_on_stderr_if_asked(
    paths: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = net(mirror=False).transform(paths[:2])
    assert capsys.readouterr().err == ""
    assert np.array_equal(net(mirror=False, progress=True).transform(paths[:2]), whole)
    said = capsys.readouterr()
    assert re.search(r"^describe: 2 of 2 images, [\d.]+ images/s, 0:00:00 left$", said.err, re.M)
    assert said.out == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"models": "vgg61"}, "Did you mean 'vgg16'"),
        ({"models": ()}, "models"),
        ({"scales": (200,)}, "Q = 200"),
        ({"scales": 256}, "scales = 256"),
        ({"aggregate": "mean"}, "aggregate = 'mean' in VggDescriptor"),
        ({"mirror": "yes"}, "mirror = 'yes'"),
        ({"memory": "a lot"}, "Expected a number and MB or GB"),
        ({"on_error": "ignore"}, "on_error = 'ignore'"),
        ({"precision": "int8"}, "calibrated on the images of a store"),
        ({"weights": ("random:0", "random:1")}, "2 weights for 1 models"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_fit(
    changed: dict[str, object], said: str, paths: list[Path]
) -> None:
    with pytest.raises(RecipeError, match=said):
        net(**changed).fit(paths)


@pytest.mark.slow
def test_weights_may_be_a_path(paths: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "keras.h5"
    layouts.keras_old(place, ARCHITECTURES["vgg16-thin"], layouts.thin_truth())
    x = net(weights=place).transform(paths[:1])
    assert np.array_equal(net(weights=str(place)).transform(paths[:1]), x)
    assert not np.array_equal(net().transform(paths[:1]), x)


def test_absent_weights_are_told(paths: list[Path]) -> None:
    with pytest.raises(WeightsError, match="vggfeat weights fetch"):
        VggDescriptor(offline=True).transform(paths)


# What of a recipe or a machine an image's row has nothing to do with, or what the class decides.
_ELSEWHERE = {
    *("dataset", "regions", "loss", "grid", "choose_c", "difficult", "measure", "seed", "limit"),
    *("class_weight", "folds", "pool", "shots", "draws"),
    *("name", "paper", "ablation", "data_root", "results", "verify_images"),
}


def test_every_default_is_the_recipe_s_or_the_machine_s() -> None:
    fields = {**Draft.model_fields, **Machine.model_fields}
    parameters = inspect.signature(VggDescriptor).parameters
    assert set(parameters) == set(fields) - _ELSEWHERE | {"progress"}
    for name, parameter in parameters.items():
        # a recipe has no such default, a transformer no place, a command line always shows it
        if name not in {"models", "cache", "progress"}:
            assert parameter.default == fields[name].default


@pytest.mark.parametrize("changed", [{}, {"scales": (224, 256)}, {"tap": "pool5"}])
def test_the_columns_have_names(paths: list[Path], changed: dict[str, object]) -> None:
    transformer = net(**changed)
    names = transformer.get_feature_names_out()
    assert len(names) == transformer.transform(paths[:1]).shape[1]
    assert names[0] == "vggdescriptor0"
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_it_gives_data_frames_if_asked(paths: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = net().set_output(transform="pandas").transform(paths)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns[1] == "vggdescriptor1"
    assert np.array_equal(frame.to_numpy(), net().transform(paths))
    column = pandas.Series([str(p) for p in paths], index=[9, 7, 5, 3])
    assert np.array_equal(net().transform(column), net().transform(paths))


class OfMatrices(VggDescriptor):
    """Takes what scikit-learn's checks feed: each row of numbers stands for an image of its own."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags

    def transform(self, X: object) -> np.ndarray:
        rows = np.asarray(X, dtype=np.float64)
        pictures = [photo(40, 40, seed=zlib.crc32(row.tobytes())) for row in rows]
        return super().transform(pictures)


_CHECKED = OfMatrices("vgg11-thin", weights="random:0", scales=(224,), mirror=False)
_NOT_FOR_IMAGES = {
    "check_estimator_sparse_tag": "no image is sparse, and fit does not look at its X",
}


_RUN_THE_NET = {
    *("check_dict_unchanged", "check_estimators_dtypes", "check_estimators_pickle"),
    *("check_f_contiguous_array_estimator", "check_fit_idempotent", "check_fit_score_takes_y"),
    *("check_methods_sample_order_invariance", "check_methods_subset_invariance"),
    *("check_pipeline_consistency", "check_transformer_general"),
    "check_transformers_unfitted_stateless",
}


def own_checks() -> Iterator[object]:
    """Every check, by its name; those that fail must, and those that take long are slow."""
    for estimator, check in estimator_checks_generator(_CHECKED):
        name = getattr(check, "func", check).__name__
        reason = _NOT_FOR_IMAGES.get(name)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        marks += [pytest.mark.slow] if name in _RUN_THE_NET else []
        yield pytest.param(estimator, check, id=name, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), [*own_checks()])
def test_scikit_learn_s_own_checks(estimator: OfMatrices, check: Callable[..., None]) -> None:
    check(estimator)
    assert len(estimator.get_feature_names_out()) == 512


def test_the_checks_that_are_told_apart_exist() -> None:
    checks = [check for _, check in estimator_checks_generator(_CHECKED)]
    names = {getattr(check, "func", check).__name__ for check in checks}
    assert {*_RUN_THE_NET, *_NOT_FOR_IMAGES} <= names


@pytest.mark.slow
def test_a_pipeline_learns_from_images(paths: list[Path], elsewhere: Callable[[Any], Any]) -> None:
    y = [0, 1, 0, 1]
    pipeline = make_pipeline(net(), LinearSVC(C=1.0, random_state=0)).fit(paths, y)
    x = net().transform(paths)
    alone = LinearSVC(C=1.0, random_state=0).fit(x, y)
    assert np.allclose(pipeline.decision_function(paths), alone.decision_function(x), atol=1e-3)
    again = elsewhere(pipeline)
    assert np.array_equal(again.predict(paths), pipeline.predict(paths))
