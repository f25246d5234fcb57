"""Weights and the preprocessing that belongs to them: found, identified, read, or drawn."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vggfeat.errors import WeightsError, WeightsNotFoundError, nearest
from vggfeat.files.digests import sha256_of
from vggfeat.nets.architectures import Architecture, Layer, architecture
from vggfeat.nets.profile import PROFILES, WeightProfile
from vggfeat.weights import formats
from vggfeat.weights.catalogue import PublishedWeights, by_digest, catalogue, published_as
from vggfeat.weights.convert import convert, converted_metadata
from vggfeat.weights.formats.layouts import LAYOUTS
from vggfeat.weights.formats.sniff import Channels, LayoutName
from vggfeat.weights.local import candidates, families, place_of, weight_folders

if TYPE_CHECKING:  # finding and identifying weights needs no torch; drawing and reading them does
    from torch import Tensor

RANDOM_SCHEME = 1  # raised whenever `random_tensors` draws other numbers
_DRAWN_AT_ONCE = 1 << 22
# What a user can say of a file that does not tell itself: its profile, and the channel order that
# its conv1_1 reads, where the authors' weights have got torchvision's names.
STATEMENTS: dict[str, tuple[str, Channels | None]] = {
    "oxford": ("oxford", None),
    "oxford-bgr": ("oxford", "BGR"),
    "oxford-rgb": ("oxford", "RGB"),
    "torchvision": ("torchvision", "RGB"),
}
# Layout → the statement that most files with its names need, where it is not torchvision's.
_LIKELY: dict[LayoutName, str] = {"plain": "oxford-bgr"}


@dataclass(frozen=True, kw_only=True)
class WeightsIdentity:
    """Which weights, and the preprocessing that belongs to them; they need not be at hand.

    Attributes:
        origin: What the user may be shown: "random:0", or a file's name.
        sha256: Of the file; of the seed and the scheme where they are drawn.
        family: "oxford" or "torchvision" for a published file, "random", or "own" for any other.
        profile: Their preprocessing.
        channels: The channel order that the user has stated; None where the file tells.
    """

    origin: str
    sha256: str
    family: str
    profile: WeightProfile
    channels: Channels | None = None

    @property
    def published(self) -> PublishedWeights | None:
        """The published file that they are; None for any other, converted ones too."""
        return published_as(self.origin, self.sha256)

    @property
    def tells_profile(self) -> bool:
        """Whether their profile is known without a word from the user."""
        return self.family in families()


@dataclass(frozen=True, kw_only=True)
class Weights(WeightsIdentity):
    """Weights that were found and identified, but not yet read; plain data, which can be pickled.

    Attributes:
        net: Name of the net.
        source: Their file, or the seed that they are drawn from.
        stated: The channel order that the user has stated, which reading them checks.
        last: The last layer or pool that is needed; None for as much as the file has.
    """

    net: str
    source: Path | int
    stated: Channels | None = None
    last: str | None = "fc8"

    def load(self) -> dict[str, Tensor]:
        """Read or draw them: "conv1_1.weight" to `last`, float32, conv1_1 reading RGB.

        Raises:
            WeightsError: If the file cannot be read, or is not what was said of it.
        """
        if isinstance(self.source, int):
            return random_tensors(architecture(self.net), self.source, self.last or "fc8")
        return _read(self.source, self)


def find_weights(
    net: Architecture, weights: str, profile: str | None = None, last: str | None = "fc8"
) -> Weights:
    """Find weights for a net and identify them, without reading them.

    Args:
        net: Which net.
        weights: "oxford", "torchvision", "random:SEED" or a path.
        profile: One of `STATEMENTS`, for a file that does not tell itself.
        last: The last layer or pool that is needed; None for as much as a file has.

    Raises:
        WeightsNotFoundError: If published ones are absent.
        WeightsError: If a file is absent, known to be another's, or does not fit the profile; if
            its preprocessing is not known.
    """
    if seed := re.fullmatch(r"random:(\d+)", weights):
        return _random(net, int(seed[1]), profile, last)
    if weights in families():
        return _from_catalogue(net, weights, last)
    if "/" not in weights and not Path(weights).exists() and not Path(weights).suffix:
        valid = [*families(), "random:SEED", "a path"]
        raise WeightsError(f"Unknown weights {weights!r}.", nearest(weights, valid))
    return _from_file(net, Path(weights), profile, last)


def pooled(weights: Weights, pooling: Literal["ceil", "floor"] | None) -> Weights:
    """Return weights whose pools round odd sizes as said; None for as they were trained."""
    if pooling is None:
        return weights
    return replace(weights, profile=replace(weights.profile, ceil_mode=pooling == "ceil"))


def random_tensors(net: Architecture, seed: int, last: str = "fc8") -> dict[str, Tensor]:
    """Draw He-initialised weights (He et al. 2015: variance 2 / fan-in) and biases of zero.

    Each layer has a generator of its own, numpy's RandomState, whose stream is frozen for ever
    (NEP 19), keyed by seed and layer name; so the numbers are the same on every machine.

    Args:
        net: Which net.
        seed: Any non-negative integer.
        last: The last layer or pool that is needed.

    Returns:
        "conv1_1.weight" and so on, float32.
    """
    import torch

    tensors = {}
    for layer in net.layers(last):
        tensors[f"{layer.name}.weight"] = torch.from_numpy(_he_normal(layer, seed))
        tensors[f"{layer.name}.bias"] = torch.zeros(layer.shape[0])
        if layer.norm:  # as before any training
            for part, value in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)):
                tensors[f"{layer.name}.norm.{part}"] = torch.full(layer.shape[:1], value)
    return tensors


def convert_weights(source: str, model: str, profile: str | None = None) -> Path:
    """Write weights as one safetensors file in the user's cache, unless it is there.

    Args:
        source: A family, the name of a published file, or a path.
        model: The net.
        profile: One of `STATEMENTS`, for a file that does not tell itself.

    Returns:
        `<cache>/weights/<stem>-<sha256[:8]>.safetensors`.

    Raises:
        WeightsError: As `find_weights`, and if the file cannot be read.
        PublishError: If it cannot be written.
    """
    net = architecture(model)
    if source in families():
        place = next(filter(Path.is_file, map(place_of, candidates(source, model))), None)
    else:
        known = {file.name: file for file in catalogue()}
        place = place_of(known[source]) if source in known else Path(source)
    weights = find_weights(net, source if place is None else str(place), profile, None)
    if place is None or weights.origin.startswith("random:"):
        raise WeightsError(f"{source!r} is no file.", "Expected a weight file to convert.")
    target = weight_folders()[0] / f"{place.stem}-{weights.sha256[:8]}.safetensors"
    port = replace(formats.read(place, net, None), channels="RGB", tensors=weights.load())
    return convert(
        port,
        net,
        origin=place.name,
        origin_sha256=weights.sha256,
        profile=weights.profile.name,
        target=target,
    )


def _he_normal(layer: Layer, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    out, channels, kernel, _ = layer.shape
    key = hashlib.sha256(f"{RANDOM_SCHEME}/{seed}/{layer.name}".encode()).digest()
    generator = np.random.RandomState(np.frombuffer(key, dtype=">u4").astype(np.uint32))
    scale = np.sqrt(2 / (channels * kernel * kernel))
    weight = np.empty(out * channels * kernel * kernel, dtype=np.float32)
    for start in range(0, weight.size, _DRAWN_AT_ONCE):  # the same stream, in bounded memory
        part = weight[start : start + _DRAWN_AT_ONCE]
        part[:] = scale * generator.standard_normal(part.size)
    return weight.reshape(layer.shape)


def _random(net: Architecture, seed: int, profile: str | None, last: str | None) -> Weights:
    return Weights(
        origin=f"random:{seed}",
        sha256=hashlib.sha256(
            f"vggfeat random weights {RANDOM_SCHEME}/{seed}".encode()
        ).hexdigest(),
        family="random",
        profile=PROFILES[STATEMENTS[profile or "oxford"][0]],
        net=net.name,
        source=seed,
        last=last,
    )


def _from_catalogue(net: Architecture, family: str, last: str | None) -> Weights:
    files = candidates(family, net.name)
    for file in files:
        place = place_of(file)
        if not place.is_file():
            continue
        weights = _from_file(net, place, file.profile, last)
        if not file.could_be(weights.sha256):
            raise WeightsError(
                f"'{place}' is not the published file of that name: its sha256 is "
                f"{weights.sha256[:16]}….",
                remedy=f"Move it away and type `vggfeat weights fetch {file.name}`.",
            )
        return replace(weights, family=family)
    places = ", ".join(f"'{folder}'" for folder in weight_folders())
    raise WeightsNotFoundError(
        files[0].name,
        f"No weights {family!r} for {net.name!r} on this machine.",
        f"Looked in {places} for {', '.join(file.name for file in files)}.",
        f"Type `vggfeat weights fetch {files[0].name}`, or pass --weights PATH or random:0.",
    )


def _from_file(net: Architecture, path: Path, profile: str | None, last: str | None) -> Weights:
    if not path.is_file():
        raise WeightsError(f"No weight file '{path}'.", remedy="Check the path.")
    digest = _digest(path)
    origin, declared = _declared(path, digest, net)
    name, stated = STATEMENTS[profile] if profile else (declared, None)
    if name is None:
        name = _told_profile(net, path, digest, last)
    if declared not in {None, name}:
        raise WeightsError(
            f"'{path}' is {origin}, whose profile is {declared!r}, not {profile!r}.",
            remedy="Leave --profile out.",
        )
    return Weights(
        origin=_name(path),
        sha256=digest,
        family=_family(path, digest),
        profile=PROFILES[name],
        channels=None if declared or _tells(path, digest, net, name, stated) else stated,
        net=net.name,
        source=path,
        stated=stated,
        last=last,
    )


def _name(path: Path) -> str:
    """Return what a file may be called: its name, of a model.json with its folder's."""
    alone = len(formats.files_of(path)) == 1
    return path.name if alone else f"{path.absolute().parent.name}/{path.name}"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a weight file: of all its files, one behind the other.

    Raises:
        WeightsError: If one that belongs to it is not there.
    """
    return sha256_of(*formats.files_of(path))


def _tells(
    path: Path, digest: str, net: Architecture, profile: str, stated: Channels | None
) -> bool:
    """Say whether a file settles by itself the channel order that was stated of it.

    Only a look into the file shows whether two statements lead to the same rows.
    """
    if profile != "oxford" or stated is None:
        return False
    return _told(path, digest, net.name, "conv1_1").channels == stated


@lru_cache(maxsize=16)
def _told(path: Path, digest: str, net: str, last: str | None) -> formats.Port:
    """Return what a file's layout and values tell, without them; read once for each content."""
    return replace(formats.read(path, architecture(net), last), tensors={})


def _told_profile(net: Architecture, path: Path, digest: str, last: str | None) -> str:
    """Return the profile that a file's layout or values tell.

    Raises:
        WeightsError: If neither tells.
    """
    lacking: WeightsError | None = None
    try:
        port = _told(path, digest, net.name, last)
    except WeightsError as error:
        if not error.options:
            raise
        lacking, port = error, _told(path, digest, net.name, "conv1_1")
    if port.profile is not None:
        return port.profile
    likely = _LIKELY.get(port.layout, "torchvision")
    raise WeightsError(
        f"'{path}' (sha256 {digest[:16]}…) is not in the catalogue of published weights, "
        "so its preprocessing is not known.",
        f"Most files with such names need --profile {likely}."
        + (f" And {lacking}" if lacking else ""),
        f"Say it: --profile {' or --profile '.join(STATEMENTS)}.",
        options={"--profile": likely, **(lacking.options if lacking else {})},
    )


def _declared(path: Path, digest: str, net: Architecture) -> tuple[str, str | None]:
    """Return what a file is and the profile that goes with it, None if nothing tells yet."""
    known = by_digest(digest)
    if known is not None:
        if not known.usable:
            raise WeightsError(f"'{path}' is {known.name}, which cannot be used.", known.reason)
        if known.net != net.name:
            raise WeightsError(
                f"'{path}' is {known.name}: weights of {known.net}, not of {net.name}.",
                remedy=f"Pass --model {known.net}, or another file.",
            )
        return known.name, known.profile
    converted = converted_metadata(path)
    if converted is not None:
        return f"converted from {converted.get('origin')}", converted.get("profile")
    form = formats.recognise(path)
    layout = LAYOUTS[form.layout] if form.layout else None
    return f"a file of the format {form.name}", layout.profile if layout else None


def _family(path: Path, digest: str) -> str:
    """Return the family of a published file, or of the one that a converted file comes from."""
    known = by_digest(digest)
    converted = converted_metadata(path) or {}
    if known is None and "origin_sha256" in converted:
        named = (file for file in catalogue() if file.name == converted.get("origin"))
        known = next((f for f in named if f.could_be(converted["origin_sha256"])), None)
    return "own" if known is None else known.family


def _read(path: Path, weights: Weights) -> dict[str, Tensor]:
    """Read a file's tensors, conv1_1 turned to RGB."""
    profile, stated = weights.profile.name, weights.stated
    port = formats.read(path, architecture(weights.net), weights.last)
    if port.profile not in {None, profile}:
        raise WeightsError(
            f"'{path}' has the layout of {port.layout}, whose profile is {port.profile!r}, "
            f"not {profile!r}.",
            remedy=f"Pass --profile {port.profile}.",
        )
    known = by_digest(_digest(path))
    orders = {port.channels, stated, known.channels if known else None} - {None}
    if profile == "torchvision":
        orders.add("RGB")
    if len(orders) > 1:
        raise WeightsError(
            f"'{path}': conv1_1 reads {port.channels} by its layout or its values, which is not "
            f"what was said of it ({stated or profile}).",
            "Fed with the wrong order, a net loses tens of points without any other sign.",
            "Leave --profile out, or pass the one that fits.",
        )
    if not orders:
        raise WeightsError(
            f"'{path}' has torchvision's names, and nothing tells whether its conv1_1 reads RGB "
            "or BGR.",
            "The authors' nets read BGR; some who renamed their layers turned them to RGB.",
            "Say it: --profile oxford-bgr or --profile oxford-rgb.",
            options={"--profile": "oxford-bgr"},
        )
    if orders == {"BGR"}:
        return port.tensors | {"conv1_1.weight": port.tensors["conv1_1.weight"].flip(1)}
    return port.tensors
