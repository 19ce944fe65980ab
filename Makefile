# All set-up of this project: `make demo` and `make test` need only Python >= 3.10 and make.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.mixgan-installed

.PHONY: setup demo test campaign bench

setup: $(INSTALLED)

# Runs again only when what to install has changed.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "mixgan needs Python >= 3.10; call: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[test]'
	touch $@

# With all four values accelerate's launcher has no notice about its defaults to print.
demo: setup
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no recipes/mixcyclegan_maps.py

# Two tests at a time, each on one core: several OpenMP threads a test would stand in each other's way.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Kills, damaged run folders, bad flags and hostile files against every command: docs/reliability.md. Not part of the tests.
campaign: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaign

# docs/benchmarks.md: 15 minutes on two cores with nothing else running.
bench: setup
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[test,bench]'
	$(BIN)/python bench/page.py
