"""The command line: options → one call → print. Results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click

from vggfeat.cli.command import Group
from vggfeat.cli.group import main
from vggfeat.cli.options import (
    AS_JSON,
    MACHINE,
    machine_of,
    machine_options,
    recipe_of,
    recipe_options,
    recipe_values,
    result_named,
)
from vggfeat.cli.progress import terminal_watch
from vggfeat.cli.show import print_estimates, print_path, print_result, print_rows
from vggfeat.errors import Interrupted, VggfeatError

_log = logging.getLogger(__name__)


@main.command()
@recipe_options
@machine_options()
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and do nothing.")
@AS_JSON
def extract(dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Fill, or resume, the store of descriptors; print its path.

    \b
    Example:
      vggfeat extract --model vgg16 --dataset folder:photos --weights random:0
    """
    from vggfeat.extraction.workers import extract as fill_stores

    recipe, machine = recipe_of(recipe_values(options)), machine_of(options)
    if dry_run:
        print_estimates(recipe, machine, as_json)
        return
    paths = [str(path) for path in fill_stores(recipe, machine, terminal_watch())]
    click.echo(json.dumps(paths) if as_json else "\n".join(paths))


@main.command()
@recipe_options
@machine_options()
@click.option(
    "--store",
    "stores",
    type=Path,
    multiple=True,
    help="Use this store; the images need not be there. Once for each model and tap.",
)
@AS_JSON
def svm(stores: tuple[Path, ...], as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Train and evaluate the SVMs on stored descriptors.

    \b
    Example:
      vggfeat svm --model vgg16 --dataset voc2007
    """
    from vggfeat.transfer import run as experiment

    values = recipe_values(options)
    if stores:
        from vggfeat.transfer.given import values_from_stores

        values = values_from_stores(stores, values)
    recipe, machine = recipe_of(values), machine_of(options)
    evaluation = experiment.evaluate(recipe, machine, terminal_watch(), stores)
    print_result(experiment.write(evaluation, machine), as_json)


@main.command()
@click.argument("recipes", nargs=-1, required=True, type=Path, metavar="RECIPE.toml...")
@recipe_options
@machine_options()
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and do nothing.")
@AS_JSON
def run(recipes: tuple[Path, ...], dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Recipe)
    """Extract, train, evaluate and report, for each recipe; options win over its fields.

    Of several recipes, one that cannot run is told, and the others go on.

    \b
    Example:
      vggfeat run pipelines/voc2007-vgg16.toml
    """
    from vggfeat.recipe import Recipe
    from vggfeat.transfer import run as experiment

    machine, watch = machine_of(options), terminal_watch()
    loaded = [Recipe.from_toml(path, recipe_values(options)) for path in recipes]
    failed = 0
    for source, recipe in zip(recipes, loaded, strict=True):
        try:
            if dry_run:
                print_estimates(recipe, machine, as_json)
                continue
            path, page = experiment.run(recipe, machine, watch)
            print_result(path, as_json)
            if as_json:
                _log.info("page: %s", page)
            else:
                click.echo(f"page: {page}")
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
@machine_options()
@AS_JSON
def report(name: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Write the HTML page of a result beside it; print its path.

    Pictures come from where the run has found its images, or from below --data-root.

    \b
    Example:
      vggfeat report voc2007-vgg16
    """
    from vggfeat.transfer import run as experiment

    machine = machine_of(options)
    print_path(experiment.write_report(result_named(name, machine), machine), as_json)


@main.command()
@click.argument("images", nargs=-1, required=True, type=Path, metavar="IMAGE|FOLDER...")
@click.option("--svm", "name", required=True, metavar="RESULT", help="results/NAME.json, or NAME.")
@click.option(
    "--split", type=int, default=1, show_default=True, help="Whose classifier, of several."
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
    help="csv and json have the scores and probabilities of all classes.",
)
@AS_JSON
@machine_options(*(name for name in MACHINE if name != "data_root"))
def predict(
    images: tuple[Path, ...],
    name: str,
    split: int,
    weights: tuple[str, ...],
    form: str,
    as_json: bool,
    **options: Any,  # noqa: ANN401  (checked by Machine)
) -> None:
    """Score new images, and those in folders, with the classifier of a result.

    Nets, scales and everything else are those of the training run. Probabilities are Platt's
    sigmoids of the scores, fitted to its validation images; where each image has one class they
    sum to 1. --json is short for --format json.

    \b
    Example:
      vggfeat predict --svm results/photos.json new.jpg holiday/
      vggfeat predict --svm photos --format csv holiday/ > scores.csv
    """
    from vggfeat.data.folder import named_images
    from vggfeat.transfer import predict as predicting

    machine = machine_of(options)
    trained = predicting.open_trained(result_named(name, machine), split, weights)
    found = predicting.predict(trained, named_images(images), machine, terminal_watch())
    if form == "csv" and not as_json:
        click.echo(found.csv(), nl=False)
    elif form == "json" or as_json:
        print_rows(found.records(), as_json=True)
    else:
        print_rows(found.table(), as_json=False)


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
@machine_options("results")
@AS_JSON
def tables(
    which: str,
    form: str,
    output: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401  (checked by Machine)
) -> None:
    """Set our results beside the paper's tables, and ablations beside their base.

    \b
    Example:
      vggfeat tables
      vggfeat tables 11 --format latex
      vggfeat tables --output results/TABLES.md
    """
    from vggfeat.files.publish import make_folder, publish_bytes
    from vggfeat.report.tables import build_tables, read_results
    from vggfeat.report.typeset import FORMATS, records

    built = build_tables(read_results(machine_of(options).results), which)
    if as_json and output is None:
        print_rows(records(built), as_json)
        return
    text = FORMATS[form](built)
    if output is None:
        click.echo(text, nl=False)
        return
    make_folder(output.parent)
    publish_bytes(output, text.encode())
    print_path(output, as_json)


class _Submission(Group):
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
@machine_options()
@AS_JSON
def submission_write(name: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Write the archive of a result on voc2012 or voc2012-action beside it; print its path.

    It is checked first, and holds the scores of every test image (comp2) or person (comp10).

    \b
    Example:
      vggfeat submission write voc2012-vgg16
    """
    from vggfeat.transfer import submit

    machine = machine_of(options)
    print_path(submit.submit(result_named(name, machine), machine), as_json)


@submission.command("check")
@click.argument("archive", type=Path)
@machine_options("data_root")
@AS_JSON
def submission_check(archive: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Check an archive as the server would, one line for each finding; exit 1 if one is an error.

    It may be of any method. With the lists of VOC 2012's test set below --data-root every image
    and person is looked up.

    \b
    Example:
      vggfeat submission check results/voc2012-vgg16-comp2.tar.gz
    """
    from dataclasses import asdict

    from vggfeat.transfer import submit

    findings = submit.check_archive(archive, machine_of(options))
    sound = all(found.level != "error" for found in findings)
    if as_json:
        click.echo(json.dumps({"sound": sound, "findings": [asdict(one) for one in findings]}))
    else:
        for found in findings:
            click.echo(f"{found.level:8} {found.where}: {found.message}")
    if not sound:
        click.get_current_context().exit(1)


@main.command()
@machine_options()
@AS_JSON
def doctor(as_json: bool, **options: Any) -> None:  # noqa: ANN401  (checked by Machine)
    """Say what works here, what is missing, and what to type.

    \b
    Example:
      vggfeat doctor
    """
    from dataclasses import asdict

    from vggfeat.cli import doctor as surgery

    findings = list(surgery.examine(machine_of(options)))
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
@AS_JSON
def demo(folder: Path, workers: int | None, as_json: bool) -> None:
    """Run the whole main job on a small generated data set, offline.

    \b
    Example:
      vggfeat demo
    """
    from vggfeat.demo import run as show

    outcome = show.run(folder, terminal_watch(), workers)
    print_result(outcome.result_path, as_json)
    if as_json:
        _log.info("%s", outcome.comparison())
    else:
        click.echo(outcome.comparison())
