# Every command makes its own .venv first; the stamp makes a second run quick.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# More processes than two cores: half of the time they wait. worksteal: the long tests are side by side.
PYTEST_ARGS ?= -n 3 --dist worksteal -q

.PHONY: demo test lint types bench chaos docs clean

demo: $(STAMP)
	$(BIN)/prefect-lite demo

test: $(STAMP)
	$(BIN)/pytest $(PYTEST_ARGS) -m "not chaos"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python benchmarks/budgets.py

chaos: $(STAMP)
	HYPOTHESIS_PROFILE=full $(BIN)/pytest $(PYTEST_ARGS) --timeout 1800 tests/store tests/protocol
	$(BIN)/pytest -q -s -m chaos  # prints figures; CHAOS_RUNS, CHAOS_KILLS and CHAOS_SEED scale the longest

docs: $(STAMP)
	$(BIN)/pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prefect_lite needs Python 3.11 or newer; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@
