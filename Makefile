# What a user and CI call. Everything that is needed goes into .venv; `make up` and `make test` make it if it is not there.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help setup up test check format generate wheel benchmarks constraints clean system-tools

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/.ready ## Make .venv with Lamplighter, the platform and the tools of development

# uv comes by pip into .venv itself, so that nothing else need be there: Debian's Python may lack even the venv module.
# Compiled at once: a first `lamp` would do it, or, under PYTHONDONTWRITEBYTECODE, every one (0.8 s for `lamp up`).
.venv/.ready: pyproject.toml constraints.txt hatch_build.py src/lamplighter/gateway/relay.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lamplighter needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target .venv/tools -c constraints.txt uv
	.venv/tools/bin/uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv
	VIRTUAL_ENV=.venv .venv/tools/bin/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[platform]' --group dev
	$(BIN)/python -m compileall -q src
	@touch $@

up: setup ## Start the platform here, in the foreground (options: make up ARGS="--port 8080")
	@$(BIN)/lamp up $(ARGS)

# In the order of pyproject.toml, and not files with many tests first: one long test would be alone at the end.
test: setup system-tools ## Run all tests (some of them: make test ARGS="tests/unit -k plan")
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# Pools for the btrfs and reflink drivers are made in loop files, a keychain is unlocked without a screen, the kernel leads
# connections past the gateway: that needs root and Debian's tools. strace shows that no key leaks.
TOOLS := mkfs.btrfs:btrfs-progs mkfs.xfs:xfsprogs gnome-keyring-daemon:gnome-keyring dbus-run-session:dbus \
  secret-tool:libsecret-tools strace:strace pgbouncer:pgbouncer nft:nftables ip:iproute2 gcc:gcc \
  javac:default-jdk-headless /usr/share/java/postgresql.jar:libpostgresql-jdbc-java

system-tools:
	@if [ "$$(id -u)" = 0 ]; then missing=""; \
	  for tool in $(TOOLS); do command -v "$${tool%%:*}" >/dev/null || test -e "$${tool%%:*}" || missing="$$missing $${tool#*:}"; done; \
	  if [ -n "$$missing" ]; then echo "Installing what tests need:$$missing"; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing libc6-dev >/dev/null; fi; fi

check: setup ## Lint, types, import rules, and whether what is generated is up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate_client.py --check
	$(BIN)/python tools/async_to_sync.py --check

generate: setup ## Write what is generated: the client's methods, and the client without async
	$(BIN)/python tools/generate_client.py
	$(BIN)/python tools/async_to_sync.py

format: setup ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup ## Build the wheel into dist/
	rm -rf dist && .venv/tools/bin/uv build --quiet --out-dir dist .

benchmarks: setup ## Measure, and write benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

constraints: setup ## Pin the newest versions that pyproject.toml allows
	.venv/tools/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --upgrade --all-extras --group dev pyproject.toml -o constraints.txt

clean: ## Remove what was built; the platform's data stays
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
