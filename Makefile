# Each target does all set-up by itself; only Python 3.11+ and make are needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench results

help:
	@echo "make demo     draw blood smears, train ResNet-18, 50 and 152 on them, compare the three (6 to 11 minutes)"
	@echo "make test     run the tests"
	@echo "make lint     check format, style and types"
	@echo "make bench    measure speed, side by side with a plain loop and other trainers"
	@echo "make results DATA=folder WEIGHTS=file   train the networks of docs/results and write its pages (it resumes)"
	@echo "make install  make .venv with everything above in it"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Parfocal needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Name another: make PYTHON=python3.12")'
	@echo "Setting up .venv (once; some minutes)"
	@$(PYTHON) -m venv .venv
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --editable '.[dev,bench]'
	@touch $@

demo: $(READY)
	$(BIN)/parfocal demo

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/python -m benchmarks.rendering
	$(BIN)/python -m benchmarks.preparing
	$(BIN)/python -m benchmarks.training_loop
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.serving

# ONLY names pages, MINUTES limits the time: no run begins after it.
results: $(READY)
	@test -n "$(DATA)" -a -n "$(WEIGHTS)" || { echo "Name the data sets and the weights: make results DATA=folder WEIGHTS=resnet18.safetensors"; exit 2; }
	$(BIN)/python -m benchmarks.results_pages --data "$(DATA)" --weights "$(WEIGHTS)" $(if $(ONLY),--only $(ONLY)) $(if $(MINUTES),--budget-minutes $(MINUTES))
