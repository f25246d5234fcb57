# `make demo` and `make test` are all that is needed, from a fresh clone with Python and git.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-slow check benchmarks docs install clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## the whole main job on a small generated data set, offline
	$(RUN)/vggfeat demo

test: check  ## style, types and the fast tests
	$(RUN)/python -m pytest -n auto -m "not slow"

test-slow: $(INSTALLED)  ## the tests that take longer: full nets, kills, memory
	$(RUN)/python -m pytest -m slow

check: $(INSTALLED)  ## style and types
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy

benchmarks: $(INSTALLED)  ## the figures of docs/performance.md, on a quiet machine
	$(RUN)/python -m benchmarks.ceiling
	$(RUN)/python -m benchmarks.forward
	$(RUN)/python -m benchmarks.extract
	$(RUN)/python -m benchmarks.svm
	$(RUN)/python -m benchmarks.drift
	$(RUN)/python -m benchmarks.footguns
	$(RUN)/python -m benchmarks.startup
	$(RUN)/python -m benchmarks.growth
	$(RUN)/python -m benchmarks.document

docs: $(INSTALLED)  ## the generated pages: docs/cli.md, and the tables of other pages
	$(RUN)/python -m docs.make_cli
	$(RUN)/python -m benchmarks.document

install: $(INSTALLED)  ## vggfeat and all that its developers need, into .venv

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vggfeat needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:  ## .venv and what was built; stores, data and results stay
	rm -rf $(VENV) build *.egg-info
