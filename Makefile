# Everything runs in a virtual environment of its own, which the first target that needs it makes.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt pyproject.toml $(wildcard python/parc/runtime/native/*)

.PHONY: help demo test lint lit pytest gpu format bench build clean

help: ## Print the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{printf "make %-8s %s\n", $$1, $$2}'

demo: build ## Compile real models, run them on real input, and compare with the reference
	$(BIN)/python examples/demo.py

test: build ## Run every check: linters, types, lit tests, Python tests
	@failed=; for check in lint lit pytest; do $(MAKE) --no-print-directory $$check || failed="$$failed $$check"; done; \
	  test -z "$$failed" || { echo "make test: failed:$$failed"; exit 1; }

lint: build ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lit: build ## Run the tests of the dialect, the passes and the tools
	$(BIN)/lit -sv test

pytest: build ## Run the Python tests
	$(BIN)/python -m pytest -q -n $(JOBS)

gpu: build ## With a GPU: run the GPU's tests on it, then NVIDIA's compute-sanitizer
	@$(BIN)/python test/gpu/sanitize.py --look
	PARC_TEST_TARGET=cuda $(BIN)/python -m pytest -q test/python/test_gpu_programs.py test/python/test_gpu_precision.py
	$(BIN)/python test/gpu/sanitize.py

format: build ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: build ## Time parc beside its peers
	$(BIN)/python benchmarks/rnn_cpu.py
	$(BIN)/python benchmarks/training.py

build: $(VENV)/parc.stamp ## Make the environment in .venv and build the native runtime

clean: ## Remove what the other targets made
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find test -name Output -type d -prune -exec rm -rf {} +

$(VENV)/requirements.stamp: requirements.txt requirements-models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "parc needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	touch $@

$(VENV)/parc.stamp: $(VENV)/requirements.stamp $(NATIVE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@
