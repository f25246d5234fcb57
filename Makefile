# `make demo` and `make test` are all that is needed, from a fresh clone with Python and git.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow benchmarks check install clean

demo: $(INSTALLED)  ## the whole main job on a small generated data set, offline
	$(RUN)/vggfeat demo

test: check  ## style, types and the fast tests
	$(RUN)/python -m pytest -n auto -m "not slow"

test-slow: $(INSTALLED)  ## the tests that take longer: full nets, kills, memory
	$(RUN)/python -m pytest -m slow

benchmarks: $(INSTALLED)  ## the figures of docs/performance.md, on a quiet machine
	$(RUN)/python -m benchmarks.ceiling
	$(RUN)/python -m benchmarks.forward
	$(RUN)/python -m benchmarks.extract
	$(RUN)/python -m benchmarks.svm
	$(RUN)/python -m benchmarks.drift
	$(RUN)/python -m benchmarks.growth
	$(RUN)/python -m benchmarks.document

check: $(INSTALLED)
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vggfeat needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
