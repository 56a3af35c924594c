# Every command makes its own .venv first; the stamp makes a second run quick.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# More processes than two cores: half of the time they wait. worksteal: the long tests are side by side.
PYTEST_ARGS ?= -n 4 --dist worksteal -q

.PHONY: demo test lint types bench budgets guard guard-update chaos docs clean

demo: $(STAMP)
	$(BIN)/prefect-lite demo

test: $(STAMP)
	$(BIN)/pytest $(PYTEST_ARGS) -m "not chaos"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

# QUICK=1: under four minutes, no report; ROUNDS=5; BENCH_ARGS: any of benchmarks/bench.py --help.
bench: $(BENCH_STAMP)
	$(BIN)/python benchmarks/bench.py $(if $(filter-out 0,$(QUICK)),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_ARGS)

budgets: $(STAMP)
	$(BIN)/python benchmarks/budgets.py

guard: $(STAMP)
	$(BIN)/python -m benchmarks.guard check

guard-update: $(STAMP)
	$(BIN)/python -m benchmarks.guard update --reason "$$REASON"

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

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@
