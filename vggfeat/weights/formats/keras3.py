"""Models of Keras 3: a configuration and an HDF5 file. Only `sandbox`'s process imports this.

In the HDF5 file a layer has the name of its class and a number, and only the configuration has its
own name; so the layers are counted as Keras does (keras/src/saving/saving_lib.py). Nothing that the
configuration names is made, and no code in it is run.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggfeat.weights.formats import hdf5
from vggfeat.weights.formats.plain import MOST_VALUES, Plain, Refused

_CONFIGURATION, _WEIGHTS = "config.json", "model.weights.h5"
_MOST_ENTRIES = 1000
_LONGEST_CONFIGURATION = 64 << 20  # bytes; that of vgg19 has 20,000
_LARGEST = 4 * 4 * MOST_VALUES  # bytes; the weights, and three numbers of an optimiser for each
_DEEPEST = 12


@contextmanager
def model(path: Path) -> Iterator[list[Plain]]:
    """Open a .keras file and give its weights, by the layers' own names.

    Args:
        path: As Keras 3 saves a model, or Keras 2.12 to 2.15 in the same format.

    Yields:
        "layers/block1_conv1/vars/0", its kernel, ".../vars/1", its bias, ...

    Raises:
        Refused: If it is no such file, or holds anything but plain arrays.
    """
    with zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > _MOST_ENTRIES:
            raise Refused(f"it holds {len(archive.infolist()):,} entries")
        names = _own_names(_configuration(archive))
        content = io.BytesIO(_entry(archive, _WEIGHTS, _LARGEST))
    with hdf5.opened(content) as file:
        yield [replace(one, name=_named(one.name, names)) for one in hdf5.weights(file)]


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    try:
        with archive.open(name) as stream:
            content = stream.read(most + 1)
    except KeyError:
        raise Refused(f"it has no {name!r}, as a model of Keras 3 has") from None
    if len(content) > most:
        raise Refused(f"its {name!r} has more than {most:,} bytes")
    return content


def _configuration(archive: zipfile.ZipFile) -> Any:  # noqa: ANN401  (whatever a file holds)
    try:
        return json.loads(_entry(archive, _CONFIGURATION, _LONGEST_CONFIGURATION))
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {_CONFIGURATION!r} is damaged") from error


def _own_names(config: Any, place: str = "", depth: int = 0) -> dict[str, str]:  # noqa: ANN401
    """Return the path of each layer in the HDF5 file → the same with the layer's own name."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or depth > _DEEPEST:
        return {}
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for layer in layers:
        if not isinstance(layer, dict):
            continue
        kind = _snake_case(str(layer.get("class_name", "")))
        number = f"_{seen[kind]}" if seen[kind] else ""
        seen[kind] += 1
        settings = layer.get("config")
        own = settings.get("name") if isinstance(settings, dict) else None
        path = f"{place}layers/{kind}{number}"
        names[path] = f"{place}layers/{str(own or kind + number).replace('/', '_')}"
        names |= _own_names(layer, f"{path}/", depth + 1)
    return names


def _named(path: str, names: dict[str, str]) -> str:
    path = path.replace("_layer_checkpoint_dependencies", "layers")  # of Keras 2.12 and 2.13
    layer, _, leaf = path.rpartition("/vars/")
    return f"{names.get(layer, layer)}/vars/{leaf}"


def _snake_case(name: str) -> str:
    """Return a class's name as Keras writes it: Conv2D → conv2d, MaxPooling2D → max_pooling2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
