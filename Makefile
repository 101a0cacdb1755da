# make run    start the daemon on the bundled example and say what to try
# make test   everything that has to hold: style, types, layers, tests, also on other Pythons
# make others the last part of it: core, lifecycle, runtime on every other supported Python here
# make check  the quick part of it: style, types, layers
# make fix    format and repair what can be repaired
# make bench  the benchmark table, in minutes
# make bench-full   all benchmarks, for longer, rendered into docs/benchmarks.md
# make soak   long runs
# make drills the runbook's incidents rehearsed
# make dist   what is published: built twice, looked into, tried in an empty environment, with a bill of materials
# make docs   the documentation as a site, in build/docs
# make monitoring   generate rules, dashboards and their reference pages
# make reference    generate the other reference pages, from the code
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell scripts/find-python)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test check unit drills others fix bench bench-full soak docs monitoring openapi reference dist pin clean

run: $(VENV)/.run
	@$(BIN)/python examples/shop/start.py

test: check unit
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target drills others

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy oneiric examples/shop
	$(BIN)/mypy -p scripts.release
	$(BIN)/mypy -p scripts.reference
	$(BIN)/pyright

# Programs that the tests start or inject faults with, by Debian package where the names differ.
PROGRAMS := prometheus promtool:prometheus prometheus-alertmanager amtool:prometheus-alertmanager redis-server nginx:nginx-light strace faketime mount prlimit:util-linux setpriv:util-linux unshare:util-linux node:nodejs npm curl bwrap:bubblewrap systemd-analyze:systemd

# Half as many again as there are cores: tests of real processes wait for a third of their time.
WORKERS := $(shell expr $$(nproc) \* 3 / 2)

unit: $(VENV)/.dev
	scripts/system-packages $(PROGRAMS)
	@$(MAKE) --no-print-directory $(VENV)/logql
	@$(BIN)/python -m compileall -q oneiric  # or each of a thousand processes would, where bytecode is not written
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile || { \
	  echo "again, alone: what failed beside others on a busy machine must pass without them"; \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

# Every incident of the runbook, from its fault to its cure, with a real Prometheus and Alertmanager.
drills: $(VENV)/.dev
	scripts/system-packages $(PROGRAMS)
	$(BIN)/oneiric drill run all --jobs 4 || { \
	  echo "again, one after the other: what failed beside others on a busy machine must pass without them"; \
	  $(BIN)/oneiric drill run all --jobs 1; }

# Tests that need no other program, on every other supported Python that is installed here.
others: $(VENV)/.dev
	scripts/test-other-pythons

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

bench-full: $(VENV)/.dev
	-$(BIN)/python -m benchmarks --full --json docs/benchmarks.json
	$(BIN)/python -m benchmarks.render docs/benchmarks.json

soak: $(VENV)/.dev
	scripts/system-packages $(PROGRAMS)
	$(BIN)/python -m pytest -m soak tests
	scripts/fuzz

# All that is generated from the catalog, the alerts and the dashboards.
monitoring: $(VENV)/.dev
	$(BIN)/python -m oneiric.monitoring
	$(BIN)/python deployment/monitoring/source/dashboards.py
	$(BIN)/python -m oneiric.observability.reference

openapi: $(VENV)/.dev
	$(BIN)/python -m oneiric.api.openapi > docs/reference/openapi.json

# What can be typed, set, published, raised, asked and imported.
reference: $(VENV)/.dev
	$(BIN)/python -m scripts.reference

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -n -W --keep-going -q -d build/doctrees -b html docs build/docs
	@echo "open build/docs/index.html"

# Its own words say whether that is a release; scripts/dist --release refuses what is not.
dist: $(VENV)/.dev
	scripts/dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; try: apt-get install python3 python3-venv, then make run PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment; try: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.run: pyproject.toml requirements/run.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(INSTALL) --require-hashes -r requirements/run.txt
	@$(INSTALL) --no-deps -e .
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps -e .
	@touch $@ $(VENV)/.run

# Where npm cannot be reached, the tests that need it say so.
$(VENV)/logql: scripts/logql-grammar | $(BIN)/python
	@scripts/system-packages node:nodejs npm
	-@scripts/logql-grammar $@

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks

# Pin newer versions of what is installed, after a look at what changes.
pin:
	scripts/pin
	scripts/pin-peers
