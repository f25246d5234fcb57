"""A recipe: everything that decides a number. From TOML or options to a frozen, checked record."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vggfeat.classify.measures import measure_of
from vggfeat.data.names import NAMED, expanded, known, own_measure, place_of, slug
from vggfeat.errors import RecipeError, nearest
from vggfeat.nets.architectures import TAPS, architecture
from vggfeat.nets.precisions import PRECISIONS

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # that a user or a file may choose: it leads nowhere

Aggregate = Literal["average", "stack", "max"]
Loss = Literal["hinge", "squared_hinge"]
Region = Literal["image", "box"]

# Fields that are younger than results that are kept: at their default they are not written, so that
# the identity of a recipe without them is what it was.
_YOUNGER = ("class_weight", "folds", "pool", "shots", "draws")


@dataclass(frozen=True)
class _NameIn:
    """Checks that a name stands in a table, as the table is when somebody asks."""

    table: Mapping[str, object]
    of_one: bool = False  # whether "one:" may stand before it

    def __call__(self, value: str) -> str:
        if (value.rpartition(":")[2] if self.of_one else value) not in self.table:
            raise PydanticCustomError("literal_error", "Input should be a name of a table")
        return value


TapName = Annotated[str, AfterValidator(_NameIn(TAPS))]
TapChoice = Annotated[str, AfterValidator(_NameIn(TAPS, of_one=True))]
PrecisionName = Annotated[str, AfterValidator(_NameIn(PRECISIONS))]


@dataclass(frozen=True)
class Described:
    """What one store holds, and one block of the fused descriptor.

    Attributes:
        model: The net.
        region: What of each image is described.
        tap: The layer that is averaged.
    """

    model: str
    region: Region
    tap: str

    def __str__(self) -> str:
        """Return it in the words of the command line."""
        return f"{self.model} {self.region} {self.tap}"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Paper(_Record):
    """The published figure that a recipe stands beside.

    Attributes:
        table: Number of the paper's table.
        row: Its row.
        column: Its column.
        value: The figure, percent.
        deviation: Over the splits, percent; None where none was published.
    """

    table: int
    row: str
    column: str
    value: float
    deviation: float | None = None


class Ablation(_Record):
    """What a recipe changes in another one, to see what that is worth.

    Attributes:
        base: Name of the recipe that everything else is taken from.
        question: What is changed, for example "scales".
        answer: To what, for example "256".
    """

    base: str
    question: str
    answer: str


class Draft(_Record):
    """What somebody says of an experiment; each default that no data set decides stands here alone.

    Attributes:
        dataset: One of `vggfeat datasets list`, or voc:PATH, folder:PATH, csv:PATH.
        models: One net, or several for late fusion; `vggfeat models` lists them.
        weights: One for all nets or one each: oxford, torchvision, random:SEED or a path.
        profile: Preprocessing of a weight file that does not tell itself, and, where its layout
            leaves it open, the channel order that it reads.
        scales: S shorter sides Q, pixels, as 256,384,512; None for the data set's own.
        mirror: Average with the horizontal flip.
        interpolation: Filter of the rescaling.
        resampler: What rescales: Pillow, or torch on the net's device.
        tap: The layer that is averaged, or several, whose descriptors one pass gives and late
            fusion joins: fc7, fc6, fc8, pool5, conv5_3, ...; fc7-linear is before its ReLU,
            vgg16:pool5 is of that net alone.
        pooling: Rounding of odd sizes in the net's pools, up or down; None for that of the weights.
        regions: Where the items are boxes: what of each is described, the whole image, the box, or
            both for late fusion; None for the data set's own.
        precision: Of the net's layers; tf32 and float16 are for GPUs, int8 for CPUs.
        aggregate: How the scales become one descriptor; None for the data set's own.
        normalise: L2 of the joined descriptor alone, "after", or of each scale's "before" as well.
        loss: Of the SVM.
        grid: Values of C; None for 2^-4 ... 2^7, which grows while the best lies at its edge.
        choose_c: One C for all classes, or one for each.
        difficult: Difficult images in training: left out, or negatives.
        class_weight: Of the SVM: the same C for every image, or "balanced", so that the images of a
            class and all others weigh the same.
        folds: Of a stratified cross-validation in the place of the data set's parts: each image is
            tested once; None for these parts.
        pool: With folds: parts that the data set gives itself are put together first.
        shots: So many images of each class to train with, drawn by seed, one experiment for each
            number, as 1,2,4,8,16; None for all there are.
        draws: With shots: how often the images are drawn.
        measure: What C is chosen by; None for the data set's own.
        seed: Of the SVM's coordinate order, of a folder's parts, of folds and draws.
        limit: So many images each of train, val and test only.
        name: Of the result; None for one made from the recipe.
        paper: The published figure.
        ablation: What it changes in another recipe.
    """

    dataset: str
    models: tuple[str, ...] = Field(min_length=1)
    weights: tuple[str, ...] = ("oxford",)
    profile: Literal["oxford", "oxford-bgr", "oxford-rgb", "torchvision"] | None = None
    scales: tuple[int, ...] | None = None
    mirror: bool = True
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resampler: Literal["pillow", "torch"] = "pillow"
    tap: tuple[TapChoice, ...] = ("fc7",)
    pooling: Literal["ceil", "floor"] | None = None
    regions: tuple[Region, ...] | None = None
    precision: PrecisionName = "float32"
    aggregate: Aggregate | None = None
    normalise: Literal["after", "before"] = "after"
    loss: Loss = "hinge"
    grid: tuple[float, ...] | None = None
    choose_c: Literal["shared", "per-class"] = "shared"
    difficult: Literal["ignore", "negative"] = "ignore"
    class_weight: Literal["none", "balanced"] = "none"
    folds: int | None = Field(default=None, ge=2)
    pool: bool = False
    shots: tuple[int, ...] | None = None
    draws: int = Field(default=5, ge=1)
    measure: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    limit: int | None = Field(default=None, ge=1)
    name: str | None = Field(default=None, pattern=FILE_NAME)
    paper: Paper | None = None
    ablation: Ablation | None = None

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        known(value)
        kind, colon, _ = value.partition(":")
        return f"{kind}:{place_of(value)}" if colon else value  # "photos/" is "photos"

    @field_validator("weights")
    @classmethod
    def _at_home(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(expanded, value))

    @field_validator("models")
    @classmethod
    def _known_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            architecture(name)
        if len(set(value)) != len(value):
            raise RecipeError(f"Models {', '.join(value)}: one occurs twice.")
        return value

    @field_validator("tap", mode="before")
    @classmethod
    def _one_tap(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("tap")
    @classmethod
    def _sound_taps(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            wrong = f"Taps {', '.join(value)}: one occurs twice." if value else "No tap at all."
            raise RecipeError(
                wrong, "Expected one or more, each once.", "For example --tap pool5 --tap fc7."
            )
        return value

    @field_serializer("tap", when_used="json")
    def _as_before(self, value: tuple[str, ...]) -> str | list[str]:
        """Write one tap as its name: identities of recipes with one are older than lists."""
        return value[0] if len(value) == 1 else list(value)

    @field_validator("scales")
    @classmethod
    def _sound_scales(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value == ():
            raise RecipeError(
                "No scale at all.", "Expected one or more.", "For example --scales 256,384,512."
            )
        if value is not None and len(set(value)) != len(value):
            raise RecipeError(f"Scales {value}: one occurs twice.")
        return value

    @field_validator("measure")
    @classmethod
    def _known_measure(cls, value: str | None) -> str | None:
        return None if value is None else measure_of(value).name

    @field_validator("regions")
    @classmethod
    def _sound_regions(cls, value: tuple[Region, ...] | None) -> tuple[Region, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise RecipeError(f"Regions {value}.", "Expected image, box, or both once.")
        return value

    @field_validator("grid")
    @classmethod
    def _sound_grid(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or not all(0 < c < float("inf") for c in value)):
            raise RecipeError(f"Grid {value}.", "Every C must be a positive number.")
        return None if value is None else tuple(sorted(set(value)))

    @field_validator("shots")
    @classmethod
    def _sound_shots(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 1):
            raise RecipeError(
                f"Shots {value}.", "Expected whole numbers from 1.", "For example --shots 1,2,4,8."
            )
        return None if value is None else tuple(sorted(set(value)))

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        defaults = {name: type(self).model_fields[name].default for name in _YOUNGER}
        return {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}

    def completed(self) -> dict[str, Any]:
        """Return all values, with the data set's own where this says none."""
        record = known(self.dataset)
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name in ("scales", "regions", "aggregate"):
            if values[name] is None:
                values[name] = getattr(record, name)
        if self.measure is None:
            values["measure"] = own_measure(self.dataset)
        return values


class Recipe(Draft):
    """A complete recipe: what decides the numbers of one experiment, with nothing left open.

    The fields are those of `Draft`; the four that a data set decides where nobody else does are
    never None. `build` and `from_toml` make recipes of drafts.
    """

    scales: tuple[int, ...]
    regions: tuple[Region, ...]
    aggregate: Aggregate
    measure: str

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.choose_c == "per-class" and measure_of(self.measure).one_class:
            raise RecipeError(
                f"choose_c = 'per-class' with measure = {self.measure!r}.",
                "Its value for one class rises as the others' C falls: no class can choose alone.",
                "Pass --choose-c shared, or an average precision as --measure.",
            )
        _check_tap(self)
        _check_protocol(self)
        record = known(self.dataset)
        check_measure(self, one_class=record.one_class)
        if "box" in self.regions and not record.boxes:
            raise RecipeError(
                f"regions = {list(self.regions)} on {self.dataset!r}.",
                "Its items are whole images, without boxes.",
                f"Leave regions out, or take {' or '.join(n for n in NAMED if NAMED[n].boxes)}.",
            )
        if len(self.weights) not in {1, len(self.models)}:
            raise RecipeError(
                f"{len(self.weights)} weights for {len(self.models)} models.",
                "Expected one for all, or one for each.",
            )
        return self

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str) -> Recipe:
        """Check values and complete them by the data set's defaults.

        Args:
            values: Field to value; lists may stand for tuples, one net's name for a list of one.
            source: Where they come from, for messages.

        Raises:
            RecipeError: If a field is unknown or a value cannot be; the nearest is named.
        """
        frozen = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        for key in ("models", "weights"):
            if isinstance(frozen.get(key), str):
                frozen[key] = (frozen[key],)
        try:
            return cls.model_validate(Draft.model_validate(frozen).completed())
        except ValidationError as error:
            raise _explained(error, cls, source) from None

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe file.

        Args:
            path: TOML with the fields of this class.
            overrides: Values that win over the file's.

        Raises:
            RecipeError: If the file is absent or no TOML, or as in `build`.
        """
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"No recipe '{path}'.", remedy="`ls pipelines` shows ours.") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"'{path}' is no TOML file: {error}.") from error
        return cls.build({**values, **(overrides or {})}, f"'{path}'")

    def weights_of(self, model: str) -> str:
        """Return the weights of one of the models."""
        return self.weights[0 if len(self.weights) == 1 else self.models.index(model)]

    def file_name(self) -> str:
        """Return the stem of the result's file: `name`, or made from data set, models and hash."""
        if self.name:
            return self.name
        return "-".join([slug(self.dataset), *self.models, fingerprint(self.canonical())[:8]])

    def canonical(self) -> dict[str, Any]:
        """Return what identifies the experiment: all but its name and what it is compared with."""
        return self.model_dump(mode="json", exclude={"name", "paper", "ablation"})

    def published(self) -> Self:
        """Return the recipe for others to read: of an absolute path only the name is left.

        A relative path stays as it was given: it leads on from the folder that the recipe was run
        in, and says nothing of the machine.
        """
        kind, colon, path = self.dataset.partition(":")
        values = {
            "dataset": f"{kind}{colon}{published_path(path)}",
            "weights": tuple(map(published_path, self.weights)),
        }
        return self.model_copy(update=values)

    @property
    def described(self) -> tuple[Described, ...]:
        """Each net with each region and tap: a store, and a block of the fused descriptor, each."""
        return tuple(
            Described(model, region, tap)
            for model in self.models
            for region in self.regions
            for tap in self.taps_of(model)
        )

    def taps_of(self, model: str) -> tuple[str, ...]:
        """Return the taps of one of the models: those of every net, and those of its own."""
        pairs = (choice.rpartition(":") for choice in self.tap)
        return tuple(tap for net, _, tap in pairs if net in {"", model})

    def last_layer(self, model: str) -> str:
        """Return the last layer or pool that is computed of one of the models."""
        return architecture(model).deepest(self.taps_of(model)).layer

    @property
    def repeats(self) -> str:
        """What the several splits of an experiment are: splits, or else folds or draws."""
        return "folds" if self.folds else "draws" if self.shots else "splits"

    @property
    def descriptor_size(self) -> int:
        """D of what the SVM sees: scales joined, nets, regions and taps fused."""
        sizes = [architecture(one.model).descriptor_size(one.tap) for one in self.described]
        return sum(sizes) * (len(self.scales) if self.aggregate == "stack" else 1)


def published_path(path: str) -> str:
    """Return what may be published of a path: all of a relative one, of an absolute one its name.

    >>> published_path("/home/me/photos"), published_path("data/photos"), published_path("oxford")
    ('photos', 'data/photos', 'oxford')
    """
    return (Path(path).name or path) if Path(path).is_absolute() else path


def check_measure(recipe: Recipe, *, one_class: bool | None) -> None:
    """Check that a recipe's measure fits the labels of its data set.

    Args:
        recipe: Names both.
        one_class: Whether every image has exactly one class; None if that is not known yet.

    Raises:
        RecipeError: If it does not.
    """
    own = measure_of(recipe.measure)
    if own.one_class and one_class is False:
        raise RecipeError(
            f"measure = {own.name!r} on {recipe.dataset!r}.",
            f"Its images have any number of classes, so there is no {own.label}.",
            "Pass --measure voc2007 or voc2010.",
        )


def _check_tap(recipe: Recipe) -> None:
    """Check that each net has its taps, and gives the deepest a cell at every scale."""
    strangers = {choice.rpartition(":")[0] for choice in recipe.tap} - {"", *recipe.models}
    if strangers:
        raise RecipeError(
            f"tap = {', '.join(recipe.tap)}: {min(strangers)} is none of the models.",
            f"They are {', '.join(recipe.models)}.",
        )
    for model in recipe.models:
        taps = recipe.taps_of(model)
        if not taps or len(set(taps)) != len(taps):
            raise RecipeError(
                f"tap = {', '.join(recipe.tap)}: {model} has {'one twice' if taps else 'none'}.",
                "Expected each tap of a net once, for every net.",
                f"For example --tap {model}:pool5 for {model} alone, --tap pool5 for all.",
            )
        tap = architecture(model).deepest(taps)
        if min(recipe.scales) < tap.enough:
            cells = f"{tap.window}×{tap.window} cells" if tap.window > 1 else "one cell"
            raise RecipeError(
                f"Scale Q = {min(recipe.scales)}.",
                f"Every scale must be at least {tap.enough} pixels: {tap.layer} needs {cells} "
                f"of {1 << tap.pools}.",
                "Choose larger scales, for example --scales 256,384,512.",
            )


def _check_protocol(recipe: Recipe) -> None:
    """Check that what is said of folds and of shots belongs together."""
    if recipe.folds and recipe.shots:
        raise RecipeError(
            f"folds = {recipe.folds} and shots = {list(recipe.shots)}.",
            "Folds test every image, and shots leave the test images as they are.",
            "Take one of them away.",
        )
    if recipe.pool and not recipe.folds:
        raise RecipeError(
            "pool = true without folds.",
            "Parts are put together to be divided into folds.",
            "Pass --folds 5 too, or take --pool away.",
        )
    if recipe.draws != type(recipe).model_fields["draws"].default and not recipe.shots:
        raise RecipeError(
            f"draws = {recipe.draws} without shots.",
            "Draws are of some training images of each class.",
            "Pass --shots 1,2,4,8,16 too, or take --draws away.",
        )


class Machine(_Record):
    """Where and on what a recipe runs; nothing here changes a number.

    Attributes:
        data_root: Where named data sets are looked for.
        cache: Where stores are kept.
        results: Where results are written.
        device: auto, cpu, cuda or cuda:N; of several, cuda:0,1, each gets a process.
        workers: Threads that decode images, and processes that fit; None for one per core.
        memory: That `extract` may use, of the device that computes: 6GB, 512MB; None for half
            of what is free, or of all where the size of a batch may change the last bits of a row.
        on_error: What an unreadable image does.
        offline: Fetch nothing that is not on disk.
        verify_images: Hash every image again, even one that looks unchanged.
    """

    data_root: Path = Path("datasets")
    cache: Path = Path("features")
    results: Path = Path("results")
    device: str = "auto"
    workers: int | None = Field(default=None, ge=1)
    memory: str | None = Field(default=None, pattern=r"^[1-9]\d*(\.\d+)?[MG]B$")
    on_error: Literal["record", "raise"] = "record"
    offline: bool = False
    verify_images: bool = False

    @field_validator("data_root", "cache", "results")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return Path(expanded(str(value)))

    @property
    def memory_bytes(self) -> int | None:
        """`memory` as a number."""
        if self.memory is None:
            return None
        return int(float(self.memory[:-2]) * {"M": 10**6, "G": 10**9}[self.memory[-2]])

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Machine:
        """Check values.

        Raises:
            RecipeError: If one cannot be; the nearest is named.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _explained(error, cls, "the command line") from None


def device_names(text: str) -> list[str]:
    """Return the devices that a value of `--device` names.

    >>> device_names("cuda:0,1"), device_names("auto")
    (['cuda:0', 'cuda:1'], ['auto'])
    """
    first, *others = text.split(",")
    kind = first.partition(":")[0]
    return [first, *(f"{kind}:{name}" if name.isdigit() else name for name in others)]


def fingerprint(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's canonical JSON: sorted keys, no blanks, no NaN.

    >>> fingerprint({"b": 1, "a": [2]}) == fingerprint({"a": [2], "b": 1})
    True
    """
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _explained(error: ValidationError, model: type[BaseModel], source: str) -> RecipeError:
    """Turn the first complaint of pydantic into ours."""
    # an unknown field explains a missing one better than the other way round
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RecipeError):
        return cause
    named = first["type"] == "literal_error"  # then the value says which of a list is wrong
    field = ".".join(str(part) for part in first["loc"] if isinstance(part, str) or not named)
    nested: dict[str, type[BaseModel]] = {"paper": Paper, "ablation": Ablation}
    inner = nested.get(str(first["loc"][0]), model)
    if first["type"] == "extra_forbidden":
        wrong = f"Unknown field {field!r} in {source}."
        return RecipeError(wrong, nearest(str(first["loc"][-1]), inner.model_fields))
    if first["type"] == "missing":
        remedy = f"Add it{f' (--{_option(field)})' if inner is model else ''}."
        return RecipeError(f"{source} says no {field!r}.", remedy=remedy)
    wrong = f"{field} = {first['input']!r} in {source}."
    choices = allowed(model, str(first["loc"][0]))
    if first["type"] == "literal_error" and isinstance(first["input"], str) and choices:
        return RecipeError(wrong, nearest(first["input"], choices))
    said = first["msg"].replace("Input should be", "Expected")
    expected = _EXPECTED.get(field) or _EXPECTED.get(first["type"], f"{said}.")
    return RecipeError(wrong, expected)


_EXPECTED = {
    "tuple_type": "Expected a list in square brackets.",
    "string_type": "Expected text.",
    "int_type": "Expected a whole number.",
    "float_type": "Expected a number.",
    "bool_type": "Expected true or false.",
    "memory": "Expected a number and MB or GB, for example 6GB.",
    "string_pattern_mismatch": "Expected letters, digits and '._-', a letter or digit first.",
}


def _option(field: str) -> str:
    return {"models": "model"}.get(field, field).replace("_", "-")


def allowed(model: type[BaseModel], field: str) -> list[str]:
    """List the strings that a field allows: those of its table, or of its annotation's Literals."""

    def strings(parts: Iterable[object]) -> list[str]:
        found: list[str] = []
        for part in parts:
            if isinstance(part, AfterValidator) and isinstance(part.func, _NameIn):
                found += part.func.table
            else:
                found += [part] if isinstance(part, str) else strings(get_args(part))
        return found

    if field not in model.model_fields:
        return []
    about = model.model_fields[field]
    return strings([about.annotation, *about.metadata])
