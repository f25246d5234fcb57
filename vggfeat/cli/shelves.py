"""The commands that look at what is there: models, weights, data sets, stores."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.cli.group import main
from vggfeat.cli.options import (
    AS_JSON,
    machine_of,
    machine_options,
)
from vggfeat.cli.progress import terminal_watch
from vggfeat.cli.show import print_facts, print_path, print_rows, print_states
from vggfeat.errors import RecipeError

if TYPE_CHECKING:
    from vggfeat.nets.architectures import Architecture

_log = logging.getLogger(__name__)

# Precision → bytes of an activation between two layers.
_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@main.command()
@click.argument("name", required=False)
@click.option("--size", default="224x224", metavar="HxW", show_default=True, help="Of the image.")
@click.option(
    "--precision",
    type=click.Choice([*_BYTES]),
    default="float32",
    show_default=True,
    help="Of the activations.",
)
@AS_JSON
def models(name: str | None, size: str, precision: str, as_json: bool) -> None:
    """List the nets, or the layers of one of them.

    Both sides of an odd map are rounded up by the pools, as in Caffe.

    \b
    Example:
      vggfeat models
      vggfeat models vgg16 --size 384x512
    """
    from vggfeat.nets import architectures

    if name is not None:
        net = architectures.architecture(name)
        print_rows(_layer_rows(net, _size(size), _BYTES[precision]), as_json)
        return
    rows = [
        {
            "name": net.name,
            "configuration": net.column,
            "weight_layers": sum(1 for _ in net.layers()),
            "parameters": net.parameters,
            "gmac_at_224": round(sum(c.multiply_adds for c in net.costs(224, 224)) / 1e9, 3),
            "descriptor": net.descriptor_size("fc7"),
            "receptive_field_pool5": net.receptive_field("pool5"),
            "receptive_field_fc6": net.receptive_field("fc6"),
        }
        for net in architectures.ARCHITECTURES.values()
    ]
    print_rows(rows, as_json)


def _layer_rows(net: Architecture, size: tuple[int, int], value_bytes: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "layer": cost.name,
            "output": "×".join(map(str, cost.output)),
            "parameters": cost.parameters,
            "multiply_adds": cost.multiply_adds,
            "activation_bytes": math.prod(cost.output) * value_bytes,
        }
        for cost in net.costs(*size)
    ]
    summed = ("parameters", "multiply_adds", "activation_bytes")
    total = {key: sum(row[key] for row in rows) for key in summed}
    return [*rows, {"layer": "total", "output": "", **total}]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text)
    if match is None:
        raise RecipeError(f"--size {text!r}.", "Expected HxW in pixels, for example 384x512.")
    return int(match[1]), int(match[2])


@main.group()
def store() -> None:
    """Look at stores, and check them.

    \b
    Example:
      vggfeat store info features/voc2007-vgg16-1a2b3c4d
    """


@store.command("info")
@click.argument("path", type=Path)
@click.argument("image_id", required=False)
@AS_JSON
def store_info(path: Path, image_id: str | None, as_json: bool) -> None:
    """Say what a store (its folder or its file) holds, or what it holds of one image.

    \b
    Example:
      vggfeat store info features/voc2007-vgg16-1a2b3c4d 000005
    """
    from vggfeat.store.reader import DescriptorStore

    with DescriptorStore.open(path) as opened:
        facts = opened.summary() if image_id is None else opened.image_summary(image_id)
    print_facts(facts, as_json)


@store.command("verify")
@click.argument("path", type=Path)
@AS_JSON
def store_verify(path: Path, as_json: bool) -> None:
    """Hash a store and read it through; exit 1 if it is damaged.

    \b
    Example:
      vggfeat store verify features/voc2007-vgg16-1a2b3c4d
    """
    from dataclasses import asdict

    from vggfeat.errors import DamagedStoreError
    from vggfeat.store.reader import DescriptorStore

    try:
        with DescriptorStore.open(path) as opened:
            found = opened.verify()
        if found.faults:
            raise DamagedStoreError(f"'{path}' is damaged: {' '.join(found.faults)}")
    except DamagedStoreError as error:
        if as_json:
            print_facts({"sound": False, "fault": str(error)}, as_json)
        raise
    print_facts({"sound": True, **asdict(found)}, as_json)


@main.group()
def weights() -> None:
    """Published weight files: which there are, get them, check them, convert them.

    \b
    Example:
      vggfeat weights fetch oxford --model vgg16
    """


@weights.command("list")
@AS_JSON
def weights_list(as_json: bool) -> None:
    """List the published files, and which of them are on this machine.

    \b
    Example:
      vggfeat weights list
    """
    from vggfeat.weights.catalogue import catalogue
    from vggfeat.weights.local import place_of

    rows = [
        {
            "name": file.name,
            "family": file.family,
            "net": file.net,
            "bytes": file.size,
            "licence": file.licence,
            "here": str(place_of(file)) if place_of(file).is_file() else "",
            "note": file.reason,
        }
        for file in catalogue()
    ]
    print_rows(rows, as_json)


@weights.command("fetch")
@click.argument("name")
@click.option("--model", metavar="NAME", help="The net, if NAME is oxford or torchvision.")
@AS_JSON
def weights_fetch(name: str, model: str | None, as_json: bool) -> None:
    """Download one published file, checked, and print its path; goes on where it was cut.

    NAME is that of a file, or oxford or torchvision for the preferred file of a net.

    \b
    Example:
      vggfeat weights fetch oxford --model vgg16
    """
    from vggfeat.weights.local import fetch_file, published_file

    file, watch = published_file(name, model), terminal_watch()
    _log.info("%s", file.summary)
    print_path(fetch_file(file, watch), as_json)


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@AS_JSON
def weights_verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check files by size and digest, one line each; exit 1 if one is damaged or not whole.

    \b
    Example:
      vggfeat weights verify
      vggfeat weights verify vgg16-00b39a1b.pth
    """
    from vggfeat.weights.catalogue import catalogue
    from vggfeat.weights.local import examine_file, published_file

    files = [published_file(n) for n in names] or [f for f in catalogue() if f.usable]
    print_states({file.name: examine_file(file) for file in files}, as_json, asked=bool(names))


@weights.command("convert")
@click.argument("source", metavar="NAME|PATH")
@click.option("--model", required=True, metavar="NAME", help="The net that it holds.")
@click.option("--profile", help="If it does not tell itself: as for extract.")
@AS_JSON
def weights_convert(source: str, model: str, profile: str | None, as_json: bool) -> None:
    """Write weights as safetensors with their profile, origin and sha256; print the path.

    The file stands in the user's cache; a second call finds it there.

    \b
    Example:
      vggfeat weights convert imagenet-vgg-verydeep-16.mat --model vgg16
    """
    from vggfeat.weights.find import convert_weights

    print_path(convert_weights(source, model, profile), as_json)


@main.group()
def datasets() -> None:
    """Published data sets: which there are, get them, check them.

    \b
    Example:
      vggfeat datasets fetch caltech101
    """


@datasets.command("list")
@machine_options("data_root")
@AS_JSON
def datasets_list(as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """List the published data sets, and which of them are on this machine.

    \b
    Example:
      vggfeat datasets list
    """
    from vggfeat.data.catalogue import published
    from vggfeat.data.local import verify_dataset

    root = machine_of(options).data_root
    rows = [
        {
            "name": dataset.name,
            "bytes": dataset.download_bytes,
            "state": verify_dataset(dataset.name, root).state.value,
            "holds": dataset.holds,
            "licence": dataset.licence,
            "note": dataset.note,
        }
        for dataset in published()
    ]
    print_rows(rows, as_json)


@datasets.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@machine_options("data_root")
@AS_JSON
def datasets_fetch(names: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Download, unpack and check data sets; print where they are. Goes on where it was cut.

    \b
    Example:
      vggfeat datasets fetch voc2007
    """
    from vggfeat.data.catalogue import published_dataset
    from vggfeat.data.local import fetch_dataset

    root, watch = machine_of(options).data_root, terminal_watch()
    there = []
    for dataset in [published_dataset(name) for name in names]:
        _log.info("%s", dataset.summary)
        path = str(fetch_dataset(dataset.name, root, watch))
        there.append({"name": dataset.name, "path": path})
        if not as_json:
            click.echo(path)
    if as_json:
        print_rows(there, as_json)


@datasets.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@machine_options("data_root")
@AS_JSON
def datasets_verify(names: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Count lists and images, one line each; exit 1 if one is damaged or not whole.

    \b
    Example:
      vggfeat datasets verify voc2007
    """
    from vggfeat.data.catalogue import published
    from vggfeat.data.local import verify_dataset

    root, watch = machine_of(options).data_root, terminal_watch()
    wanted = names or [dataset.name for dataset in published()]
    found = {name: verify_dataset(name, root, watch) for name in wanted}
    print_states(found, as_json, asked=bool(names))
