"""Who may import whom: the rooms are passed once, left to right."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vggfeat"

GROUND = {"vggfeat", "errors", "publish", "sources", "digests", "rows", "child"}
ALLOWED: dict[str, set[str]] = {
    "fetch": {"progress"},
    "unpack": {"progress"},
    "data": {"data", "fetch", "unpack", "progress"},
    "nets": {"nets", "fetch", "progress"},
    "extract": {"extract", "nets", "data.split"},
    "store": {"store"},
    "classify": {"classify"},
    "report": {"report", "classify.measures", "data.names"},
    "recipe": {"data", "nets.architectures", "classify.measures"},
    "progress": set(),
    "scoring": {"classify", "report", "data.split"},
    "row_recipe": {"nets", "extract.images", "store.layout", "recipe"},
    "given": {"nets", "store", "recipe", "row_recipe"},
    "planning": {"data", "nets", "extract", "store", "recipe", "row_recipe", "progress"},
    "describing": {"data", "nets", "extract", "store", "recipe", "progress", "planning"},
    "supplies": {"data", "nets", "recipe", "progress"},
    "experiment": {
        *("data", "extract", "store", "classify", "report"),
        *("recipe", "progress", "scoring", "planning", "describing", "supplies"),
    },
    "helper": {"experiment", "recipe", "progress"},
    "predicting": {
        *("data", "nets", "store", "classify", "report"),
        *("recipe", "progress", "planning", "describing", "supplies", "experiment"),
    },
    "transformer": {
        *("data", "extract", "store"),
        *("recipe", "progress", "planning", "describing", "supplies", "experiment"),
    },
    "costs": {
        *("data.split", "nets.architectures", "extract", "store"),
        *("recipe", "progress", "planning", "supplies"),
    },
    "submit": {"experiment", "supplies", "recipe", "report", "classify", "data", "store", "unpack"},
    "doctor": {"data", "nets", "recipe", "planning", "fetch"},
    "demo_images": {"data"},
    "demo": {
        *("experiment", "recipe", "progress", "report", "classify", "demo_images"),
        *("data", "extract"),
    },
    "cli": {
        *("experiment", "given", "predicting", "submit", "costs", "doctor", "demo"),
        *("recipe", "progress", "report", "store", "nets", "data.published", "data.folder"),
        "fetch",
    },
    "__main__": {"cli"},
}
OUTSIDE = {  # package → the only places that may import it
    "torch": {"nets", "extract", "classify", "planning", "describing", "experiment", "doctor"},
    "h5py": {"store", "nets"},
    "scipy": {"nets"},
    "openvino": {"nets"},
    "requests": {"fetch"},
    "defusedxml": {"data"},
    "sklearn": {"classify", "transformer"},
    "joblib": {"classify"},
    "numba": {"classify", "nets"},
    "PIL": {"extract", "transformer", "demo_images", "report"},
    "matplotlib": set(),  # of the benchmarks alone
    "jinja2": {"report"},
    "tomli_w": {"report"},
    "rich": {"progress", "cli"},
    "click": {"cli"},
    "pydantic": {"recipe", "row_recipe", "report"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Return the room, or the module's own name where it stands outside of the rooms."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "vggfeat" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> set[str]:
    """Return every imported module; of ours with the name, in case it is a module too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    allowed = ALLOWED.get(here, set()) | GROUND
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


def test_every_room_is_known() -> None:
    assert {place(path) for path in FILES} <= {*ALLOWED, *GROUND}


@pytest.mark.parametrize(
    "statement",
    [
        "import vggfeat",
        "from vggfeat import Recipe, average_precision; import vggfeat.cli",
        "import vggfeat; 'VggDescriptor' in vggfeat.__all__",
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
