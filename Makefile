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

PYTEST = $(BIN)/python -m pytest
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What runs: tokgate with its extras, and what builds it. `make run` needs no more.
$(VENV)/.runtime: requirements.lock deploy/requirements-build.lock pyproject.toml
	@python="$(PYTHON)"; [ -n "$$python" ] || python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
	  echo "tokgate needs Python 3.12 or newer with the venv module (Debian: apt install python3 python3-venv)." >&2; \
	  echo "Found none; name one with: make PYTHON=/path/to/python3.13" >&2; exit 3; \
	fi; \
	echo "Setting up $(VENV) with $$python ($$("$$python" -V))" >&2; \
	"$$python" -m venv --clear $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements.lock -r deploy/requirements-build.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# What develops, beside it: the same versions of what both lock.
$(VENV)/.ready: $(VENV)/.runtime requirements-dev.lock
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready ## Make the virtual environment, for development

.PHONY: setup-clickhouse
setup-clickhouse: $(VENV)/.ready ## Add ClickHouse (over 500 MB) for the tests that need it
	@$(PIP_INSTALL) --require-hashes -r requirements-clickhouse.lock

.PHONY: run
run: $(VENV)/.runtime ## Start an explicit proxy on 127.0.0.1:8080 with the shipped policies
	$(BIN)/tokgate run --listen-port $(LISTEN_PORT)

.PHONY: test
test: $(VENV)/.ready $(if $(TOKGATE_REQUIRE_E2E),setup-clickhouse) ## Run all tests (end-to-end ones skip, with a reason, where they can't run), or PYTEST_ARGS
ifdef PYTEST_ARGS
	$(PYTEST) $(PYTEST_ARGS)
else
	$(PYTEST) $(SIDE_BY_SIDE)
endif

# Five processes on two cores: half of the time of tests is waiting. Each has namespaces, servers and ports of its own, and runs
# a file whole, since tests share what their module has set up.
SIDE_BY_SIDE := -n 5 --dist loadfile --no-loadscope-reorder

.PHONY: check
check: format-check lint policies ## Everything that CI runs: format, lint, types, shipped policies, all tests
	@$(MAKE) --no-print-directory -j 2 types test  # side by side: mypy has one thread, and tests wait half of their time

# Percent of lines and branches that tests reach in their own process, without those in network namespaces: half a percent and more
# below what was measured on 2026-11-27, since random inputs reach more or less. Much of `service` runs in processes of its own, and
# much of gate/quic and `gateway` in network namespaces: what is reached there is not counted. Tracing doubles the time of tests.
COVERAGE_FLOORS := policy:98.9 wire:99.4 config:98.2 blocklog:98.4 accounts:98.9 traffic:98.1 gate:98.3 block_page:97.8 \
  runtime:91.6 mitm:94.2 gateway:89.5 service:58.5 analytics:96.1 webui:97.1 cli:93.5

.PHONY: coverage
coverage: $(VENV)/.ready ## Run all but the end-to-end tests; fail where a package is covered less than it was
	$(PYTEST) $(SIDE_BY_SIDE) --ignore tests/evasion --ignore tests/e2e --ignore tests/drills --cov --cov-report=
	@low=0; for floor in $(COVERAGE_FLOORS); do \
	  total=$$($(BIN)/coverage report --include "addons/tokgate/$${floor%:*}/*" --format total) || exit 1; \
	  printf '%-12s %6s %%, floor %s\n' "$${floor%:*}" "$$total" "$${floor#*:}"; \
	  awk "BEGIN { exit !($$total < $${floor#*:}) }" && low=1; \
	done; exit $$low

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
	$(BIN)/tokgate check policies

.PHONY: schema
schema: $(VENV)/.ready ## Write schema/*.json from the models, and deploy/siem from its rules
	$(BIN)/tokgate schema policy > schema/policy.schema.json
	$(BIN)/tokgate schema log > schema/log.schema.json
	$(BIN)/tokgate schema --json-outputs schema/json
	$(BIN)/python deploy/siem/generate.py > /dev/null

.PHONY: man
man: $(VENV)/.ready ## Write the manual page again from the commands' options
	COLUMNS=100 SOURCE_DATE_EPOCH=1795651200 $(BIN)/argparse-manpage --module tokgate.cli.setup.completion --function whole_parser \
	  --project-name tokgate --prog tokgate --manual-title tokgate --format single-commands-section \
	  --description 'transparent HTTPS egress filter' --include deploy/man/exit-status.txt --output deploy/man/tokgate.1

.PHONY: pictures
pictures: $(VENV)/.ready ## Take the pictures in docs/pictures of the running product again, with chromium
	PYTHONPATH=tests $(BIN)/python deploy/pictures.py

SITE := build/site
SITE_PAGES = README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md bench/*.md certs deploy docs policies schema

.PHONY: docs
docs: $(VENV)/.ready ## Build a searchable site from the documentation, for `python3 -m http.server -d build/site`; nothing is fetched
	rm -rf $(SITE) $(SITE)-source && mkdir -p $(SITE)-source/pages
	cp -r --parents $(SITE_PAGES) $(SITE)-source/pages
	sed -i -E 's/^(```[a-z]+) .*/\1/' $$(find $(SITE)-source -name '*.md')  # what tests read behind the language
	cp docs/site/mkdocs.yml $(SITE)-source
	$(BIN)/zensical build --strict --config-file $(SITE)-source/mkdocs.yml
	mv $(SITE)-source/site $(SITE)

.PHONY: fuzz
fuzz: $(VENV)/.ready ## Make first bytes up for SECONDS (60), and ask real servers for what tokgate would let through
	cd tests && ../$(BIN)/python -m evasion.fuzz --seconds $(or $(SECONDS),60)

.PHONY: drills
drills: $(VENV)/.ready ## Try what fails in operation: starts, kills, crowds, black holes (root; docs/drills.md)
	$(PYTEST) tests/drills

.PHONY: soak
soak: $(VENV)/.ready ## Run under load for SECONDS (1800), and kill each process 200 times; fail where anything grows or is lost
	$(BIN)/python bench/soak.py --seconds $(or $(SECONDS),1800)
	TOKGATE_KILLS=200 TOKGATE_TEST_RESTARTS=10 TOKGATE_TEST_RELOADS=10 $(PYTEST) \
	  tests/service/test_gate_process.py tests/service/test_program_change.py tests/e2e/test_timing.py


# mutmut works on a copy, so that a fault never stands in the work tree. What tests start as processes takes the copy too.
PACKAGE ?= wire
MUTANTS = build/mutants/$(PACKAGE)
FAULTS ?= *__mutmut_3

.PHONY: mutants
mutants: $(VENV)/.ready ## Put faults into PACKAGE (wire): of each function the third, or FAULTS='*' for all; say which TESTS (tests/PACKAGE) miss
	mkdir -p $(MUTANTS) && git ls-files -z --deduplicate | xargs -0 cp --parents --update --target-directory $(MUTANTS)
	mkdir -p $(MUTANTS)/mutants/src && ln -sfn addons $(MUTANTS)/src && ln -sfn src $(MUTANTS)/mutants/addons
	sed -e 's|PACKAGE|$(PACKAGE)|' -e 's|"TESTS"|$(foreach part,$(or $(TESTS),tests/$(PACKAGE)),"$(part)",)|' pyproject.toml >$(MUTANTS)/pyproject.toml
	cd $(MUTANTS) && PYTHONPATH=$(abspath $(MUTANTS)/mutants/src):$(abspath tests/labs/mutants) $(abspath $(BIN))/mutmut run 'tokgate.$(PACKAGE).$(FAULTS)' >run.log || { tail run.log; exit 1; }
	cd $(MUTANTS) && $(abspath $(BIN))/mutmut results --all true | \
	  awk -F ': ' '$$2 != "not checked" { all[$$2]++; if ($$2 != "killed") print } END { for (each in all) print all[each], each }'

.PHONY: bench
bench: $(VENV)/.ready ## Compare with HAProxy, Squid, e2guardian and mitmproxy (root, some 25 minutes; writes bench/RESULTS.md)
	$(BIN)/python bench/decide.py
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/compare.py

.PHONY: bench-quick
bench-quick: $(VENV)/.ready ## Say what got slower than bench/results.json, by ratio to HAProxy (root, under two minutes)
	$(BIN)/python bench/compare.py --quick

.PHONY: compat
compat: $(VENV)/.ready ## Try real clients, raw HTTP and first words beside HAProxy and Squid (root, some 12 minutes; writes docs/compat.md)
	$(BIN)/python bench/compatibility.py

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
  --no-annotate --custom-compile-command 'make lock'

.PHONY: lock
lock: $(VENV)/.ready ## Pin the requirements again (hashes, no addresses)
	$(COMPILE) --extra all --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra all --group dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file deploy/requirements-build.lock
	$(COMPILE) --group clickhouse --constraint requirements-dev.lock --output-file requirements-clickhouse.lock

DIST ?= dist
SBOM = $(BIN)/python deploy/sbom.py

.PHONY: release
release: $(VENV)/.ready ## Build wheel, source archive, SBOM (CycloneDX) and SHA256SUMS in dist/; the same source gives the same octets
	rm -rf $(DIST) && mkdir -p $(DIST)
	$(BIN)/python -m hatchling build --directory $(DIST) 2> /dev/null
	$(SBOM) $(VENV) $(DIST)/tokgate.cdx.json requirements.lock
	cd $(DIST) && sha256sum * > SHA256SUMS

.PHONY: audit
audit: $(VENV)/.ready ## Say which pinned requirements have known vulnerabilities (asks PyPI); fail where one can't be looked up
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

.PHONY: publish-check
publish-check: release docs deb image ## Build wheel, source archive, package, image and site, and try each in an empty place (root; docs/release.md)
	$(PYTEST) tests/test_wheel.py tests/deploy/test_release.py tests/deploy/test_site.py

.PHONY: package
package: $(VENV)/.ready ## Build the Debian package and its SBOM in dist/ (python3.13-venv)
	deploy/deb/build.sh $(DIST)
	rm -rf build/deb && mkdir -p build/deb && dpkg-deb -x $$(ls -t $(DIST)/tokgate_*.deb | head -n 1) build/deb
	$(SBOM) build/deb/opt/tokgate $(DIST)/tokgate-deb.cdx.json

.PHONY: deb
deb: package ## Build the Debian package, and try it in a Debian of its own (root, mmdebstrap; systemd-container to boot it)
	TOKGATE_DEB=$$(ls -t $(DIST)/tokgate_*.deb | head -n 1) $(PYTEST) tests/deploy/test_package.py

.PHONY: image
image: $(VENV)/.ready ## Build the container image without a registry, its SBOM in dist/, and try it (root, buildah, netavark, mmdebstrap); BASE=IMAGE for another base
	BASE=$(BASE) deploy/image/build.sh tokgate
	mkdir -p $(DIST) && container=$$(buildah from tokgate) && \
	  $(SBOM) $$(buildah mount $$container)/opt/tokgate $(DIST)/tokgate-image.cdx.json; code=$$?; buildah rm $$container > /dev/null; exit $$code
	TOKGATE_IMAGE=tokgate $(PYTEST) tests/deploy/test_image.py

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
