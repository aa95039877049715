# Calls only; what happens is in `mirprobe --help`. Variables: MODEL, TASK, ARGS (any Hydra override), PYTHON.
.DEFAULT_GOAL := help
.PHONY: help install sweep extract probe report data test trial mutations check bench pins clean

PYTHON ?= python3
MODEL ?= fcpe
TASK ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PINS := .ci/requirements.txt
SETTINGS = model=$(MODEL) $(if $(TASK),task=$(TASK)) $(ARGS)

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
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
	@$(BIN)/mirprobe sweep $(SETTINGS)

extract: $(READY)  ## features of all layers only
	@$(BIN)/mirprobe extract $(SETTINGS)

probe: $(READY)  ## probes on stored features only
	@$(BIN)/mirprobe probe $(SETTINGS)

report: $(READY)  ## table and figures of what is done
	@$(BIN)/mirprobe report $(SETTINGS)

data: $(READY)  ## passport of TASK's data under ARGS="data.root=DIR" (else the demo's), and how to get it
	@$(BIN)/mirprobe data $(SETTINGS)

test: $(READY)  ## the tests: units, golden numbers, one run from end to end
	@$(BIN)/python -m pytest

trial: $(READY)  ## the long tests: kills, several processes, whole tasks
	@$(BIN)/python -m pytest -m trial

mutations: $(READY)  ## single changes to the code, each of which some test must notice
	@$(BIN)/python -m pytest -m mutation tests/mutations

check: $(READY)  ## format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)  ## speed of the Conformer beside a plain implementation, in one run; ARGS="--dtype bfloat16"; cost of similarity
	@$(BIN)/python tests/bench/bench_conformer.py $(ARGS)
	@$(BIN)/python tests/bench/bench_similarity.py

pins: pyproject.toml  ## compile the pinned packages anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --all-extras --no-annotate --no-header pyproject.toml -o $(PINS)

clean:  ## delete .venv and caches; keeps data, features and runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
