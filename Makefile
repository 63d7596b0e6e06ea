# Every target creates .venv first if it does not exist, which takes minutes.
PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PYTHON_BIN := $(BIN)/python
STAMP := .venv/.installed
# Test files run in up to four processes; each of them loads torch.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
# Report only; `make test COVERAGE=` is without. Costs a third more CPU time before Python 3.12.
COVERAGE ?= --cov --cov-report=term
CORE = $(shell $(PYTHON_BIN) -c "import sys; print('sysmon' if sys.version_info > (3, 12) else 'ctrace')")

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt type bench bench-quick gpu-run clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

setup: $(STAMP) ## Create .venv and install astound with its tools (PYTHON=python3.12 to choose)

demo: $(STAMP) ## Take a tour: build a catalog and find clips in it
	@echo "==> astound demo $(ARGS)"
	@$(BIN)/astound demo $(ARGS)
	@echo "(\". $(BIN)/activate\" puts astound on your path)"

test: $(STAMP) ## Run the tests and report coverage (ARGS='-m slow' for the slow ones)
	@echo "==> pytest $(PARALLEL) $(COVERAGE) $(ARGS)"
	@COVERAGE_CORE=$(CORE) $(PYTHON_BIN) -m pytest $(PARALLEL) $(COVERAGE) $(ARGS)

lint: $(STAMP) ## Check format, style, types and architecture; changes nothing
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "==> ruff check"
	@$(BIN)/ruff check .
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> lint-imports"
	@$(BIN)/lint-imports

fmt: $(STAMP) ## Format the code and apply automatic fixes
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

type: $(STAMP) ## Check the types only
	@$(BIN)/mypy

bench: $(STAMP) ## Run the benchmarks (ARGS= goes to them)
	@echo "==> python -m benchmarks $(ARGS)"
	@$(PYTHON_BIN) -m benchmarks $(ARGS)

bench-quick: $(STAMP) ## Check that no accuracy or speed was lost (minutes, needs no music)
	@echo "==> python -m benchmarks quick $(ARGS)"
	@$(PYTHON_BIN) -m benchmarks quick $(ARGS)

gpu-run: $(STAMP) ## Train on a GPU in a quarter of an hour, or test and measure it (docs/training.md)
	@echo "==> training/gpu_run.sh $(ARGS)"
	@PYTHON=$(PYTHON_BIN) training/gpu_run.sh $(ARGS)

clean: ## Remove .venv, caches and build products
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@echo "==> setting up .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@echo "==> installing astound and its tools (a few minutes the first time)"
	@$(PYTHON_BIN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[cpu,dev]'
	@touch $@
