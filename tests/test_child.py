from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.test_architecture import FILES, PACKAGE, imports
from vggfeat import child
from vggfeat.recipe import Machine, Recipe
from vggfeat.weights.formats import sandbox
from vggfeat.weights.formats.plain import Refused
from vggfeat.weights.formats.sniff import format_named

TRAPS = ("queue", "json", "torch", "numpy", "sklearn", "vggfeat", "pickle", "socket")
SPRUNG = "open(__file__ + '.imported', 'w').close()\n"
STARTERS = {"subprocess", "multiprocessing", "concurrent.futures.process", "pty", "asyncio"}
OF_OS = ("system", "popen", "fork", "exec", "spawn", "posix_spawn")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder whose files have the names of modules."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(SPRUNG)
    monkeypatch.chdir(folder)
    return folder


def sprung(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.imported"))


@pytest.mark.parametrize("paths", [None, "", ":", ".", ".:", "/nowhere:", "::trap"])
def test_the_process_that_reads_foreign_files_imports_nothing_of_the_folder(
    trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str | None
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if paths is not None:
        monkeypatch.setenv("PYTHONPATH", paths)
    np.savez(trap / "w.npz", a=np.ones(2, np.float32))
    target = trap / "out.safetensors"  # it stands where its target is
    sandbox.extract(trap / "w.npz", format_named("npz"), target)
    assert target.stat().st_size > 8
    assert sprung(trap) == []


@pytest.mark.slow
@pytest.mark.parametrize("paths", ["", ".:"])
def test_a_helper_imports_nothing_of_the_folder(
    trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", paths)
    values = {"dataset": "folder:absent", "models": ["vgg16-thin"], "weights": ["random:0"]}
    work = [Recipe.build(values, "a test").model_dump_json(), Machine().model_dump_json()]
    assert child.start("vggfeat.extraction.helper", work).wait() == 1  # the data set is not there
    assert sprung(trap) == []


@pytest.mark.slow
def test_processes_that_fit_import_nothing_of_the_folder(trap: Path) -> None:
    code = """
        import numpy as np
        from vggfeat.classify import svm
        svm._SMALL = 0
        settings = svm.SvmSettings(loss="hinge", grid=(1.0,), choose_c="shared",
            difficult="ignore", class_weight="none", measure="voc2007", seed=0, device="cpu",
            workers=2)
        x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        labels = np.where(np.arange(20)[:, None] % 2 == np.arange(2), 1, -1).astype(np.int8)
        with svm._LinearSvcs(x, labels, settings) as solver:
            solver._jobs = lambda tasks: 2
            assert solver.fit(np.ones(2), lambda count: None).coef.shape == (2, 3)
    """
    own = {k: v for k, v in child.environment().items() if k != "PYTHONSAFEPATH"}
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=own, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sprung(trap) == []


def test_what_a_library_starts_meanwhile_is_under_the_same_rule(
    trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with child.others_kept_safe():
        subprocess.run([sys.executable, "-c", "import queue"], check=True)
    assert "PYTHONSAFEPATH" not in os.environ
    assert sprung(trap) == []
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with child.others_kept_safe():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONSAFEPATH"] == "yes"
    monkeypatch.delenv("PYTHONSAFEPATH")
    subprocess.run([sys.executable, "-c", "import queue"], check=True)
    assert sprung(trap) == ["queue.py.imported"]  # the trap does work


def test_absolute_folders_of_the_user_s_path_are_kept() -> None:
    base = {"PYTHONPATH": os.pathsep.join(["", ".", "lib", "/opt/lib", "/opt/lib", str(PACKAGE)])}
    own = child.environment({**base, "A": "b"})
    root = str(PACKAGE.parent)
    assert own["PYTHONPATH"].split(os.pathsep) == [root, "/opt/lib", str(PACKAGE)]
    assert own["A"] == "b"
    assert own["PYTHONSAFEPATH"] == "1"


def test_how_a_child_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.npz").write_bytes(b"rubbish")
    with pytest.raises(Refused, match="zip"):
        sandbox.extract(tmp_path / "w.npz", format_named("npz"), tmp_path / "out")
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes into it
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 0.5)
    with pytest.raises(Refused, match=r"took longer than 0\.5 seconds"):
        sandbox.extract(tmp_path / "pipe", format_named("npz"), tmp_path / "out")
    for status, said in ((-signal.SIGKILL, "Killed"), (-signal.SIGXCPU, "seconds of computing")):
        monkeypatch.setattr(child, "run", lambda *_, status=status, **__: status)
        with pytest.raises(Refused, match=said):
            sandbox.extract(tmp_path / "w.npz", format_named("npz"), tmp_path / "out")


def test_a_child_that_dies_at_once_breaks_nothing() -> None:
    work = ["x" * 1_000_000]  # more than any pipe holds
    assert child.start("vggfeat.absent", work).wait() == 1


def starts_processes(path: Path) -> set[str]:
    """Return what of a module can start a process."""
    found = {name for name in imports(path) for other in STARTERS if f"{name}.".startswith(other)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr.startswith(OF_OS):
                found.add(f"os.{node.attr}")
            if "ProcessPool" in node.attr:
                found.add(node.attr)
        elif isinstance(node, ast.alias) and "ProcessPool" in node.name:
            found.add(node.name)
    return found


def test_one_module_starts_processes() -> None:
    assert {path: found for path in FILES if (found := starts_processes(path))} == {
        PACKAGE / "child.py": {"subprocess"}
    }


def test_children_are_modules_that_can_be_run() -> None:
    """A child's program is no text in a string, so that it is checked like all else."""
    for module in ("vggfeat.extraction.helper", "vggfeat.weights.formats.sandbox"):
        path = (PACKAGE.parent / module.replace(".", "/")).with_suffix(".py")
        assert '__name__ == "__main__"' in path.read_text()
        assert child.command(module, "a") == [sys.executable, "-P", "-m", module, "a"]
    texts = [path.read_text() for path in FILES]
    assert not any('"-c"' in text for text in texts)
    assert sum("Parallel(" in text for text in texts) == 1  # one pool, and it is kept safe
