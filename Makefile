# Everything a fresh machine needs is Python 3.11, make and a package index; for tests and payments in the demo Node.js 20.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PUBLISHERS := .venv-prices
NODE := simulated_chain/node_modules

.PHONY: demo test check bench faults fuzz-webhooks compare-prices compile-token lock clean

demo: $(INSTALLED) $(if $(findstring --payments,$(ARGS)),$(NODE))  ## a running gate with a simulated backend, a customer and a key
	@$(BIN)/tollgate demo $(ARGS)

test: $(INSTALLED) $(NODE) check  ## lint, types, layers, then every test
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## ratios, measured side by side
	$(BIN)/python -m bench $(ARGS)

faults: $(INSTALLED)  ## a load under faults drawn from a seed, then every charge against what was served
	$(BIN)/python -m tests.faults $(ARGS)

fuzz-webhooks: $(INSTALLED)  ## webhooks that nobody should believe, as many as ARGS="--inputs N" says
	$(BIN)/python -m tests.integration.payments.fuzzing $(ARGS)

compare-prices: $(INSTALLED) $(PUBLISHERS)/.installed  ## imported prices against the publishers' own calculators
	$(BIN)/python -m tests.price_lists.compare --python $(PUBLISHERS)/bin/python $(ARGS)

$(PUBLISHERS)/.installed: tests/price_lists/requirements.txt
	$(PYTHON) -m venv $(PUBLISHERS)
	$(PUBLISHERS)/bin/pip install --quiet --no-deps -r $<
	@touch $@

compile-token: $(INSTALLED)  ## the coin of the tests and the demo, from its source
	npm ci --prefix simulated_chain
	node simulated_chain/contracts/compile.mjs

# The EVM node of the tests and of `make demo ARGS=--payments`.
$(NODE): simulated_chain/package-lock.json
	@command -v npm >/dev/null || { echo "The tests and the demo of payments need an EVM node, and it needs Node.js 20 with npm"; exit 1; }
	npm ci --omit=dev --prefix simulated_chain
	@touch $@

lock:  ## pin every dependency by hash in requirements.lock
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --universal \
		--python-version 3.11 --custom-compile-command "make lock" --upgrade --quiet -o requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tollgate needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) $(NODE) .tollgate .pytest_cache .mypy_cache .ruff_cache .hypothesis
