"""Descriptors from Python: as a scikit-learn transformer, and in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeAlias, TypeGuard, cast

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from vggfeat.classify.aggregate import Descriptors
from vggfeat.data.folder import item_id
from vggfeat.data.records import Dataset, Item, unlabelled
from vggfeat.errors import (
    ImageNotFoundError,
    ImageReadError,
    InputError,
    RecipeError,
    StoreNotFoundError,
)
from vggfeat.extraction.arrays import InMemory, from_array, from_tensor, is_tensor
from vggfeat.extraction.fill import Kept, described, fill
from vggfeat.extraction.find import find_store
from vggfeat.extraction.images import as_file, sha256
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import provide_weights
from vggfeat.files.sources import FileSource
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Draft, Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.samples import blocks_of, fused, read_fused
from vggfeat.watch import Watch

ImageLike: TypeAlias = "str | os.PathLike[str] | InMemory"

_DATASET = "folder:images"  # a recipe wants one; it decides the default scales and their use
_WHO = "VggDescriptor"
_R, _M = Draft.model_fields, Machine.model_fields  # every default stands there


class VggDescriptor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """Describes images by a VGG net, densely and at several scales, on both mirror images.

    It has nothing to learn: `fit` only checks the parameters, and `transform` works without it. The
    rows are those that the same settings give on the command line.

    Images are paths, PIL images, arrays of NumPy or tensors of torch, in any mixture. An array is
    (H, W), (H, W, 1), (H, W, 3) in RGB or (H, W, 4) with alpha, a tensor (C, H, W) or (H, W); their
    values are uint8, uint16, or floating point in [0, 1]. What is none of these is refused.

    Args:
        models: A net, or several for late fusion; `vggfeat models` lists them.
        weights: "oxford", "torchvision", "random:SEED" or a path; one for all nets or one each.
            Published ones that are absent are fetched first.
        profile: As for `vggfeat.Recipe`, like all that follow up to `normalise`.
        scales: S shorter sides Q, pixels; None for those of a folder, (256, 384, 512).
        mirror: Average with the horizontal flip.
        interpolation: Filter of the rescaling.
        resampler: What rescales.
        tap: The layer that is averaged, or several, whose blocks are joined like those of nets.
        pooling: Rounding of odd sizes in the pools.
        precision: Of the layers; not "int8", whose rows hang on the images of a store.
        aggregate: How the scales become one row: "average", "stack" or "max"; None for that of a
            folder, "stack".
        normalise: L2 "after" the scales are joined, or "before" as well.
        cache: A folder where descriptors are kept, or None. What an image of the same content was
            described by is never computed again; each new set of images gets a file of its own.
        device: As for `vggfeat.Machine`, like all that follow.
        workers: Threads that decode.
        memory: That it may use, "6GB".
        on_error: An image that is unreadable or not there: "record" it as a row of NaN, with a
            warning in the log, or "raise".
        offline: Fetch nothing.
        progress: Show on stderr how far it is: a bar, or lines where there is no terminal.

    Example:
        >>> VggDescriptor("vgg16-thin", scales=(256,)).get_feature_names_out()[-1]
        'vggdescriptor511'
    """

    def __init__(  # noqa: PLR0913  (scikit-learn reads the parameters off the signature)
        self,
        models: str | Sequence[str] = "vgg16",
        *,
        weights: str | os.PathLike[str] | Sequence[str] = _R["weights"].default,
        profile: str | None = _R["profile"].default,
        scales: Sequence[int] | None = _R["scales"].default,
        mirror: bool = _R["mirror"].default,
        interpolation: str = _R["interpolation"].default,
        resampler: str = _R["resampler"].default,
        tap: str | Sequence[str] = _R["tap"].default,
        pooling: str | None = _R["pooling"].default,
        precision: str = _R["precision"].default,
        aggregate: str | None = _R["aggregate"].default,
        normalise: str = _R["normalise"].default,
        cache: str | os.PathLike[str] | None = None,
        device: str = _M["device"].default,
        workers: int | None = _M["workers"].default,
        memory: str | None = _M["memory"].default,
        on_error: str = _M["on_error"].default,
        offline: bool = _M["offline"].default,
        progress: bool = False,
    ) -> None:
        self.models = models
        self.weights = weights
        self.profile = profile
        self.scales = scales
        self.mirror = mirror
        self.interpolation = interpolation
        self.resampler = resampler
        self.tap = tap
        self.pooling = pooling
        self.precision = precision
        self.aggregate = aggregate
        self.normalise = normalise
        self.cache = cache
        self.device = device
        self.workers = workers
        self.memory = memory
        self.on_error = on_error
        self.offline = offline
        self.progress = progress

    def fit(self, X: Iterable[ImageLike], y: object = None) -> Self:
        """Check the parameters; there is nothing to learn.

        Args:
            X: Not looked at.
            y: Not looked at.

        Raises:
            RecipeError: If a parameter is one that it cannot be.
        """
        self._recipe()
        self._machine()
        return self

    def transform(self, X: Iterable[ImageLike]) -> Descriptors:
        """Describe n images.

        Args:
            X: Paths, PIL images or (H, W, 3) uint8 arrays, RGB.

        Returns:
            (n, D) float32, rows of norm 1, in the order of `X`; a row of NaN for an image that
            cannot be read.

        Raises:
            InputError: If `X` is no sequence of images.
            ImageNotFoundError: If a path leads nowhere.
            ImageReadError: At an unreadable image, if `on_error` says "raise".
            RecipeError: If a parameter is one that it cannot be.
            WeightsError: If the weights are absent or unknown.
            VggfeatError: As the rooms say.
        """
        with _as_items(X, "X", must_exist=self.on_error == "raise") as items:
            return self._describe(items, None)

    def _describe(self, items: Sequence[Item], nets: Kept | None) -> Descriptors:
        """Describe images, of which some may be the same; `nets` are kept from call to call."""
        recipe, machine, watch = self._recipe(), self._machine(), self._watch()
        provide_weights(recipe, machine, watch)
        dataset = unlabelled(_WHO, {item.id: item for item in items}.values())
        if self.cache is None:
            x = _not_kept(dataset, recipe, machine, watch, nets)
        else:
            x = _kept(dataset, recipe, machine, watch)
        row_of = {item.id: row for row, item in enumerate(dataset.items)}
        ordered: Descriptors = x[[row_of[item.id] for item in items]]
        return ordered

    def __sklearn_is_fitted__(self) -> bool:
        """Say that nothing is missing."""
        return True

    def __sklearn_tags__(self) -> Tags:
        """Say that images come in, and that nothing is learnt."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True  # by scikit-learn; transform checks its images itself
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self) -> int:
        """D, which scikit-learn asks for when it names the columns."""
        return self._recipe().descriptor_size

    def _recipe(self) -> Recipe:
        values = {name: getattr(self, name) for name in _R.keys() & self.get_params().keys()}
        if isinstance(self.weights, os.PathLike):
            values["weights"] = os.fspath(self.weights)
        recipe = Recipe.build({**values, "dataset": _DATASET}, _WHO)
        if PRECISIONS[recipe.precision].calibrated:
            raise RecipeError(
                f"precision = {recipe.precision!r} in {_WHO}.",
                "Such a net is calibrated on the images of a store, so that the row of an image "
                "would hang on the others.",
                "Choose another one, or read what `vggfeat extract` has stored so.",
            )
        return recipe

    def _machine(self) -> Machine:
        values: dict[str, Any] = {
            name: getattr(self, name) for name in _M.keys() & self.get_params().keys()
        }
        cache = values.pop("cache")
        return Machine.build(values if cache is None else {**values, "cache": Path(cache)})

    def _watch(self) -> Watch:
        if not self.progress:
            return Watch()
        from vggfeat.cli.progress import TerminalWatch, console

        shown = console()
        return TerminalWatch(shown, say=shown.print)


_LAST = Kept()  # of `describe`, whose calls have no other memory of each other


def describe(
    image: ImageLike | Iterable[ImageLike],
    model: str | Sequence[str] = "vgg16",
    **settings: Any,  # noqa: ANN401  (those of VggDescriptor, whose defaults stand there)
) -> Descriptors:
    """Describe an image, or several, in one line.

    The net stays in memory for the next call with equal arguments; one that was used before it
    goes.

    Args:
        image: A path, a PIL image, an array or a tensor, as for `VggDescriptor`; or several: a
            sequence of these, an array (n, H, W, C) or a tensor (n, C, H, W).
        model: A net, or several for late fusion; `vggfeat models` lists them.
        settings: The other parameters of `VggDescriptor`. Only `on_error` is "raise" unless told
            otherwise: a single image has no others to go on with.

    Returns:
        (D,) float32 of length 1 for one image, (n, D) for several.

    Raises:
        ImageNotFoundError: If a path leads nowhere.
        ImageReadError: If an image is unreadable.
        InputError: If an image is of no kind that is known, or leaves open what is meant.
        RecipeError: If a setting is one that it cannot be.
        WeightsError: If the weights are absent or unknown.

    Example:
        >>> describe("cat.png")
        Traceback (most recent call last):
        vggfeat.errors.ImageNotFoundError: image: there is no file 'cat.png'. Check the path.
    """
    net = VggDescriptor(model, **{"on_error": "raise", **settings})
    must_exist = net.on_error == "raise"
    if _is_one(image):
        with TemporaryDirectory(prefix="vggfeat-") as folder:
            item = _item(image, "image", Path(folder), must_exist=must_exist)
            row: Descriptors = net._describe([item], _LAST)[0]
            return row
    several = cast("Iterable[ImageLike]", image)
    with _as_items(several, "image", must_exist=must_exist) as items:
        return net._describe(items, _LAST)


def _is_one(image: ImageLike | Iterable[ImageLike]) -> TypeGuard[ImageLike]:
    """Tell whether something is one image and no sequence of them."""
    if is_tensor(image):
        return image.ndim != 4
    if isinstance(image, np.ndarray):  # one of texts or objects holds paths
        return image.ndim != 4 and image.dtype.kind not in "OUS"
    return isinstance(image, str | bytes | os.PathLike | Image.Image)  # bytes, to be refused


def _not_kept(
    dataset: Dataset, recipe: Recipe, machine: Machine, watch: Watch, nets: Kept | None
) -> Descriptors:
    """Describe images in memory; no store is looked into."""
    jobs = []
    for which in recipe.described:
        job = job_of(recipe, machine, dataset, which, watch)
        jobs.append(replace(job, donors=()))
    return np.concatenate([fused(rows, recipe) for rows in described(jobs, machine, watch, nets)])


def _kept(dataset: Dataset, recipe: Recipe, machine: Machine, watch: Watch) -> Descriptors:
    """Read images' descriptors from stores, which are made where they are not there."""
    ids = [item.id for item in dataset.items]
    with ExitStack() as opened:
        jobs = [job_of(recipe, machine, dataset, which, watch) for which in recipe.described]
        stores = [
            opened.enter_context(DescriptorStore.open(path))
            for path in _found_or_made(jobs, recipe, machine, watch)
        ]
        blocks = blocks_of(stores, dataset, recipe)
        if machine.on_error == "raise":
            for i in ids:
                if reason := blocks[0].store.unreadable.get(i):
                    raise ImageReadError(i, reason)
        return read_fused(blocks, ids, recipe)


def _found_or_made(
    jobs: Sequence[StoreJob], recipe: Recipe, machine: Machine, watch: Watch
) -> list[Path]:
    """Return a store that serves each job; those that are not there are made together."""
    found: dict[Path, Path] = {}
    for job in jobs:
        with suppress(StoreNotFoundError):
            found[job.folder] = find_store(job, recipe)
    lacking = [job for job in jobs if job.folder not in found]
    made = fill(lacking, machine, watch)
    found |= zip((job.folder for job in lacking), made, strict=True)
    return [found[job.folder] for job in jobs]


@contextmanager
def _as_items(images: Iterable[ImageLike], name: str, *, must_exist: bool) -> Iterator[list[Item]]:
    """Yield images as files: those in memory become temporary ones, without loss.

    Args:
        images: Of any kind.
        name: Of the sequence, for messages.
        must_exist: Refuse paths that lead nowhere; otherwise they are left to be unreadable.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        wrong = f"{name} is one image, {images!r}."
        raise InputError(wrong, _EXPECTED, "Pass a list with it.")
    if not isinstance(images, Iterable):
        raise InputError(f"{name} is {images!r}.", _EXPECTED)
    if getattr(images, "ndim", 1) not in {1, 4}:
        shape = tuple(getattr(images, "shape", ()))
        raise InputError(f"{name} has the shape {shape}.", _EXPECTED, "Pass a list of them.")
    with TemporaryDirectory(prefix="vggfeat-") as folder:
        items = [
            _item(image, f"{name}[{n}]", Path(folder), must_exist=must_exist)
            for n, image in enumerate(images)
        ]
        if not items:
            raise InputError(f"{name} is empty: 0 images.", _EXPECTED)
        yield items


_EXPECTED = (
    "Expected a sequence of paths, PIL images, arrays of NumPy (H, W, C) or tensors of torch "
    "(C, H, W)."
)


def _item(image: ImageLike, name: str, folder: Path, *, must_exist: bool) -> Item:
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if must_exist and (not path.exists() or path.is_dir()):
            raise ImageNotFoundError(f"{name}: there is no file '{path}'.")
        return Item(item_id(path), FileSource(path))
    if is_tensor(image):
        image = from_tensor(image, name)
    elif isinstance(image, np.ndarray):
        image = from_array(image, name)
    elif not isinstance(image, Image.Image):
        raise InputError(f"{name} is of the type {type(image).__name__}.", _EXPECTED)
    data = as_file(image, name)
    path = folder / f"{sha256(data).tobytes().hex()}.ppm"
    path.write_bytes(data)
    return Item(path.name, FileSource(path))  # named by content: the same image is one row
