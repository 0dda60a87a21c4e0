# Every target sets up what it needs first: .venv with the versions of constraints.txt. A second call starts at once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
READY_TEST := .venv/ready-test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu lint bench lab clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 18

demo: $(READY)  ## make a clip of a photograph, then a small sweep and its report
	@$(BIN)/i2v-lab demo

test: lint  ## run the checks of make lint, then the fast tests, on two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY_TEST)  ## run the long tests, which make test leaves out, on two processes
	$(BIN)/python -m pytest --slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-gpu: $(READY_TEST)  ## run the tests that need a CUDA device: under five minutes on one large card
	$(BIN)/python -m pytest --gpu -rs tests/test_gpu.py

lint: $(READY_TEST)  ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY_TEST)  ## print the benchmarks: ratios within one run
	@for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lab: $(READY)  ## open the studio's notebook in JupyterLab, at the root of the project
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/studio.ipynb

clean:  ## remove .venv and caches; results/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

# What people use: the package and JupyterLab.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python has no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "Setting up .venv: about 2 GB, some minutes, once."
	@$(PYTHON) -m venv .venv
	@$(PIP) --editable '.[lab]'
	@touch $@

# What the tests need beside it: every optional extra of pyproject.toml.
$(READY_TEST): $(READY)
	@echo "Adding what the tests need."
	@$(PIP) --editable ".[$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep=",")')]"
	@touch $@
