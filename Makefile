# Two commands: `make demo` runs the main job on this machine, `make test` passes the tests. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Threads that spin while they wait are several times slower as soon as anything else runs.
export OMP_WAIT_POLICY ?= PASSIVE

# How many processes test at once. Each keeps a child for each toolkit: about 3 GB of memory.
PROCESSES ?= 2

.PHONY: demo test lint setup clean

setup: $(STAMP)

# torch goes in first, by itself: asked for through a dependency, an index may choose a CUDA build of several GB.
$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "EdgePrune needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $(STAMP)

DIGITS := .cache/digits/small_cnn.safetensors

$(DIGITS): $(STAMP)
	$(BIN)/python examples/train_digits.py $(DIGITS)

demo: setup $(DIGITS)
	$(BIN)/edgeprune run examples/quickstart.toml --out runs/quickstart --resume

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What measures this machine has it to itself. Then the rest, two files at a time: the lab counts instructions instead of
# time, and no other test asks how long anything takes (tests/conftest.py says who does what, and what is shared).
test: setup lint
	$(BIN)/python -m pytest tests/latency
	$(BIN)/python -m pytest --numprocesses=$(PROCESSES) --ignore=tests/latency

clean:
	rm -rf runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
