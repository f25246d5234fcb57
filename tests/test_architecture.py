"""Who may import whom: the rooms are passed once, left to right."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vggfeat"

GROUND = {"errors", "watch", "version", "child"}  # for everybody; they know each other alone
_LOW = ("nets", "weights", "data", "store", "recipe", "files")
_HIGH = ("extraction", "classify", "report", *_LOW)
ALLOWED: dict[str, set[str]] = {  # one line a room
    "files": set(),
    "nets": {"files"},
    "weights": {"nets", "files"},
    "data": {"files"},
    "store": {"files"},
    "classify": {"files"},
    "recipe": {"nets.architectures", "nets.precisions", "data.names", "classify.measures"},
    "report": {"classify.measures", "classify.confidence", "data.names", "recipe", "files"},
    "extraction": {*_LOW},
    "transfer": {*_HIGH},
    "looking": {"transfer", *_HIGH},
    "demo": {"transfer", *_HIGH},
    "transformer": {"transfer", "cli.progress", *_HIGH},
    "cli": {"demo", "looking", "transfer", *_HIGH},
    "__main__": {"cli"},
}
OUTSIDE = {  # package → the only places that may import it
    "torch": {"nets", "weights", "extraction", "classify", "cli"},
    "h5py": {"store", "weights"},
    "scipy": {"nets", "weights"},
    "openvino": {"nets"},
    "onnx": {"weights"},
    "requests": {"files"},
    "defusedxml": {"data"},
    "sklearn": {"classify", "transformer"},
    "joblib": {"classify"},
    "umap": {"looking"},
    "pyarrow": {"looking"},
    "numba": {"classify", "nets"},
    "PIL": {"files", "extraction", "transformer", "demo", "report"},
    "matplotlib": set(),  # of the benchmarks alone
    "jinja2": {"report"},
    "tomli_w": {"report"},
    "rich": {"cli"},
    "click": {"cli"},
    "pydantic": {"recipe", "report", "extraction"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Return the room, or the module's own name where it stands outside of the rooms."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "vggfeat" if parts == ("__init__",) else parts[0]


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Return every imported module; of ours with the name, in case it is a module too."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in below if (PACKAGE.parent / name.replace(".", "/")).exists()}
            modules |= {
                name
                for name in below
                if (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").exists()
            }
            found |= modules or {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = place(path)
    if here == "vggfeat":
        return  # names its members as text, and loads them when they are asked for
    allowed = GROUND | (ALLOWED[here] | {here} if here in ALLOWED else set())
    for name in imports(path):
        if name == "vggfeat" or not name.startswith("vggfeat."):
            continue
        inside = name.removeprefix("vggfeat.")
        fits = any(inside == a or inside.startswith(f"{a}.") for a in allowed)
        assert fits, f"{here} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    for name in {name.partition(".")[0] for name in imports(path)}:
        if name in OUTSIDE:
            assert place(path) in OUTSIDE[name], f"{place(path)} imports {name}"


def test_no_two_modules_need_each_other_to_be_loaded() -> None:
    """What a module imports inside a function does not count: it comes when all are there."""
    places = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES
    }
    places = {name.removesuffix(".__init__"): path for name, path in places.items()}
    needs = {name: imports(path, top=True) & {*places} - {name} for name, path in places.items()}
    assert circle(needs) is None


def test_two_modules_that_need_each_other_are_noticed() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert {*(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) or ())} == {"b", "c"}


def circle(needs: dict[str, set[str]]) -> list[str] | None:
    """Return modules that need each other in a circle; None if there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None


def test_every_room_is_known() -> None:
    assert {place(path) for path in FILES} <= {*ALLOWED, *GROUND, "vggfeat"}


@pytest.mark.parametrize(
    "statement",
    [
        "import vggfeat",
        "from vggfeat import Recipe, average_precision; import vggfeat.cli",
        "import vggfeat; 'VggDescriptor' in vggfeat.__all__",
        "from vggfeat import evaluate, extract, predict, write_report",
        "from vggfeat.cli import main; main(['--help'], standalone_mode=False)",
        "from vggfeat.cli import main; main(['models'], standalone_mode=False)",
    ],
)
def test_no_torch_is_loaded_without_need(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit(bool({{'torch', 'sklearn'}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_there_is_no_room_for_odds_and_ends() -> None:
    names = {path.stem for path in FILES}
    assert not names & {"utils", "helpers", "common", "misc", "base"}
