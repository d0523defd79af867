# Each target does its own set-up in .venv, and does it again only when requirements.lock or pyproject.toml has changed.
# Needs make, a POSIX shell, Python 3.11, 3.12 or 3.13 and a package index that pip can reach. Without make: see README.md.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Another interpreter: make test PYTHON=python3.12. Otherwise the first that is in range.
PYTHON ?=

# Byte code is kept in the environment, where PYTHONDONTWRITEBYTECODE is set as well: without it every process that tests
# start compiles anew whatever it imports, and the suite takes half as long again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(abspath $(VENV))/bytecode

.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos conformance paper soak year lint bench lock lock-conformance clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' Makefile

setup: ## make .venv from requirements.lock (hashes checked, wheels only) and install pmkit into it
	@sh .ci/setup "$(VENV)" "$(PYTHON)"

demo: setup ## bots on local venues, dry-run, two rollovers on each venue: no key, no network, under a minute
	$(BIN)/python -m examples.demo $(ARGS)

# Three workers: some tests wait for processes, and two would leave the cores idle meanwhile.
test: setup ## all tests on two cores, offline; one of them: make test ARGS='-n 0 -k import'
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not conformance" \
		--ignore tests/conformance $(ARGS)

# More: make chaos ARGS='--virtual 2000 --real 100'; one seed again: ARGS='--seeds v17'; the naive variants: ARGS=--naive
chaos: setup ## whole bots on local venues under seeded faults, in virtual time and on real sockets
	$(BIN)/python -m tests.chaos $(or $(ARGS),--virtual 60 --real 4)

conformance: setup ## official and peer clients read the local venues; they get an environment of their own
	venv=$$(sh .ci/setup-conformance) && PMKIT_CONFORMANCE_VENV=$$venv \
		$(BIN)/python -m pytest -n 2 --dist load -m conformance tests/conformance $(ARGS)

# Another seed, fewer orders: ARGS='--seed 2 --orders 200 --takers 50'; traders that react: ARGS='--orders 200 --reacting'
paper: setup ## the same orders live and dry-run on two local venues of one seed: fills, queue band, money of sessions
	$(BIN)/python -m tests.paper.compare $(or $(ARGS),--orders 1000 --takers 300 --sessions 4)

soak: setup ## 10,000 random orders on each venue, answers lost, the trading process killed: ARGS='--seed 2 --intents 500'
	@for file in tests/soak/*_orders.py tests/soak/*_frames.py; do \
		echo "== $$file"; $(BIN)/python -m tests.soak.$$(basename $$file .py) $(ARGS) || exit 1; \
	done

year: setup ## Kalshi's finder over a year of 15-minute boundaries in virtual time, some minutes: ARGS='--days 30'
	$(BIN)/python -m tests.kalshi.year $(ARGS)

lint: setup ## ruff, the clock lint, the layer test, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/python -m tests.lint.clock_lint pmkit examples
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_clock_lint.py
	$(BIN)/mypy --strict pmkit/

bench: setup ## the benchmarks, each beside its peers in the same run
	@for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) $(ARGS) || exit 1; \
	done

# Versions stay as they are unless pyproject.toml asks otherwise; make lock ARGS=--upgrade takes newer ones. What was
# released within the last week is left out: a poisoned release is usually found by then.
lock: setup ## write requirements.lock anew
	$(BIN)/python -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --only-binary :all: uv==0.13.8
	$(VENV)/lock/bin/uv pip compile pyproject.toml --extra dev --extra sim --extra bench --quiet \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
		--exclude-newer "$$($(BIN)/python -c 'import datetime as d; print(d.date.today() - d.timedelta(days=7))')" \
		--custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

lock-conformance: setup ## write the lock of the clients' environment anew, as above
	$(BIN)/python -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --only-binary :all: uv==0.13.8
	$(VENV)/lock/bin/uv pip compile conformance/requirements.in --quiet \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
		--exclude-newer "$$($(BIN)/python -c 'import datetime as d; print(d.date.today() - d.timedelta(days=7))')" \
		--custom-compile-command "make lock-conformance" --output-file conformance/requirements.lock $(ARGS)

clean: ## remove .venv and the caches; logs and trades stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pmkit tests examples benchmarks conformance -name __pycache__ -type d -prune -exec rm -rf {} +
