"""The command line: options → one call → print. Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import math
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from vggfeat import __version__
from vggfeat.errors import Interrupted, RecipeError, VggfeatError

if TYPE_CHECKING:
    from rich.console import Console

    from vggfeat.fetch import Examined
    from vggfeat.nets.architectures import Architecture
    from vggfeat.progress import TerminalWatch
    from vggfeat.recipe import Machine, Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])

_RECIPE_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--dataset",
        {"help": "voc2007, caltech101, … (`vggfeat datasets list`), or folder:, csv:, voc:PATH."},
    ),
    (
        "--model",
        {"multiple": True, "metavar": "NAME", "help": "vgg16, vgg19, …; twice is late fusion."},
    ),
    (
        "--weights",
        {
            "multiple": True,
            "metavar": "NAME|PATH",
            "help": "oxford, torchvision, random:SEED, PATH.",
        },
    ),
    (
        "--profile",
        {"help": "Of a file of your own: oxford, torchvision; oxford-bgr or -rgb if asked for."},
    ),
    ("--scales", {"metavar": "Q,Q,…", "help": "Shorter sides, pixels, for example 256,384,512."}),
    ("--mirror/--no-mirror", {"default": None, "help": "Average with the horizontal flip."}),
    ("--interpolation", {"help": "bilinear or bicubic."}),
    ("--resampler", {"help": "pillow, or torch on the net's device."}),
    ("--pooling", {"help": "Odd sizes in the pools: ceil or floor; by default as trained."}),
    ("--regions", {"metavar": "R,R", "help": "Of boxes: image, box, or image,box for both."}),
    ("--tap", {"help": "fc7, fc7-linear, fc6 or pool5."}),
    ("--precision", {"help": "float32, bfloat16; CPU: int8; GPU: tf32, float16."}),
    ("--aggregate", {"help": "Scales to one descriptor: average, stack or max."}),
    ("--normalise", {"help": "L2 after the scales are joined, or before as well."}),
    ("--loss", {"help": "hinge or squared_hinge."}),
    ("--grid", {"metavar": "C,C,…", "help": "Values of C; by default 2^-4 … 2^7, growing."}),
    ("--choose-c", {"help": "shared by all classes, or per-class."}),
    ("--difficult", {"help": "Difficult images in training: ignore, or negative."}),
    ("--measure", {"help": "What C is chosen by: voc2007, voc2010, mean_class_recall, …"}),
    ("--seed", {"type": int, "help": "Of the SVM and of a folder's parts."}),
    ("--limit", {"type": int, "metavar": "N", "help": "N images each of train, val and test."}),
    ("--name", {"help": "Of the result."}),
)
_MACHINE_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--data-root", {"type": Path, "help": "Where named data sets are."}),
    ("--cache", {"type": Path, "help": "Where stores are kept."}),
    ("--results", {"type": Path, "help": "Where results are written."}),
    ("--device", {"help": "auto, cpu, cuda or cuda:N; several: cuda:0,1."}),
    ("--workers", {"type": int, "help": "Threads that decode, processes that fit."}),
    ("--memory", {"metavar": "N[MB|GB]", "help": "That extract may use; half by default."}),
    ("--on-error", {"help": "An unreadable image: record it, or raise."}),
    (
        "--offline",
        {"is_flag": True, "default": None, "help": "Fetch nothing that is not on disk."},
    ),
    ("--verify-images", {"is_flag": True, "default": None, "help": "Hash every image again."}),
)
_RESULTS_OPTION = tuple(option for option in _MACHINE_OPTIONS if option[0] == "--results")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _options(*groups: tuple[tuple[str, dict[str, Any]], ...]) -> Callable[[_Command], _Command]:
    """Add options that all stand for fields; their defaults are the records' own."""

    def decorate(command: _Command) -> _Command:
        for flag, settings in reversed([option for group in groups for option in group]):
            name = flag.split("/")[0].removeprefix("--").replace("-", "_")
            envvar = f"VGGFEAT_{name.upper()}"
            option = click.option(
                flag, name, cls=_FieldOption, envvar=envvar, show_envvar=True, **settings
            )
            command = option(command)
        return command

    return decorate


class _FieldOption(click.Option):
    """An option for a field of a record, whose default stands there and is shown by `--help`."""

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's own record)
        from vggfeat.recipe import Machine, Recipe

        extra = super().get_help_extra(ctx)
        fields = {**Machine.model_fields, **Recipe.model_fields}
        field = fields["models" if self.name == "model" else str(self.name)]
        if not field.is_required() and field.default is not None and field.default is not False:
            several = isinstance(field.default, tuple)
            extra["default"] = ",".join(field.default) if several else str(field.default)
        return extra


class _Group(click.Group):
    """Turns our errors into one message and their exit code; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's signature)
        try:
            return super().invoke(ctx)
        except VggfeatError as error:
            _fail(ctx, error)
        except KeyboardInterrupt:  # a fitting process got the terminal's Ctrl-C before we did
            _fail(ctx, Interrupted(signal.SIGINT, "Run the same command again."))


def _fail(ctx: click.Context, error: VggfeatError) -> NoReturn:
    click.echo(f"vggfeat: {error}", err=True)
    ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vggfeat")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def main(quiet: bool) -> None:
    """Dense multi-scale VGG descriptors, and linear SVMs on top of them.

    \b
    Example:
      vggfeat extract --model vgg16 --dataset voc2007
      vggfeat svm --model vgg16 --dataset voc2007
    """
    root = logging.getLogger("vggfeat")
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    if not root.handlers:
        root.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Writes lines to the current stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        _console().print(
            self.format(record), markup=False, highlight=False, soft_wrap=True, style=None
        )


@main.command()
@_options(_RECIPE_OPTIONS, _MACHINE_OPTIONS)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and do nothing.")
@_AS_JSON
def extract(dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Fill, or resume, the store of descriptors; print its path.

    \b
    Example:
      vggfeat extract --model vgg16 --dataset folder:photos --weights random:0
    """
    from vggfeat import experiment

    recipe, machine = _recipe(options), _machine(options)
    if dry_run:
        _print_estimates(recipe, machine, as_json)
        return
    paths = [str(path) for path in experiment.extract(recipe, machine, _watch())]
    click.echo(json.dumps(paths) if as_json else "\n".join(paths))


@main.command()
@_options(_RECIPE_OPTIONS, _MACHINE_OPTIONS)
@click.option(
    "--store",
    "stores",
    type=Path,
    multiple=True,
    help="Use this store; the images need not be there. Once for each model.",
)
@_AS_JSON
def svm(stores: tuple[Path, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Train and evaluate the SVMs on stored descriptors.

    \b
    Example:
      vggfeat svm --model vgg16 --dataset voc2007
    """
    from vggfeat import experiment

    values = _given(options, _RECIPE_OPTIONS)
    if stores:
        from vggfeat.given import values_from_stores

        values = values_from_stores(stores, values)
    recipe, machine = _build(values), _machine(options)
    evaluation = experiment.evaluate(recipe, machine, _watch(), stores)
    _print_result(experiment.write(evaluation, machine), as_json)


@main.command()
@click.argument("recipes", nargs=-1, required=True, type=Path, metavar="RECIPE.toml...")
@_options(_RECIPE_OPTIONS, _MACHINE_OPTIONS)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and do nothing.")
@_AS_JSON
def run(recipes: tuple[Path, ...], dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Extract, train, evaluate and report, for each recipe; options win over its fields.

    Of several recipes, one that cannot run is told, and the others go on.

    \b
    Example:
      vggfeat run pipelines/voc2007-vgg16.toml
    """
    from vggfeat import experiment
    from vggfeat.recipe import Recipe

    machine, watch = _machine(options), _watch()
    loaded = [Recipe.from_toml(path, _given(options, _RECIPE_OPTIONS)) for path in recipes]
    failed = 0
    for source, recipe in zip(recipes, loaded, strict=True):
        try:
            if dry_run:
                _print_estimates(recipe, machine, as_json)
                continue
            path, page = experiment.run(recipe, machine, watch)
            _print_result(path, as_json)
            click.echo(f"page: {page}", err=as_json)
        except Interrupted:
            raise
        except VggfeatError as error:
            if len(loaded) == 1:
                raise
            click.echo(f"vggfeat: '{source}': {error}", err=True)
            failed += 1
    if failed:
        click.echo(f"vggfeat: {failed} of {len(loaded)} recipes failed.", err=True)
        click.get_current_context().exit(1)


@main.command()
@click.argument("name")
@_options(_MACHINE_OPTIONS)
def report(name: str, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Write the HTML page of a result beside it; print its path.

    \b
    Example:
      vggfeat report voc2007-vgg16
    """
    from vggfeat import experiment

    machine = _machine(options)
    click.echo(experiment.write_report(_result_path(name, machine), machine))


@main.command()
@click.argument("images", nargs=-1, required=True, type=Path, metavar="IMAGE|FOLDER...")
@click.option("--svm", "name", required=True, metavar="RESULT", help="results/NAME.json, or NAME.")
@click.option(
    "--split", type=int, default=1, show_default=True, help="Whose classifier, of several splits."
)
@click.option(
    "--weights", multiple=True, metavar="PATH", help="Where the weight file is now; once per net."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json have the scores of all classes.",
)
@_options(_MACHINE_OPTIONS[1:])
def predict(
    images: tuple[Path, ...],
    name: str,
    split: int,
    weights: tuple[str, ...],
    form: str,
    **options: Any,  # noqa: ANN401  (checked by Machine)
) -> None:
    """Score new images, and those in folders, with the classifier of a result.

    Nets, scales and everything else are those of the training run.

    \b
    Example:
      vggfeat predict --svm results/photos.json new.jpg holiday/
      vggfeat predict --svm photos --format csv holiday/ > scores.csv
    """
    from vggfeat import predicting
    from vggfeat.data.folder import named_images

    machine = _machine(options)
    trained = predicting.open_trained(_result_path(name, machine), split, weights)
    found = predicting.predict(trained, named_images(images), machine, _watch())
    if form == "csv":
        click.echo(found.csv(), nl=False)
    else:
        _print_rows(found.records() if form == "json" else found.table(), form == "json")


@main.command()
@click.argument(
    "which",
    type=click.Choice(["11", "12", "ablations", "all"]),
    default="all",
    metavar="[11|12|ablations|all]",  # Click's own has one pair of brackets or two, by version
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "latex", "csv", "html"]),
    default="markdown",
    show_default=True,
)
@click.option("--output", type=Path, help="Write them to this file, and print its path.")
@_options(_RESULTS_OPTION)
def tables(which: str, form: str, output: Path | None, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Set our results beside the paper's tables, and ablations beside their base.

    \b
    Example:
      vggfeat tables
      vggfeat tables 11 --format latex
      vggfeat tables --output results/TABLES.md
    """
    from vggfeat.publish import make_folder, publish_bytes
    from vggfeat.report.tables import build_tables, read_results
    from vggfeat.report.typeset import FORMATS

    text = FORMATS[form](build_tables(read_results(_machine(options).results), which))
    if output is None:
        click.echo(text, nl=False)
        return
    make_folder(output.parent)
    publish_bytes(output, text.encode())
    click.echo(output)


class _Submission(click.Group):
    """Takes a name in place of a command for one to write."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, ["write", *args] if args and args[0] not in known else args)


@main.group(cls=_Submission)
def submission() -> None:
    """Archives for VOC 2012's evaluation server: write one, check one.

    `vggfeat submission NAME` is short for `vggfeat submission write NAME`.

    \b
    Example:
      vggfeat submission voc2012-vgg16
    """


@submission.command("write")
@click.argument("name")
@_options(_MACHINE_OPTIONS)
def submission_write(name: str, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Write the archive of a result on voc2012 or voc2012-action beside it; print its path.

    It is checked first, and holds the scores of every test image (comp2) or person (comp10).

    \b
    Example:
      vggfeat submission write voc2012-vgg16
    """
    from vggfeat import submit

    machine = _machine(options)
    click.echo(submit.submit(_result_path(name, machine), machine))


@submission.command("check")
@click.argument("archive", type=Path)
@_options(_MACHINE_OPTIONS[:1])
@_AS_JSON
def submission_check(archive: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Check an archive as the server would, one line for each finding; exit 1 if one is an error.

    It may be of any method. With the lists of VOC 2012's test set below --data-root every image
    and person is looked up.

    \b
    Example:
      vggfeat submission check results/voc2012-vgg16-comp2.tar.gz
    """
    from dataclasses import asdict

    from vggfeat import submit

    findings = submit.check_archive(archive, _machine(options))
    sound = all(found.level != "error" for found in findings)
    if as_json:
        click.echo(json.dumps({"sound": sound, "findings": [asdict(one) for one in findings]}))
    else:
        for found in findings:
            click.echo(f"{found.level:8} {found.where}: {found.message}")
    if not sound:
        click.get_current_context().exit(1)


@main.command()
@click.argument("name", required=False)
@click.option("--size", default="224x224", metavar="HxW", show_default=True, help="Of the image.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the activations.",
)
@_AS_JSON
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
        _print_rows(_layer_rows(net, _size(size), 4 if precision == "float32" else 2), as_json)
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
    _print_rows(rows, as_json)


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
@_AS_JSON
def store_info(path: Path, image_id: str | None, as_json: bool) -> None:
    """Say what a store (its folder or its file) holds, or what it holds of one image.

    \b
    Example:
      vggfeat store info features/voc2007-vgg16-1a2b3c4d 000005
    """
    from vggfeat.store.store import DescriptorStore

    with DescriptorStore.open(path) as opened:
        facts = opened.summary() if image_id is None else opened.image_summary(image_id)
    _print_facts(facts, as_json)


@store.command("verify")
@click.argument("path", type=Path)
@_AS_JSON
def store_verify(path: Path, as_json: bool) -> None:
    """Hash a store and read it through; exit 1 if it is damaged.

    \b
    Example:
      vggfeat store verify features/voc2007-vgg16-1a2b3c4d
    """
    from dataclasses import asdict

    from vggfeat.errors import DamagedStoreError
    from vggfeat.store.store import DescriptorStore

    try:
        with DescriptorStore.open(path) as opened:
            found = opened.verify()
        if found.faults:
            raise DamagedStoreError(f"'{path}' is damaged: {' '.join(found.faults)}")
    except DamagedStoreError as error:
        if as_json:
            _print_facts({"sound": False, "fault": str(error)}, as_json)
        raise
    _print_facts({"sound": True, **asdict(found)}, as_json)


@main.group()
def weights() -> None:
    """Published weight files: which there are, get them, check them, convert them.

    \b
    Example:
      vggfeat weights fetch oxford --model vgg16
    """


@weights.command("list")
@_AS_JSON
def weights_list(as_json: bool) -> None:
    """List the published files, and which of them are on this machine.

    \b
    Example:
      vggfeat weights list
    """
    from vggfeat.nets.catalogue import catalogue
    from vggfeat.nets.shelf import place_of

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
    _print_rows(rows, as_json)


@weights.command("fetch")
@click.argument("name")
@click.option("--model", metavar="NAME", help="The net, if NAME is oxford or torchvision.")
def weights_fetch(name: str, model: str | None) -> None:
    """Download one published file, checked, and print its path; goes on where it was cut.

    NAME is that of a file, or oxford or torchvision for the preferred file of a net.

    \b
    Example:
      vggfeat weights fetch oxford --model vgg16
    """
    from vggfeat.nets.shelf import fetch_file, published_file

    file, watch = published_file(name, model), _watch()
    click.echo(file.summary, err=True)
    click.echo(fetch_file(file, watch))


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_AS_JSON
def weights_verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check files by size and digest, one line each; exit 1 if one is damaged or not whole.

    \b
    Example:
      vggfeat weights verify
      vggfeat weights verify vgg16-00b39a1b.pth
    """
    from vggfeat.nets.catalogue import catalogue
    from vggfeat.nets.shelf import examine_file, published_file

    files = [published_file(n) for n in names] or [f for f in catalogue() if f.usable]
    _print_states({file.name: examine_file(file) for file in files}, as_json, asked=bool(names))


@weights.command("convert")
@click.argument("source", metavar="NAME|PATH")
@click.option("--model", required=True, metavar="NAME", help="The net that it holds.")
@click.option("--profile", help="If it does not tell itself: as for extract.")
def weights_convert(source: str, model: str, profile: str | None) -> None:
    """Write weights as safetensors with their profile, origin and sha256; print the path.

    The file stands in the user's cache; a second call finds it there.

    \b
    Example:
      vggfeat weights convert imagenet-vgg-verydeep-16.mat --model vgg16
    """
    from vggfeat.nets.weights import convert_weights

    click.echo(convert_weights(source, model, profile))


@main.group()
def datasets() -> None:
    """Published data sets: which there are, get them, check them.

    \b
    Example:
      vggfeat datasets fetch caltech101
    """


@datasets.command("list")
@_options(_MACHINE_OPTIONS[:1])
@_AS_JSON
def datasets_list(as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """List the published data sets, and which of them are on this machine.

    \b
    Example:
      vggfeat datasets list
    """
    from vggfeat.data.published import published, verify_dataset

    root = _machine(options).data_root
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
    _print_rows(rows, as_json)


@datasets.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_options(_MACHINE_OPTIONS[:1])
def datasets_fetch(names: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Download, unpack and check data sets; print where they are. Goes on where it was cut.

    \b
    Example:
      vggfeat datasets fetch voc2007
    """
    from vggfeat.data.published import fetch_dataset, published_dataset

    root, watch = _machine(options).data_root, _watch()
    for dataset in [published_dataset(name) for name in names]:
        click.echo(dataset.summary, err=True)
        click.echo(fetch_dataset(dataset.name, root, watch))


@datasets.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_options(_MACHINE_OPTIONS[:1])
@_AS_JSON
def datasets_verify(names: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Count lists and images, one line each; exit 1 if one is damaged or not whole.

    \b
    Example:
      vggfeat datasets verify voc2007
    """
    from vggfeat.data.published import published, verify_dataset

    root, watch = _machine(options).data_root, _watch()
    wanted = names or [dataset.name for dataset in published()]
    found = {name: verify_dataset(name, root, watch) for name in wanted}
    _print_states(found, as_json, asked=bool(names))


@main.command()
@_options(_MACHINE_OPTIONS)
@_AS_JSON
def doctor(as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Say what works here, what is missing, and what to type.

    \b
    Example:
      vggfeat doctor
    """
    from dataclasses import asdict

    from vggfeat import doctor as surgery

    findings = list(surgery.examine(_machine(options)))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
        return
    for found in findings:
        click.echo(f"{found.state:8} {found.what:18} {found.detail}")
        if found.remedy:
            click.echo(f"{'':27} → {found.remedy}")


@main.command()
@click.option(
    "--folder", type=Path, default=Path("demo"), show_default=True, help="Where everything goes."
)
@click.option("--workers", type=int, help="Threads that decode.")
@_AS_JSON
def demo(folder: Path, workers: int | None, as_json: bool) -> None:
    """Run the whole main job on a small generated data set, offline.

    \b
    Example:
      vggfeat demo
    """
    from vggfeat import demo as show

    outcome = show.run(folder, _watch(), workers)
    _print_result(outcome.result_path, as_json)
    click.echo(outcome.comparison(), err=as_json)


def _given(
    options: dict[str, Any], group: tuple[tuple[str, dict[str, Any]], ...]
) -> dict[str, Any]:
    """Return the fields of a record that were given as options, as the record wants them."""
    names = {flag.split("/")[0].removeprefix("--").replace("-", "_") for flag, _ in group}
    values = {k: v for k, v in options.items() if k in names and v is not None and v != ()}
    for name, kind in (("scales", int), ("grid", float)):
        if name in values:
            values[name] = _numbers(values[name], kind, name)
    if "regions" in values:
        values["regions"] = tuple(values["regions"].split(","))
    if "model" in values:
        values["models"] = values.pop("model")
    return values


def _numbers(text: str, kind: type[int] | type[float], name: str) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise RecipeError(f"--{name} {text!r}.", f"Expected {what}, separated by commas.") from None


def _recipe(options: dict[str, Any]) -> Recipe:
    return _build(_given(options, _RECIPE_OPTIONS))


def _build(values: dict[str, Any]) -> Recipe:
    from vggfeat.recipe import Recipe

    return Recipe.build(values, "the command line")


def _machine(options: dict[str, Any]) -> Machine:
    from vggfeat.recipe import Machine

    return Machine.build(_given(options, _MACHINE_OPTIONS))


def _result_path(name: str, machine: Machine) -> Path:
    return Path(name) if name.endswith(".json") else machine.results / f"{name}.json"


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stderr)


def _watch() -> TerminalWatch:
    from vggfeat.progress import TerminalWatch

    watch = TerminalWatch(_console())
    watch.heed_signals()
    return watch


def _print_estimates(recipe: Recipe, machine: Machine, as_json: bool) -> None:
    from dataclasses import asdict

    from vggfeat.costs import foresee

    watch = _watch()
    found = list(foresee(recipe, machine, watch))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        for what in one.fetches:
            click.echo(f"to fetch first: {what}")
        name = one.store or f"{one.model}, {one.region}"
        click.echo(
            f"{name}: {one.rows} images, {one.done} of them done, {one.copied} in other stores, "
            f"{one.gflop:,.0f} GFLOP, about {one.seconds:,.0f} s, "
            f"{one.disk_bytes / 1e6:,.1f} MB of {one.free_bytes / 1e6:,.0f} MB free"
            f"{', complete' if one.complete else ''}"
        )


def _print_result(path: Path, as_json: bool) -> None:
    from vggfeat.report.result import Result

    result = Result.read(path)
    if as_json:
        click.echo(result.model_dump_json())
        return
    from vggfeat.report.text import result_text

    click.echo(result_text(result))
    click.echo(f"written: {path}")


def _print_states(found: dict[str, Examined], as_json: bool, *, asked: bool) -> None:
    """Print one line each; exit 1 if one is damaged or partial, or was asked for and is absent."""
    from vggfeat.fetch import State

    if as_json:
        rows = [
            {"name": k, "state": one.state.value, "detail": one.detail} for k, one in found.items()
        ]
        click.echo(json.dumps(rows))
    else:
        for name, one in found.items():
            click.echo(f"{one.state.value:8} {name}: {one.detail}")
    bad = {State.DAMAGED, State.PARTIAL} | ({State.ABSENT} if asked else set())
    if any(one.state in bad for one in found.values()):
        click.get_current_context().exit(1)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:18} {value if isinstance(value, str) else json.dumps(value)}")


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    names = list(rows[0])
    numbers = {n for n in names if any(isinstance(row[n], int | float) for row in rows)}
    widths = [max(len(name), *(len(_text(row[name])) for row in rows)) for name in names]
    for line in (dict(zip(names, names, strict=True)), *rows):
        cells = (
            f"{_text(line[n]):>{w}}" if n in numbers else f"{_text(line[n]):{w}}"
            for n, w in zip(names, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _text(value: Any) -> str:  # noqa: ANN401  (whatever stands in a table)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
