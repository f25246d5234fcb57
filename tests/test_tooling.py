"""Files beside the code that tools read: they agree with each other and with the package."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import vggfeat

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def read(name: str) -> Any:  # noqa: ANN401  (any YAML)
    return yaml.safe_load((ROOT / name).read_text())


WORKFLOW = read(".github/workflows/ci.yml")
JOBS = WORKFLOW["jobs"]


def steps(job: str, key: str) -> list[str]:
    return [step[key] for step in JOBS[job]["steps"] if key in step]


def test_make_lists_every_target_and_does_nothing_else_unless_told() -> None:
    command = ["make", "--no-print-directory"]  # which a make below `make test` would print
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert listed == re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())
    assert all(len(line.split()) > 2 for line in done.stdout.splitlines())


def test_the_hooks_are_what_make_check_runs() -> None:
    config = read(".pre-commit-config.yaml")
    [local] = config["repos"]
    assert local["repo"] == "local"  # .venv's tools: pyproject.toml alone pins them
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0]
    checked = [line.strip().replace("$(RUN)", ".venv/bin") for line in recipe.splitlines()[1:]]
    hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    assert hooks == checked
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert any(line.startswith("ruff==") for line in PROJECT["optional-dependencies"]["dev"])


# What the schema of CFF 1.2.0 knows of an object; the first few are required.
REQUIRED = ["authors", "cff-version", "message", "title"]
KNOWN = {
    *REQUIRED,
    *("abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "preferred-citation", "references", "repository"),
    *("repository-artifact", "repository-code", "type", "url", "version"),
}


def test_the_citation_is_valid_and_the_packages() -> None:
    citation = read("CITATION.cff")
    assert set(REQUIRED) <= set(citation) <= KNOWN
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == vggfeat.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert all(isinstance(word, str) for word in citation["keywords"])


def test_the_citation_refers_to_the_paper() -> None:
    [paper] = read("CITATION.cff")["references"]
    assert paper["type"] == "conference-paper"
    assert [person["family-names"] for person in paper["authors"]] == ["Simonyan", "Zisserman"]
    assert paper["title"].startswith("Very Deep Convolutional Networks")
    assert paper["year"] == 2015
    assert "ICLR" in paper["conference"]["name"]
    [preprint] = paper["identifiers"]
    assert preprint["type"] in {"doi", "url", "swh", "other"}
    assert preprint["value"] == "arXiv:1409.1556"


def test_the_workflow_runs_every_python_that_the_package_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert JOBS["newest"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert JOBS["lowest"]["steps"][1]["with"]["python-version"] == named[0]
    assert JOBS["whole"]["steps"][1]["with"]["python-version"] in named
    assert steps("newest", "run") == ["make test PYTHON=python"]
    assert steps("whole", "run") == [".ci/run"]
    assert "uv pip install --resolution lowest-direct --editable ." in steps("lowest", "run")


def test_every_dependency_has_a_lowest_version() -> None:
    """Without one, `lowest-direct` would take the first release that there ever was."""
    for line in PROJECT["dependencies"]:
        assert re.fullmatch(r"[a-z0-9-]+>=[\d.]+", line), line


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_only_read_and_runs_pinned_actions(job: str) -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS[job]
    used = steps(job, "uses")
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action
    assert JOBS[job]["steps"][0]["with"]["persist-credentials"] is False


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## (\S+)", text, re.MULTILINE)
    assert first is not None
    assert first[1] == vggfeat.__version__
