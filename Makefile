# Everything runs from .venv; each target makes it first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all coverage bench chaos lint format up dev start worker dispatcher heartbeat standup conformance lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## Make .venv with everything for development in it

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Clasper Worker needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 install")'
	@echo "Installing into $(VENV); this takes about a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Watch real agent turns go through the real parts
	@$(BIN)/python examples/demo.py

PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## Run the tests
	@$(PYTEST) -rsfE --hypothesis-profile quick -m "not needs_services and not minutes"

test-all: $(STAMP) ## Run all tests, with those that take long or need servers and tools that are here
	@$(PYTEST) -rsfE

coverage: $(STAMP) ## Run the unit tests and show which lines they do not reach
	@$(BIN)/python -m pytest tests/unit -n 5 --dist loadfile --cov --cov-report term-missing

bench: $(STAMP) $(VENV)/.bench ## Measure throughput, latency and memory (about 11 minutes)
	@$(BIN)/python benchmarks/run.py $(BENCH)

$(VENV)/.bench: $(STAMP) requirements-bench.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

chaos: $(STAMP) ## Kill and cut off everything, and count what is lost (CHAOS=--quick: a few minutes)
	@$(BIN)/python -m tests.chaos --output docs/reliability.json --document docs/reliability.md $(CHAOS)

lint: $(STAMP) ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && $(BIN)/mypy

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

up: $(STAMP) ## Run everything on this machine, in the foreground
	@$(BIN)/clasper up

dev: up ## The same as up
start: up ## The same as up

worker: $(STAMP) ## Run a worker alone
	@$(BIN)/clasper worker

dispatcher: $(STAMP) ## Poll notifications without Beat, until stopped
	@$(BIN)/clasper dispatch

heartbeat: $(STAMP) ## One heartbeat: USER_ID=u1 AGENT_ROLE=writer make heartbeat
	@$(BIN)/clasper heartbeat

standup: $(STAMP) ## The day's standup: STANDUP_TIMEZONE=UTC make standup
	@$(BIN)/clasper standup

conformance: $(STAMP) ## Check a backend: CONTROL_PLANE_URL=… AGENT_JWT_SECRET=… (unset: the reference backend)
	@$(BIN)/clasper conformance

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-emit-package clasper-worker --custom-compile-command "make lock" pyproject.toml

lock: ## Write the lock files anew (needs uv)
	$(LOCK) --extra dev -o requirements.lock
	$(LOCK) --extra bench -c requirements.lock -o requirements-bench.lock

clean: ## Remove what the other targets made
	rm -rf $(VENV) .coverage .clasper .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
