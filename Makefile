# Calls only; what happens is in `mirprobe --help`. Variables: MODEL, TASK, LAUNCHER, DRY_RUN,
# ARGS (any Hydra override), PYTHON.
.DEFAULT_GOAL := help
.PHONY: help install sweep extract probe report gallery plan status data test trial mutations check bench bench-store bench-extraction bench-bank pins clean

PYTHON ?= python3
MODEL ?= fcpe
TASK ?=
LAUNCHER ?=
DRY_RUN ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GALLERY := figure2 layer_curves-fcpe best_layer_chances
PINS := .ci/requirements.txt
SETTINGS = model=$(MODEL) $(if $(TASK),task=$(TASK)) $(if $(LAUNCHER),launcher=$(LAUNCHER)) $(ARGS)
DRY = $(if $(filter-out 0,$(DRY_RUN)),--dry-run)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13
	@echo 'Example: make sweep MODEL=fcpe TASK=nsynth_pitch,giantsteps_key ARGS="seed=0,1,2"'

# uv where present, else venv and pip; byte code once here instead of at every start (18 s against 4 s to import lightning)
$(READY): $(PINS) pyproject.toml
	@echo "set-up: installing the pinned packages into $(VENV)"
	@if command -v uv >/dev/null; then \
	  uv venv -q --clear --python $(PYTHON) $(VENV) && uv pip install -q --python $(BIN)/python -r $(PINS) && \
	  uv pip install -q --python $(BIN)/python --no-build-isolation --no-deps -e .; \
	else \
	  $(PYTHON) -m venv --clear $(VENV) && $(BIN)/python -m pip install -qq --no-deps --no-compile -r $(PINS) && \
	  $(BIN)/python -m pip install -qq --no-build-isolation --no-deps -e .; \
	fi
	@-env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null
	@touch $@

install: $(READY)  ## make .venv with the pinned packages (part of every other target)

sweep: $(READY)  ## features, probes, W&B, table and figures of MODEL on TASK; goes on where it was stopped
	@$(BIN)/mirprobe sweep $(DRY) $(SETTINGS)

extract: $(READY)  ## features of all layers only
	@$(BIN)/mirprobe extract $(DRY) $(SETTINGS)

probe: $(READY)  ## probes on stored features only
	@$(BIN)/mirprobe probe $(DRY) $(SETTINGS)

report: $(READY)  ## table and figures of what is done
	@$(BIN)/mirprobe report $(SETTINGS)

# Of the demo's results, whatever else is set: the README speaks of them.
gallery: $(READY)  ## the README's figures anew, from a sweep of the demo
	@$(BIN)/mirprobe sweep logger=none
	@for name in $(GALLERY); do cp runs/report/$$name.png tests/data/$$(echo $$name | tr - _)_demo.png; done

plan: $(READY)  ## what a sweep would do and cost: disk, downloads, hours, by a dry run on a few clips
	@$(BIN)/mirprobe plan $(SETTINGS)

status: $(READY)  ## what is done, queued, running, failed or missing, and where the logs are
	@$(BIN)/mirprobe status $(SETTINGS)

data: $(READY)  ## passport of TASK's data under ARGS="data.root=DIR" (else the demo's), and how to get it
	@$(BIN)/mirprobe data $(SETTINGS)

test: $(READY)  ## the tests: units, golden numbers, one run from end to end
	@$(BIN)/python -m pytest

trial: $(READY)  ## the long tests: kills, several processes, whole tasks; then the mutations
	@$(BIN)/python -m pytest -m trial
	@$(MAKE) --no-print-directory mutations

mutations: $(READY)  ## single changes to the code, each of which some test must notice
	@$(BIN)/python -m pytest -n 0 -m mutation tests/mutations

check: $(READY)  ## format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)  ## speed of the Conformer beside a plain implementation, in one run; ARGS="--dtype bfloat16"; cost of similarity
	@$(BIN)/python tests/bench/bench_conformer.py $(ARGS)
	@$(BIN)/python tests/bench/bench_similarity.py

bench-store: $(READY)  ## speed of the feature store beside a plain file, in one run; ARGS="--scale 0.2"
	@$(BIN)/python tests/bench/bench_store.py $(ARGS)

bench-extraction: $(READY)  ## whole extraction beside bare forward passes, two ranks beside one; ARGS="--model fcpe"
	@$(BIN)/python tests/bench/bench_extraction.py $(ARGS)

bench-bank: $(READY)  ## speed of the bank beside lone Lightning fits and its own arithmetic, in one run
	@$(BIN)/python tests/bench/bench_bank.py $(ARGS)

pins: pyproject.toml  ## compile the pinned packages anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --all-extras --no-annotate --no-header pyproject.toml -o $(PINS)

clean:  ## delete .venv and caches; keeps data, features and runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
