"""How cost grows: with threads (measured here), and with what the other benchmarks have measured.

    python -m benchmarks.growth --model vgg16 --q 384

Every file of results/benchmarks may hold "series", a list of {"title", "x_label", "y_label", "x":
[...], "y": {name: [...]}} and, if the growth to expect is not linear, "slope"; each becomes a plot
with logarithmic axes beside its file, with that slope as a dotted line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.common import RESULTS, Worker, cores, in_turn, median, tell, unheld, write
from benchmarks.forward import MODELS


def measure_threads(model: str, q: int, engines: Sequence[str], repeat: int) -> dict[str, Any]:
    """Measure engines with every number of threads up to that of the cores, in turn.

    Args:
        model: A name of `MODELS`.
        q: Shorter side, pixels.
        engines: Names of `forward.ENGINES`.
        repeat: Number of rounds.

    Returns:
        A series.
    """
    counts = sorted({2**k for k in range(cores().bit_length())} | {cores()})
    counts = [count for count in counts if count <= cores()]
    found: dict[str, list[float]] = {}
    for name in engines:
        command = ["-m", "benchmarks.forward", "--model", model, "--serve", name]
        with ExitStack() as opened:
            workers = {
                str(n): opened.enter_context(Worker(command, {"OMP_NUM_THREADS": str(n)}))
                for n in counts
            }
            answers = in_turn(workers, {"q": q, "batches": []}, repeat)
        if all(answers.get(str(n)) for n in counts):
            found[name] = [median([a["seconds"] for a in answers[str(n)]]) for n in counts]
            tell(f"{name}: {dict(zip(counts, found[name], strict=True))}")
    return {
        "title": f"{model}: threads, Q = {q}",
        "x_label": "threads",
        "y_label": "seconds for one image and its mirror",
        "x": counts,
        "y": found,
        "slope": -1,
    }


def plot_all(folder: Path = RESULTS) -> list[Path]:
    """Plot every series of every file in a folder, and return the paths of the plots."""
    paths = []
    for source in sorted(folder.glob("*.json")):
        for series in json.loads(source.read_text("utf-8")).get("series", []):
            if series["y"] and len(series["x"]) > 1:
                paths.append(plot(series, folder / plot_name(source.stem, series["title"])))
    return paths


def plot_name(stem: str, title: str) -> str:
    """Return the file of a series.

    >>> plot_name("svm", "VOC 2007: time, C = 1")
    'svm-voc-2007-time-c-1.svg'
    """
    return f"{stem}-{'-'.join(re.findall(r'[a-z0-9]+', title.lower()))}.svg"


def plot(series: Mapping[str, Any], path: Path) -> Path:
    """Plot one series with logarithmic axes, and its expected slope.

    Args:
        series: As the module says.
        path: An SVG file.
    """
    # text as text and fixed ids: files stay small, and the same figures give the same bytes
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vggfeat"}):
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.subplots()
        x = series["x"]
        for name, y in series["y"].items():
            axes.plot(x, y, marker="o", markersize=3, linewidth=1, label=name)
        slope = series.get("slope", 1)
        start = next(iter(series["y"].values()))[0]
        expected = [start * (value / x[0]) ** slope for value in x]
        axes.plot(x, expected, ":", color="gray", linewidth=1, label=f"slope {slope}")
        axes.set(xscale="log", yscale="log", title=series["title"])
        axes.set(xlabel=series["x_label"], ylabel=series["y_label"])
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(fontsize="small")
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def main() -> None:
    """Measure, write results/benchmarks/growth.json, and plot whatever has been measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16", choices=MODELS)
    parser.add_argument("--q", type=int, default=384)
    parser.add_argument("--engines", default="naive,vggfeat float32,vggfeat bfloat16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plot-only", action="store_true", help="Of what is there.")
    options = parser.parse_args()
    if not options.plot_only:
        engines = options.engines.split(",")
        series = measure_threads(options.model, options.q, engines, options.repeat)
        write("growth", {"series": [series]})
    for path in plot_all():
        print(path)


if __name__ == "__main__":
    unheld()
    main()
