PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHECKED := aft_lens analyses app tests

.DEFAULT_GOAL := help
.PHONY: help setup demo app test check

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[app,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt labml-nn # an oracle of one file
	touch $@

setup: $(STAMP) ## Install into .venv

demo: setup ## Train, prune, compare, and serve the app
	$(BIN)/aft-lens demo

app: setup ## Serve the app over checkpoints/ and runs/
	$(BIN)/aft-lens app

test: setup ## Run the tests
	$(BIN)/pytest

check: setup ## Format, lint, types, import contracts and tests: what CI runs
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy aft_lens analyses app
	$(BIN)/lint-imports
	$(MAKE) test
