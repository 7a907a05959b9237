# Two commands: `make demo` runs the main job on this machine, `make test` passes the tests. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Threads that spin while they wait are several times slower as soon as anything else runs.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-host test-lab lint setup clean

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

# What measures this machine has it to itself. Then two halves on two cores: the lab counts instructions instead of time,
# so its tests can run beside the others.
test: setup lint
	$(BIN)/python -m pytest tests/latency
	$(MAKE) --no-print-directory --jobs=2 test-host test-lab

test-host: setup
	$(BIN)/python -m pytest --ignore=tests/lab --ignore=tests/latency

test-lab: setup
	$(BIN)/python -m pytest tests/lab

clean:
	rm -rf runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
