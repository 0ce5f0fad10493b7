PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test test-all faults check format bench lab-check screenshots clean

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
	EPOCHTOP_FAULTS=all $(BIN)/python -m pytest -n 2 tests/faults

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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
$(VENV)/.app: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing epochtop into $(VENV) (the first time takes a minute or two) ..."
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.app
	@$(PIP) --editable '.[dev]'
	@touch $@

# The trainers that ours is measured against.
$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
