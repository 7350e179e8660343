# `make` lists the targets. Everything a target needs it installs into .venv first, from hash-pinned requirements.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
LISTEN_PORT ?= 8080

# The first interpreter that is new enough for mitmproxy 12 and can make a virtual environment.
define FIND_PYTHON
for python in python3.14 python3.13 python3.12 python3 /usr/bin/python3 /usr/local/bin/python3; do \
  "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && { echo "$$python"; exit; }; \
done
endef

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-17s %s\n", $$1, $$2 }'

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	@python="$(PYTHON)"; [ -n "$$python" ] || python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
	  echo "tokgate needs Python 3.12 or newer with the venv module (Debian: apt install python3 python3-venv)." >&2; \
	  echo "Found none; name one with: make PYTHON=/path/to/python3.13" >&2; exit 3; \
	fi; \
	echo "Setting up $(VENV) with $$python ($$("$$python" -V))" >&2; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready ## Make the virtual environment

.PHONY: setup-clickhouse
setup-clickhouse: $(VENV)/.ready ## Add ClickHouse (over 500 MB) for the tests that need it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-clickhouse.lock

.PHONY: run
run: $(VENV)/.ready ## Start an explicit proxy on 127.0.0.1:8080 with the shipped policies
	$(BIN)/tokgate run --mode gate:explicit --policies policies --log block.ndjson --listen-port $(LISTEN_PORT)

.PHONY: test
test: $(VENV)/.ready ## Run all tests (end-to-end ones skip, with a reason, where they can't run)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: check
check: format-check lint types policies test ## Everything that CI runs: format, lint, types, shipped policies, tests

.PHONY: format
format: $(VENV)/.ready ## Format the code
	$(BIN)/ruff format addons tests bench deploy
	$(BIN)/ruff check --fix --select I addons tests bench deploy

.PHONY: format-check
format-check: $(VENV)/.ready
	$(BIN)/ruff format --check addons tests bench deploy

.PHONY: lint
lint: $(VENV)/.ready ## Lint
	$(BIN)/ruff check addons tests bench deploy

.PHONY: types
types: $(VENV)/.ready ## Check types
	$(BIN)/mypy

.PHONY: policies
policies: $(VENV)/.ready ## Check the shipped policies and run the tests in them
	$(BIN)/tokgate check policies --quiet

.PHONY: schema
schema: $(VENV)/.ready ## Write schema/*.json and deploy/siem again from the models
	$(BIN)/tokgate schema policy > schema/policy.schema.json
	$(BIN)/tokgate schema log > schema/log.schema.json
	$(BIN)/python deploy/siem/generate.py > /dev/null

.PHONY: bench
bench: $(VENV)/.ready ## Compare with HAProxy, Squid, e2guardian and mitmproxy (root, some 25 minutes; writes bench/RESULTS.md)
	$(BIN)/python bench/decide.py
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/compare.py

.PHONY: bench-quick
bench-quick: $(VENV)/.ready ## Say what got slower than bench/results.json, by ratio to HAProxy (root, under two minutes)
	$(BIN)/python bench/compare.py --quick

.PHONY: lock
lock: $(VENV)/.ready ## Pin the requirements again (hashes, no addresses)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --group dev --output-file requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --group clickhouse --constraint requirements-dev.lock \
	  --output-file requirements-clickhouse.lock

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
