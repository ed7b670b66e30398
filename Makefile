# Everything a developer or CI does. `make` lists the targets; CONTRIBUTING.md says more.

VARIANT ?= release
TARGET  ?= glibc-$(shell uname -m)
RUNTIME ?= namespace
# Words for pytest: make test ARGS='tests/unit -k network'
ARGS    ?=
BENCH   ?=
JOBS    ?= $(shell nproc)

PY      := .venv/bin/python
IMAGES  := $(MAKE) --no-print-directory -C images -j$(JOBS)
DASHBOARD := app/dashboard
C_FILES := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup native native-all dashboard dashboard-or-not pictures images schemas run test test-asan test-postgresql test-hostless test-network test-host test-browser check check-python check-c \
        check-dashboard check-generated check-tree format bench bench-control bench-network bench-filesystem lock clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: VARIANT=release|debug|asan  TARGET=glibc-x86_64|…  RUNTIME=namespace|docker"
	@echo "           ARGS='words for pytest'  BENCH='names of figures'"

setup: ## install what is needed: Debian packages (as root), .venv from the lock file
	@./bootstrap.sh

native: setup ## build the elements' libraries for TARGET and VARIANT
	@$(IMAGES) TARGET=$(TARGET) VARIANT=$(VARIANT)

native-all: setup ## build them for every libc and machine: glibc, musl × x86_64, aarch64
	@for target in glibc-x86_64 musl-x86_64 glibc-aarch64 musl-aarch64; do \
	  echo "== $$target" && $(IMAGES) TARGET=$$target VARIANT=release || exit 1; done

dashboard: setup ## build the dashboard into build/dashboard; the server serves it under /
	@command -v npm >/dev/null || { echo "dashboard: needs Node.js 18.18 or newer and npm; 'make setup' as root installs them" >&2; exit 1; }
	@$(MAKE) --no-print-directory build/dashboard/index.html

# The API and the CLI are whole without it; the server's page says then how to build it.
dashboard-or-not: setup
	@$(MAKE) --no-print-directory dashboard || echo "dashboard: not built; going on without it" >&2

build/dashboard/index.html: schemas/openapi.json $(DASHBOARD)/node_modules/.package-lock.json \
        $(shell find $(DASHBOARD) -name node_modules -prune -o -name schema.d.ts -o -type f -print 2>/dev/null)
	@cd $(DASHBOARD) && npm run --silent build -- --logLevel warn

# No script of a package is run: none is needed.
$(DASHBOARD)/node_modules/.package-lock.json: $(DASHBOARD)/package-lock.json
	@echo "dashboard: installing the locked npm packages" >&2
	@cd $(DASHBOARD) && npm ci --ignore-scripts --silent && touch node_modules/.package-lock.json

images: native dashboard-or-not ## build the container images; starts Docker where none answers
	@images/docker.sh
	@docker compose build

schemas: setup ## make everything that is generated from the code anew
	@$(PY) -m app.schemas

run: native dashboard-or-not ## start the server and examples/two-webs.yaml; Ctrl-C removes all of it. RUNTIME=docker
	@if [ "$(RUNTIME)" = docker ]; then $(MAKE) --no-print-directory images; fi
	@.venv/bin/cse up -f examples/two-webs.yaml --runtime $(RUNTIME)

# Two pairs of runs beside each other, then browsers alone, whose tests measure frames; with ARGS all is one run.
HOSTLESS := not root and not docker and not browser
test: native dashboard-or-not ## all tests that this machine can run; the others say why they are skipped
	@$(IMAGES) TARGET=$(TARGET) VARIANT=debug network-lwip
	@images/docker.sh || echo "docker tests will be skipped" >&2
	@if docker info >/dev/null 2>&1; then docker compose build --quiet; fi
ifneq ($(ARGS),)
	@$(PY) -m pytest $(ARGS)
else
	@status=0; make="$(MAKE) --no-print-directory -k"; \
	  beside() { $$make $$1 >build/beside.log 2>&1 & $$make $$2 || status=1; wait $$! || status=1; cat build/beside.log; }; \
	  beside "test-hostless test-postgresql" test-asan; \
	  beside test-network test-host; \
	  $$make test-browser || status=1; exit $$status
endif

test-hostless: setup # units, the API over a fake host, file systems and clocks of programs
	@$(PY) -m pytest -m "$(HOSTLESS)"

test-network: setup # the network element over devices
	@$(PY) -m pytest -m "not ($(HOSTLESS))" tests/native

test-host: setup # containers, devices and rules of the host
	@$(PY) -m pytest -m "not ($(HOSTLESS)) and not browser" --ignore tests/native

test-browser: setup # the dashboard
	@$(PY) -m pytest -m browser

test-asan: setup # the native tests on libraries with address and undefined-behaviour sanitizers
	@$(IMAGES) TARGET=$(TARGET) VARIANT=asan
	@$(PY) -m pytest tests/native --variant asan

test-postgresql: setup # the store and the API on PostgreSQL in the place of SQLite
	@$(PY) -m pytest --store postgresql tests/unit/test_store.py tests/unit/test_upgrade.py \
	  tests/integration/test_api.py tests/integration/test_api_operations.py

check: check-python check-c check-dashboard check-generated check-tree ## linters, types, import contracts, formats, drift

check-python: setup
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo 2>/dev/null || .venv/bin/lint-imports

check-c: setup
	@.venv/bin/clang-format --dry-run -Werror $(C_FILES)
	@$(IMAGES) -k tidy

check-dashboard: setup
	@if command -v npm >/dev/null; then \
	  $(MAKE) --no-print-directory $(DASHBOARD)/node_modules/.package-lock.json && \
	  cd $(DASHBOARD) && npm run --silent check; \
	else echo "check-dashboard: no npm; left out" >&2; fi

check-generated: setup # schemas and reference pages are what the code says
	@$(PY) -m app.schemas --check

check-tree: setup # no host names of mirrors, no paths of this machine in tracked files
	@$(PY) -m pytest -q tests/unit/test_tree.py

format: setup ## apply the formats that `check` asks for
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix --select I
	@.venv/bin/clang-format -i $(C_FILES)
	@test ! -d $(DASHBOARD)/node_modules || { cd $(DASHBOARD) && npm run --silent format; }

bench: native ## measure; prints ratios and writes build/bench/*.json. BENCH='start network.memory' for some
	@$(PY) -m tests.bench $(BENCH)

bench-network: native ## the network element against the kernel and gVisor, with a plot. FIGURES='redis nginx' for some
	@$(PY) -m tests.bench $(or $(addprefix network.,$(FIGURES)),network)

bench-filesystem: native ## the file-system element against unpacked trees, squashfuse, ratarmount, gocryptfs. FIGURES='small calls'
	@$(PY) -m tests.bench $(or $(addprefix filesystem.,$(FIGURES)),filesystem)

bench-control: native ## the control plane at 1,000 applications: start, serve, list, read, memory, remove
	@$(PY) -m tests.bench control

pictures: native dashboard ## take README's pictures of the dashboard anew (docs/pictures)
	@$(PY) -m tests.browser.pictures

# One file for what runs and one for what develops; exact versions, every file by its hash.
lock: setup ## bring requirements.lock and requirements-dev.lock to the newest versions
	@test -x build/lock/bin/pip-compile || { python3 -m venv build/lock && build/lock/bin/pip install -q pip-tools; }
	@build/lock/bin/pip-compile -q --upgrade $(LOCK_OPTIONS) -o requirements.lock pyproject.toml
	@build/lock/bin/pip-compile -q --upgrade $(LOCK_OPTIONS) --extra dev -c requirements.lock \
	  -o requirements-dev.lock pyproject.toml
LOCK_OPTIONS := --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host --no-emit-options

clean: ## remove what was built; downloads and .venv stay
	@find build -mindepth 1 -maxdepth 1 ! -name downloads ! -name base -exec rm -rf {} + 2>/dev/null || true
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
