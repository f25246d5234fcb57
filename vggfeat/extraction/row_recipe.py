"""What changes one (image, scale) row of a store, in one list: made from a recipe, and turned back.

A row's fingerprint is that of this record, so a store serves whoever asks for an equal one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vggfeat.errors import StoreError
from vggfeat.extraction.images import DECODER, MAX_ASPECT, MAX_PIXELS, Interpolation
from vggfeat.nets.profile import PROFILES
from vggfeat.recipe import Described, PrecisionName, Recipe, Region, TapName
from vggfeat.store.layout import FORMAT_VERSION
from vggfeat.weights.find import STATEMENTS, WeightsIdentity
from vggfeat.weights.formats.sniff import Channels

# What no recipe can ask for: it hangs on the program, its libraries and the other images.
_BEYOND_RECIPES = ("decoder", "max_aspect", "max_pixels", "format_version", "calibration")


class RowRecipe(BaseModel):
    """Everything that changes one (image, scale) row.

    Attributes:
        net: The net's name.
        tap: The layer that is averaged.
        weights_sha256: Identity of the weights.
        profile: Their preprocessing.
        channels: The channel order that had to be stated; None where the weights tell.
        mirror: Averaged with the horizontal flip.
        interpolation: Filter of the rescaling.
        decoder: Library and major version, "pillow-12".
        resampler: Library and major version.
        max_aspect: Longer than that to 1 is cropped.
        max_pixels: Larger images are unreadable.
        precision: Of the layers.
        format_version: Of the store.
        pooling: Rounding of odd sizes in the pools, where it is not that of the profile.
        region: What of each image is described.
        calibration: Identity of an 8-bit net beside that of its float weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    net: str
    tap: TapName
    weights_sha256: str
    profile: Literal["oxford", "torchvision"]
    channels: Channels | None
    mirror: bool
    interpolation: Interpolation
    decoder: str
    resampler: str
    max_aspect: int
    max_pixels: int
    precision: PrecisionName
    format_version: int
    # Younger than the first stores: written only where they say something else.
    pooling: Literal["ceil", "floor"] | None = None
    region: Region = "image"
    calibration: str | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        described: Described,
        weights: WeightsIdentity,
        calibration: str | None = None,
    ) -> RowRecipe:
        """Return what a recipe and this program make of an image.

        Args:
            recipe: What is wanted.
            described: Which of the recipe's nets, what of each image, and which tap.
            weights: Of that net.
            calibration: Of an 8-bit net.
        """
        trained = PROFILES[weights.profile.name].ceil_mode
        as_trained = recipe.pooling is None or (recipe.pooling == "ceil") == trained
        torch_resampler = f"torch-{version('torch').split('.')[0]}"
        return cls.model_validate(
            {
                "net": described.model,
                "tap": described.tap,
                "weights_sha256": weights.sha256,
                "profile": weights.profile.name,
                "channels": weights.channels,
                "mirror": recipe.mirror,
                "interpolation": recipe.interpolation,
                "decoder": DECODER,
                "resampler": DECODER if recipe.resampler == "pillow" else torch_resampler,
                "max_aspect": MAX_ASPECT,
                "max_pixels": MAX_PIXELS,
                "precision": recipe.precision,
                "format_version": FORMAT_VERSION,
                "pooling": None if as_trained else recipe.pooling,
                "region": described.region,
                "calibration": calibration,
            }
        )

    @classmethod
    def read(cls, values: Mapping[str, Any], path: Path) -> RowRecipe:
        """Return the record that a store keeps.

        Args:
            values: The store's `recipe`, of this version or any before.
            path: Of the store, for messages.

        Raises:
            StoreError: If it says what this version does not know.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"The rows of '{path}' are of a kind that is not known here: its recipe has "
                f"{field} = {values.get(field)!r}.",
                f"Expected the fields and values of vggfeat's format {FORMAT_VERSION}.",
                "Use the version of vggfeat that made it, or run `vggfeat extract` again.",
            ) from error

    def as_json(self) -> dict[str, Any]:
        """Return what a store keeps, and what its row fingerprint is made of."""
        fields = RowRecipe.model_fields
        values = self.model_dump(mode="json")
        return {
            k: v for k, v in values.items() if fields[k].is_required() or v != fields[k].default
        }

    def as_options(self, weights: WeightsIdentity) -> dict[str, Any]:
        """Return the values of a recipe that make such rows.

        Args:
            weights: Those of the rows; they need not be at hand.

        Returns:
            Field of a recipe to its value; None stands for the recipe's default.
        """
        return {
            "models": (self.net,),
            "weights": (known.family if (known := weights.published) else weights.origin,),
            "profile": self._statement(weights),
            "mirror": self.mirror,
            "interpolation": self.interpolation,
            "resampler": _library(self.resampler),
            "tap": (self.tap,),
            "pooling": self.pooling,
            "regions": (self.region,),
            "precision": self.precision,
        }

    def asked(self, recipe: Recipe, weights: WeightsIdentity) -> RowRecipe:
        """Return the rows that a recipe asks for where these stand for them.

        Args:
            recipe: Says all that a recipe can say; the rest is taken from here.
            weights: That the recipe asks for.
        """
        net = self.net if self.net in recipe.models else recipe.models[0]
        region = self.region if self.region in recipe.regions else recipe.regions[0]
        taps = recipe.taps_of(net)
        tap = self.tap if self.tap in taps else taps[0]
        wanted = RowRecipe.of(recipe, Described(net, region, tap), weights)
        kept = {name: getattr(self, name) for name in _BEYOND_RECIPES}
        if _library(wanted.resampler) == _library(self.resampler):
            kept["resampler"] = self.resampler
        return wanted.model_copy(update=kept)

    def differences(self, other: RowRecipe) -> dict[str, tuple[Any, Any]]:
        """Return each field that differs: its value here, and in `other`."""
        pairs = {
            name: (getattr(self, name), getattr(other, name)) for name in RowRecipe.model_fields
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _statement(self, weights: WeightsIdentity) -> str | None:
        """Return the `profile` of a recipe that has these weights; None where none is needed."""
        if weights.tells_profile or (weights.family == "random" and self.profile == "oxford"):
            return None
        said = (self.profile, self.channels)
        return next((name for name, what in STATEMENTS.items() if what == said), self.profile)


def _library(name: str) -> str:
    """Return the library of "pillow-12"."""
    return name.partition("-")[0]
