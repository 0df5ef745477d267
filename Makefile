# Two commands on a fresh Debian or Ubuntu: `make demo` and `make test`. Each does its own set-up, once.
# Needs: git, make, Python 3 with pip, Node 20 or later; root or sudo.

.POSIX:
.SUFFIXES:
SHELL = /bin/sh

# sandboxd drives gVisor as root.
SUDO = $$([ "$$(id -u)" = 0 ] || echo sudo -E)
EPHEMERAL = $(SUDO) .venv/bin/ephemeral
TEST_PACKAGES = chromium docker.io iproute2 mmdebstrap nftables openssl skopeo systemd umoci
COMPILE = .venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.13 --custom-compile-command "make lock"
DASHBOARD = sandboxd/ephemeral_sandboxd/dashboard/index.html

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' Makefile | expand -t 12

demo: build/services.stamp ## a dozen conversations: what stood ready, what was waited for, what it costs without us
	@$(MAKE) --no-print-directory -j2 dashboard setup
	@$(EPHEMERAL) demo

test: build/dev.stamp packages ## everything that CI runs
	@$(MAKE) --no-print-directory -j2 dashboard test-store
	@$(MAKE) --no-print-directory check
	@echo "== tests"
	@$(SUDO) .venv/bin/pytest

test-k2: build/dev.stamp ## what K2 must do for us, asked of the real one (some twenty questions): wants EPHEMERAL_K2_API_KEY
	@if [ -z "$$EPHEMERAL_K2_API_KEY" ]; then \
		echo "test-k2 asks the real K2 and needs a key for it. Set EPHEMERAL_K2_API_KEY=…" >&2; \
		echo "and, for another service than K2 Think's, EPHEMERAL_K2_BASE_URL, EPHEMERAL_K2_MODEL and EPHEMERAL_K2_EFFORT." >&2; \
		echo "Without a key the same tests run against a stand-in: .venv/bin/pytest tests/predictor/test_k2.py" >&2; \
		exit 2; \
	fi
	@EPHEMERAL_TEST_K2=live .venv/bin/pytest tests/predictor/test_k2.py

check: build/dev.stamp dashboard/node_modules/.stamp ## lint, types, contracts between the rooms, the dashboard's own tests
	@echo "== ruff"
	@.venv/bin/ruff check
	@echo "== mypy"
	@.venv/bin/mypy
	@echo "== contracts between the rooms"
	@.venv/bin/lint-imports
	@echo "== dashboard: eslint, tsc, vitest"
	@cd dashboard && npm run --silent lint && npm run --silent typecheck && npm test --silent

setup: build/services.stamp ## runsc, root filesystem, base environment (what `ephemeral setup` does)
	@echo "== sandboxes"
	@$(EPHEMERAL) setup

dashboard: dashboard/node_modules/.stamp ## build the dashboard where its sources changed
	@if [ -n "$$(find dashboard -name node_modules -prune -o -type f -newer $(DASHBOARD) -print 2>&1 | head -n 1)" ]; then \
		echo "== dashboard" && cd dashboard && npm run --silent build && touch ../$(DASHBOARD); \
	fi

TEST_STORE = $(SUDO) env EPHEMERAL_STATE=build/test EPHEMERAL_STORE=build/test/store EPHEMERAL_BASE=tests/base.txt .venv/bin/ephemeral

test-store: build/dev.stamp ## what the tests' sandboxes are made of: a small base environment, a second Python with Node, in build/test
	@echo "== the tests' sandboxes"
	@$(TEST_STORE) setup
	@$(TEST_STORE) rootfs add trixie --suite trixie --package nodejs

packages: build/dev.stamp
	@echo "== Debian packages: $(TEST_PACKAGES)"
	@$(SUDO) .venv/bin/python -m ephemeral_cli.setup.debian $(TEST_PACKAGES)

lock: build/dev.stamp ## resolve the requirements anew, hashes and all
	@$(COMPILE) --upgrade requirements/uv.in -o requirements/uv.txt
	@$(COMPILE) --upgrade pyproject.toml requirements/build.in --extra services -o requirements/services.txt
	@$(COMPILE) --upgrade pyproject.toml requirements/build.in --extra services --group dev -c requirements/services.txt -o requirements/dev.txt
	@if grep -n '://' requirements/*.txt; then echo "a lock names a registry: see above" >&2; exit 1; fi

clean: ## forget what was built here (not what setup made for the machine)
	@rm -rf build .venv dashboard/node_modules sandboxd/ephemeral_sandboxd/dashboard

build/services.stamp: requirements/services.txt pyproject.toml .ci/install
	@.ci/install services
	@touch $@

build/dev.stamp: requirements/dev.txt pyproject.toml .ci/install
	@.ci/install dev
	@touch $@ build/services.stamp

dashboard/node_modules/.stamp: dashboard/package-lock.json
	@echo "== Node packages"
	@.ci/node
	@cd dashboard && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: help demo test test-store test-k2 check setup dashboard packages lock clean
