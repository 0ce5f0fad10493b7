PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_OPTIONS)

.PHONY: run dev bytecode test test-all test-torch gpu-check faults check lint types contracts format bench lab-check screenshots clean

run: $(VENV)/.app
	@$(BIN)/epochtop --start

# tests/conftest.py has the order: what takes longest first. Four workers share two cores, because some only wait.
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadgroup --no-loadscope-reorder

# Property tests try a quarter of their examples here, and all of them in test-all.
test: $(VENV)/.dev
	HYPOTHESIS_PROFILE=ci $(PYTEST)

test-all: $(VENV)/.dev
	HYPOTHESIS_PROFILE=full $(PYTEST)

# The fault campaign: every row of the tables in tests/faults, of which `make test` tries a selection.
faults: $(VENV)/.dev
	EPOCHTOP_FAULTS=all $(PYTEST) tests/faults

check: lint types contracts

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

# With PIP_OPTIONS=--no-compile, packages are left to `make bytecode`.
dev: $(VENV)/.dev

# Compile packages, this program and its tests beside `make check`, which leaves a core idle. pip compiles on one core, and
# also what nobody imports here: a third of all source text is in these two kinds of folders.
UNUSED := /tests/|/transformers/models/
bytecode: export PYTHONDONTWRITEBYTECODE :=
bytecode: $(VENV)/.dev
	$(BIN)/python -m compileall -qq -j 2 -x '$(UNUSED)' $(VENV)/lib epochtop engine tui || true
	@$(BIN)/python -m pytest --collect-only --quiet >$(VENV)/collected.txt || { cat $(VENV)/collected.txt; exit 1; }

# What only a GPU can show, in less than nine minutes by its limits; without one, as much of it as the CPU can.
gpu-check: $(VENV)/.dev
	PYTHON=$(BIN)/python tests/gpu/check.sh

# The tests that touch torch's internals, against another torch. `make test-torch VERSION=2.11.0` installs it into an
# environment of its own; pip's settings say from where. `make test-torch VERSION=2.11.0 TORCH_PYTHON=…/bin/python` takes an
# interpreter that has this torch, and the packages of the tests, already.
INTERNALS := tests/device tests/execution tests/step tests/job tests/training tests/distributed \
	tests/architecture/test_no_reads.py
TORCH_VENV := .venv-torch-$(VERSION)
TORCH_PYTHON ?= $(TORCH_VENV)/bin/python
TORCH_PIP := $(TORCH_PYTHON) -m pip install --quiet --disable-pip-version-check --constraint $(TORCH_VENV)/constraints.txt
test-torch: $(if $(VERSION),$(if $(filter $(TORCH_VENV)/%,$(TORCH_PYTHON)),$(TORCH_VENV)/.tests))
	@test -n "$(VERSION)" || { echo "name a version: make test-torch VERSION=2.6.0"; exit 2; }
	@$(TORCH_PYTHON) -c 'import torch; version = torch.__version__; print("torch", version); \
		assert version.split("+")[0] == "$(VERSION)", "not torch $(VERSION)"'
	HYPOTHESIS_PROFILE=ci $(TORCH_PYTHON) -m pytest -n 2 --dist loadgroup $(INTERNALS)

.venv-torch-%/.tests: pyproject.toml constraints.txt
	@test -x $(TORCH_PYTHON) || $(PYTHON) -m venv $(TORCH_VENV)
	@grep -v '^torch==' constraints.txt >$(TORCH_VENV)/constraints.txt
	@$(TORCH_PIP) torch==$(VERSION)
	@$(TORCH_PIP) torch==$(VERSION) --editable . pytest pytest-xdist pytest-timeout pytest-asyncio hypothesis pyte
	@touch $@

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Some forty minutes on two cores; `make bench TABLES="iris loop"` prints some of the tables.
bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench $(TABLES)

# Every experiment ten times next to a busy neighbor, some twenty minutes; `make lab-check LAB="reads threads"` runs some.
lab-check: $(VENV)/.dev
	$(BIN)/python -m tests.lab.repeatability $(LAB)

screenshots: $(VENV)/.dev
	$(BIN)/python -m screenshots

# torch first, so that no other package can pull in another build of it.
$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing epochtop into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP) torch
	@touch $@

$(VENV)/.app: $(VENV)/.torch pyproject.toml
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.app $@

# The trainers that ours is measured against.
$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-torch-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
