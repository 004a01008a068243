PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
STAMP := $(VENV)/.installed
CHECKED := aft_lens analyses app tests
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
VISION := $(shell sed -n 's/^torchvision==//p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo app docs results test robustness mutants audit check

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@if command -v nvidia-smi >/dev/null; then \
	  echo "setup: a GPU is here: PyTorch $(TORCH) comes with CUDA (about 6 GB)"; \
	elif echo "setup: no GPU: looking for PyTorch $(TORCH) for CPUs alone (0.2 GB)"; \
	  $(PIP) install "torch==$(TORCH)+cpu" "torchvision==$(VISION)+cpu" 2>/dev/null; then echo "setup: found and installed"; \
	else \
	  echo "setup: pip's registries have none: the one with CUDA comes (about 6 GB); PIP_EXTRA_INDEX_URL=URL adds a" \
	    "registry that has"; \
	fi
	@echo "setup: installing AFT Lens and what its app, its exports and its tests need, by constraints.txt (minutes)"
	@$(PIP) install -c constraints.txt -e ".[app,dev]"
	@echo "setup: installing an oracle of the tests"
	@$(PIP) install --no-deps -c constraints.txt labml-nn
	@touch $@
	@echo "setup: done; \`make demo\` shows all of it, \`$(BIN)/aft-lens --help\` the commands"

setup: $(STAMP) ## Install into .venv

demo: setup ## Train, prune, compare, and serve the app
	$(BIN)/aft-lens demo

app: setup ## Serve the app over checkpoints/ and runs/
	$(BIN)/aft-lens app

docs: setup ## Build guide and reference into build/docs; a warning is an error
	$(BIN)/mkdocs build --strict --quiet

results: setup ## Write docs/results.md from analyses/results/
	$(BIN)/python -m analyses.published

test: setup ## Run the tests, a process a processor
	$(BIN)/pytest -n auto --dist loadfile

robustness: setup ## Attack with kills and mutated inputs (an hour), and publish what came of it
	cd tests && ../$(BIN)/python -m robustness

mutants: setup ## Change the core a line at a time and see whether the tests notice (hours)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt mutmut
	$(BIN)/mutmut run

audit: ## Ask PyPI for known holes in what CI installs (needs the network)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement .ci/requirements.txt

check: setup ## Format, lint, types, import contracts and tests: what CI runs
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy aft_lens analyses app
	$(BIN)/lint-imports
	$(MAKE) test
