"""Puts the figures of results/benchmarks into docs/performance.md and docs/footguns.md.

    python -m benchmarks.document

Whatever stands between `<!-- generated: NAME -->` and `<!-- end -->` is replaced by the table or
the number of that name; the rest of a page is written by hand. What has not been measured is left
out. Running it twice changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT
from benchmarks.forward import ALL, BASELINE, SCALES
from benchmarks.growth import plot_name

PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "footguns.md")
NOTHING = "not measured yet"

Figures = Mapping[str, Mapping[str, Any]]
"""The files of results/benchmarks by their stems."""

_MARKED = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->)(?P<old>.*?)(<!-- end -->)", re.DOTALL)

# Where, what to ask for, the engine of forward.json, the recipe's precision. A row appears once it
# has been measured.
_CPU_CHOICES = (
    ("CPU", "nothing: float32 is the default", "vggfeat float32", "float32"),
    (
        "CPU with bfloat16 (AVX512-BF16, AMX)",
        "`--precision bfloat16`",
        "vggfeat bfloat16",
        "bfloat16",
    ),
    ("CPU with int8 (VNNI, AMX)", "`--precision int8`", "vggfeat int8", "int8"),
)
_GPU_CHOICES = (
    ("nothing: float32 is the default", "float32"),
    ("`--precision tf32`", "tf32"),
    ("`--precision bfloat16`", "bfloat16"),
    ("`--precision float16`", "float16"),
    ("`--precision int8`", "int8"),
)


def load(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Read every file of figures in a folder."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }


def regenerate(text: str, figures: Figures) -> str:
    """Return a page with everything between its markers made anew.

    Args:
        text: The page.
        figures: As from `load`.

    Raises:
        KeyError: If a marker names nothing.
    """

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name in TABLES:
            content = f"\n{TABLES[name](figures) or NOTHING.capitalize() + '.'}\n"
        else:
            content = NUMBERS[name](figures) or NOTHING
        return f"{match[1]}{content}{match[4]}"

    return _MARKED.sub(made, text)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, empty if there are no rows.

    >>> print(markdown(["a", "b"], [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *lines]) if lines else ""


def choices(figures: Figures) -> str:
    """Return which option to choose, and what it costs and gives."""
    rows = [row for choice in _CPU_CHOICES if (row := _cpu_choice(figures, choice))]
    for option, precision in _GPU_CHOICES:
        for found in figures.get("gpu", {}).get("end_to_end", []):
            if found["precision"] == precision:
                each = 1 / found["images_per_second"]
                rows.append(
                    (_gpu(figures), option, "", _duration(1000 * each), *_drift(figures, precision))
                )
    columns = ["where", "option", "times as fast as plain PyTorch", "1,000 images"]
    return markdown([*columns, "1 − cos, at most", "change of a score, points (95 %)"], rows)


def _cpu_choice(figures: Figures, choice: Sequence[str]) -> tuple[str, ...] | None:
    where, option, engine, precision = choice
    row = _sum_of(figures, engine)
    if row is None:
        return None
    speed = f"{row['ratio']['median']:.1f}"
    return where, option, speed, _duration(1000 * row["seconds"]), *_drift(figures, precision)


def _sum_of(figures: Figures, engine: str) -> Mapping[str, Any] | None:
    """Return an engine's row for all five scales of VGG-16."""
    forward = figures.get("forward", {})
    if (forward.get("model"), forward.get("scales")) != ("vgg16", list(SCALES)):
        return None
    rows = (row for row in forward["rows"] if row["engine"] == engine and row["scale"] == ALL)
    return next(rows, None)


def _drift(figures: Figures, precision: str) -> tuple[str, str]:
    rows = [r for r in figures.get("drift", {}).get("rows", []) if r["precision"] == precision]
    if not rows:
        return "", ""
    if precision == "float32":
        return "the reference", "the reference"
    surest = max(rows, key=lambda row: int(row["test_images"]))
    return _small(max(row["one_minus_cos_max"] for row in rows)), _change(surest)


def _change(row: Mapping[str, Any]) -> str:
    """Return a change of score with its interval, points."""
    between = row["score_change_interval"]
    ends = f" ({between[0]:+.2f} to {between[1]:+.2f})" if between else ""
    return f"{row['score_change']:+.2f}{ends}"


def ceilings(figures: Figures) -> str:
    """Return the table of the machine's ceilings."""
    found = figures.get("ceiling", {})
    rows = [
        (r["precision"], str(r["threads"]), f"{r['gflops']:,.0f}", f"{r['bandwidth_gb_s']:.0f}")
        for r in found.get("rows", [])
    ]
    table = markdown(["precision", "threads", "GFLOP/s", "memory, GB/s"], rows)
    return _with_source(found, table)


def forward_table(figures: Figures) -> str:
    """Return the table of the forward pass, by scale and engine."""
    found = figures.get("forward", {})
    rows = [_forward_row(row) for row in found.get("rows", [])]
    columns = ["Q", "engine", "s", "GFLOP/s", "of the ceiling", f"times as fast as {BASELINE}"]
    table = markdown([*columns, "(range)", "error", "1 − cos", "peak memory, MB"], rows)
    return _with_source(found, table)


def gpu_forward(figures: Figures) -> str:
    """Return the table of the forward pass on a GPU: for each scale and engine the best batch."""
    found = figures.get("gpu", {})
    best: dict[tuple[int, str], Mapping[str, Any]] = {}
    for row in found.get("rows", []):
        key = row["scale"], row["engine"]
        if key not in best or row["seconds"] < best[key]["seconds"]:
            best[key] = row
    rows = [
        (
            *(str(row["scale"]), row["engine"], str(row["batch"])),
            *(_time(row["seconds"]), f"{row['gflops']:,.0f}", _percent(row["share_of_ceiling"])),
            *(_small(row["error"]), _small(row["one_minus_cos"])),
        )
        for _, row in sorted(best.items(), key=lambda pair: pair[0][0])
    ]
    columns = ["Q", "engine", "best batch", "s per image", "GFLOP/s", "of the ceiling"]
    return _with_source(found, markdown([*columns, "error", "1 − cos"], rows))


def gpu_whole(figures: Figures) -> str:
    """Return the table of whole extractions on a GPU."""
    found = figures.get("gpu", {})
    rows = [
        (
            *(row["precision"], str(row["images"]), f"{row['images_per_second']:.1f}"),
            *(f"{row['gflops']:,.0f}", _percent(row["share_of_ceiling"]), _percent(row["lost"])),
        )
        for row in found.get("end_to_end", [])
    ]
    columns = [
        "precision",
        "images",
        "images/s",
        "GFLOP/s",
        "of the ceiling",
        "lost beside the net",
    ]
    return _with_source(found, markdown(columns, rows))


def gpu_profile(figures: Figures) -> str:
    """Return where the time goes on a GPU."""
    found = figures.get("gpu", {})
    rows = [
        (
            *(row["engine"], row["group"], f"{row['milliseconds']:.2f}"),
            *(_percent(row["share"]), str(row["calls"])),
        )
        for row in found.get("profile", [])
    ]
    return _with_source(found, markdown(["engine", "kernels", "ms", "share", "calls"], rows))


def extraction(figures: Figures) -> str:
    """Return what `extract` loses beside its net."""
    found = figures.get("extract", {})
    rows = [
        (
            *(row["title"], ", ".join(map(str, row["scales"])), str(row["images"])),
            *(f"{row['images_per_second']:.2f}", f"{row['images'] / row['bare_seconds']:.2f}"),
            *(_percent(row["lost"]), f"{row['start_seconds']:.1f}"),
        )
        for row in found.get("rows", [])
    ]
    columns = ["images and net", "Q", "images", "images/s", "net alone, images/s", "lost"]
    return _with_source(found, markdown([*columns, "start, s"], rows))


def memory(figures: Figures) -> str:
    """Return the peak of memory by the number of images."""
    found = figures.get("extract", {})
    rows = [
        (f"{row['images']:,}", f"{row['seconds']:.0f}", f"{row['rss_mb']:,}")
        for row in found.get("memory", [])
    ]
    return _with_source(found, markdown(["images", "s", "peak memory, MB"], rows))


def drift(figures: Figures) -> str:
    """Return the drift ledger."""
    found = figures.get("drift", {})
    rows = [
        (
            *(row["data"], _net(row), f"{row['images']:,}", f"{row['test_images']:,}"),
            *(row["precision"], _small(row["one_minus_cos_median"])),
            *(_small(row["one_minus_cos_max"]), _small(row["error_max"])),
            *(f"{row['score']:.2f}", _change(row)),
        )
        for row in found.get("rows", [])
    ]
    columns = ["recipe", "net", "images", "of them tested", "precision", "1 − cos, median"]
    columns += ["largest", "largest error", "score, %", "change, points (95 %)"]
    return _with_source(found, markdown(columns, rows))


def _net(row: Mapping[str, Any]) -> str:
    bits = row["weights_rounded_to_bits"]
    rounded = f", rounded to {bits} bits" if bits else ""
    return f"{row['model']}, {row['weights']}{rounded}"


def svm(figures: Figures) -> str:
    """Return the table of the search for C, and of one large problem."""
    found = figures.get("svm", {})
    rows = []
    for loss in ("squared_hinge", "hinge"):
        own = found.get(loss, {})
        times = own.get("seconds, ours with its Gram matrix", {})
        for solver, seconds in times.items():
            fits = own["fits"][solver]
            ratio = own["speed-up per fit"].get(solver)
            rows.append(
                (
                    *(loss, "vggfeat" if solver == "ours" else solver, str(fits)),
                    *(_time(seconds), _time(1000 * seconds / fits), f"{ratio}" if ratio else ""),
                )
            )
    columns = ["loss", "solver", "fits", "s", "ms per fit", "times as long as ours, per fit"]
    table = markdown(columns, rows)
    large = found.get("like Caltech-256")
    if large:
        table += (
            f"\n\nLike Caltech-256, {large['problem']}: Gram matrix {large['Gram matrix s']} s, "
            f"squared hinge {large['squared_hinge']['s']} s, hinge {large['hinge']['s']} s, "
            f"peak memory {large['peak RSS GB']:.1f} GB."
        )
    return _with_source(found, table)


def mistakes(figures: Figures) -> str:
    """Return what common mistakes cost, the right way first."""
    found = figures.get("footguns", {})
    rows = [
        (
            *(row["mistake"], f"{row['everywhere']:.1f}", f"{row['test_only']:.1f}"),
            _small(row["one_minus_cos_median"]),
        )
        for row in found.get("rows", [])
    ]
    columns = ["what is wrong", "everywhere", "in the test photos only", "1 − cos, median"]
    return _with_source(found, markdown(columns, rows))


def plots(figures: Figures) -> str:
    """Return every plot that there is."""
    lines = [
        f"![{series['title']}](../results/benchmarks/{plot_name(stem, series['title'])})"
        for stem, found in figures.items()
        for series in found.get("series", [])
        if series["y"] and len(series["x"]) > 1
    ]
    return "\n".join(lines)


def _thousand(figures: Figures, engine: str) -> str:
    row = _sum_of(figures, engine)
    return _duration(1000 * row["seconds"]) if row else ""


def _ratio(figures: Figures, engine: str) -> str:
    row = _sum_of(figures, engine)
    return f"{row['ratio']['median']:.1f} times as long" if row else ""


def _lost(figures: Figures) -> str:
    rows = figures.get("extract", {}).get("rows", [])
    return _percent(max(row["lost"] for row in rows)) if rows else ""


def _peak(figures: Figures) -> str:
    rows = figures.get("extract", {}).get("memory", [])
    if not rows:
        return ""
    first, last = rows[0], rows[-1]
    return (
        f"{first['rss_mb']:,} MB for {first['images']:,} images, "
        f"{last['rss_mb']:,} MB for {last['images']:,}"
    )


def _photos(figures: Figures) -> str:
    found = figures.get("footguns")
    if not found:
        return ""
    one = f"one is {100 / found['test']:.2f} points"
    return (
        f"{found['classes']} classes of Caltech-101, {found['train']} photos to learn from and "
        f"{found['test']} to test on ({one}), Q = {found['scale']}"
    )


def _norms(figures: Figures) -> str:
    rows = figures.get("footguns", {}).get("rows", [])
    return f"{rows[0]['norms'][0]:.0f} to {rows[0]['norms'][1]:.0f}" if rows else ""


def _gpu(figures: Figures) -> str:
    return str(figures.get("gpu", {}).get("machine", {}).get("gpu") or "")


def _machine(figures: Figures) -> str:
    found = figures.get("forward", {}).get("machine")
    return f"{found['processor']}, {found['cores']} cores" if found else ""


TABLES: dict[str, Callable[[Figures], str]] = {
    "choices": choices,
    "ceiling": ceilings,
    "forward": forward_table,
    "extract": extraction,
    "memory": memory,
    "drift": drift,
    "svm": svm,
    "gpu forward": gpu_forward,
    "gpu extract": gpu_whole,
    "gpu profile": gpu_profile,
    "plots": plots,
    "mistakes": mistakes,
}
NUMBERS: dict[str, Callable[[Figures], str]] = {
    "machine": _machine,
    "forward, reference": lambda figures: str(figures.get("forward", {}).get("reference", "")),
    "naive, 1,000 images": lambda figures: _thousand(figures, BASELINE),
    "float32, 1,000 images": lambda figures: _thousand(figures, "vggfeat float32"),
    "float32, speed-up": lambda figures: _ratio(figures, "vggfeat float32"),
    "extract, lost": _lost,
    "extract, memory": _peak,
    "mistakes, photos": _photos,
    "mistakes, norms": _norms,
}


def _forward_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = row["ratio"]
    q = "all" if row["scale"] == ALL else str(row["scale"])
    return (
        *(q, row["engine"], _time(row["seconds"]), f"{row['gflops']:,.0f}"),
        *(_percent(row["share_of_ceiling"]), f"{ratio['median']:.2f}"),
        *(f"{ratio['low']:.2f}–{ratio['high']:.2f}", _small(row["error"])),
        *(_small(row["one_minus_cos"]), f"{row['rss_mb']:,}"),
    )


def _with_source(found: Mapping[str, Any], table: str) -> str:
    """Put below a table where and how it was measured."""
    if not table:
        return ""
    own = found["machine"]
    where = ", ".join(filter(None, [own["processor"], own["gpu"]]))
    versions = f"{own['cores']} cores, {own['memory_gib']:.0f} GiB, torch {own['torch']}"
    return f"{table}\n\n`{found['command']}` · {where}, {versions} · {found['date']}"


def _time(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _small(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    """Return a time that one can plan with.

    >>> _duration(45), _duration(600), _duration(9000)
    ('45 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Bring the pages up to date."""
    figures = load()
    for page in PAGES:
        page.write_text(regenerate(page.read_text("utf-8"), figures), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
