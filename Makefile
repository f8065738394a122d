# Everything a contributor runs. `make` alone lists it. Needs only make and a Python of 3.11 or later.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PYTHONS ?= 3.11 3.12 3.13
N ?= 100000
TESTERS ?= 2
PARALLEL := -n $(TESTERS) --dist worksteal
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready

# pyright comes whole in its wheels; this keeps it from asking the network for news of itself.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test servers check fuzz sim sim-cluster faults-cluster faults-registries bench test-all-pythons pythons build clean
.PHONY: check-style check-format check-mypy check-pyright check-layers check-generated

help: ## list these targets
	@echo "rpcfw: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=$(PYTHON) makes .venv at the first use (another one: make clean, then make TARGET PYTHON=python3.12)"

# ---------------------------------------------------------------------------------------------- the venv

# $(call make-venv,PYTHON,FOLDER): check the Python, make the folder's venv unless it is there, install into it.
define make-venv
	@version=$$($(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { \
	    echo "'$(1)' does not run here. Install Python 3.11 or later (Debian: apt-get install python3 python3-venv)," >&2; \
	    echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }; \
	echo "[1/3] checking $(1): Python $$version"; \
	$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python $$version is too old: rpcfw needs 3.11 or later. Name another: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	if ! $(1) -c 'import ensurepip, venv' 2>/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "      it has no venv module: apt-get install python$$version-venv"; \
	        apt-get update -qq </dev/null; \
	        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python$$version-venv </dev/null >/dev/null; \
	    else \
	        echo "Python $$version has no venv module. As root: apt-get install python$$version-venv" >&2; exit 1; \
	    fi; \
	fi
	@if $(2)/bin/python -m pip --version >/dev/null 2>&1; then echo "[2/3] $(2) is there"; \
	else echo "[2/3] creating $(2) ..."; $(1) -m venv --clear $(2); fi
	@echo "[3/3] installing rpcfw and its tools into $(2) (a minute or so) ..."
	@$(2)/bin/python -m pip install --quiet --no-input --editable '.[dev]'
	@touch $(2)/.ready
endef

$(READY): pyproject.toml
	$(call make-venv,$(PYTHON),.venv)

# -------------------------------------------------------------------------------------------- every day

demo: $(READY) ## search servers found through a registry: balanced, stopped, restarted, killed; a client that does not notice
	@$(BIN)/python -m examples.search.demo $(ARGS)

test: $(READY) servers ## the test suite, in TESTERS=2 processes (ARGS='-k breaker' to choose)
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

servers: ## etcd, redis and dnsmasq, which tests start for themselves
	@.ci/servers.sh

check: check-style check-format check-mypy check-pyright check-layers check-generated ## style, types, layers, generated code
	@echo "check: all clean"

check-style: $(READY)
	@echo "[1/6] ruff check"
	@$(BIN)/ruff check --quiet --output-format concise .

check-format: $(READY)
	@echo "[2/6] ruff format --check"
	@$(BIN)/ruff format --quiet --check --output-format concise . || { echo "Mend: $(BIN)/ruff format ." >&2; exit 1; }

check-mypy: $(READY)
	@echo "[3/6] mypy --strict"
	@$(BIN)/mypy

check-pyright: $(READY)
	@echo "[4/6] pyright"
	@$(BIN)/pyright

check-layers: $(READY)
	@echo "[5/6] lint-imports (the layers of docs/architecture.md)"
	@$(BIN)/lint-imports --no-logo

check-generated: $(READY)
	@echo "[6/6] rpcfw gen --check (the demo's stubs are what its contract generates)"
	@$(BIN)/rpcfw gen examples.search.contract -o examples/search/stubs --check

fuzz: $(READY) ## N mutated frames through the server's parser (N=1000000)
	@$(BIN)/python tests/fuzz/frames.py --frames $(N) $(ARGS)

SEEDS ?= 1000
JOBS ?= 2
sim: $(READY) ## the contract of calls on a simulated network under faults, over SEEDS=1000 seeds, JOBS=2 at a time
	@$(BIN)/python -m rpcfw sim run tests/sim/contract.py:scenario --seeds $(SEEDS) --jobs $(JOBS)

sim-cluster: $(READY) ## a simulated cluster under crashes, partitions, pauses and drift, over SEEDS=1000 seeds, JOBS=2 at a time
	@$(BIN)/python -m rpcfw sim run tests/sim/cluster.py:scenario --seeds $(SEEDS) --jobs $(JOBS)

ROUNDS ?= 20
KILLS ?= 50
faults-cluster: $(READY) ## real servers restarted (ROUNDS=20) and killed (KILLS=50) under load; no call may fail or run twice
	@$(BIN)/python -m tests.faults.cluster --rounds $(ROUNDS) --kills $(KILLS) $(ARGS)

faults-registries: $(READY) servers ## registries killed and started again (ROUNDS=3) under load; no call may fail
	@$(BIN)/python -m tests.faults.registries --rounds $(if $(filter 20,$(ROUNDS)),3,$(ROUNDS)) $(ARGS)

BENCHED := .venv/.bench-ready
RESULTS ?= benchmarks/results/$(if $(QUICK),quick,latest).json
PEERS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")
$(BENCHED): $(READY) pyproject.toml
	@echo "installing what rpcfw is compared with into .venv (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --no-input --editable '.[dev,bench]' || { \
	    echo "not all of it can be installed here; one by one ..."; \
	    $(BIN)/python -c '$(PEERS)' | while read -r package; do \
	        $(BIN)/python -m pip install --quiet --no-input "$$package" </dev/null || echo "going on without $$package"; \
	    done; }
	@touch $@

bench: $(BENCHED) ## rpcfw, its peers and the limits in one run of 10 minutes (QUICK=1: under 2; COMPARE=old.json; ARGS)
	@.ci/servers.sh benchmark || echo "going on without them; what needs them is named at the end"
	@$(BIN)/python -m benchmarks --json $(RESULTS) $(if $(QUICK),--quick) $(if $(COMPARE),--compare $(COMPARE)) $(ARGS)

# ----------------------------------------------------------------------------------------- every release

# $(call find-python,3.12): the newest 3.12 of pyenv, or python3.12 on the PATH if it runs; empty when there is neither.
find-python = $(shell for python in $$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(1).*/bin/python 2>/dev/null | sort -rV) python$(1); \
    do if $$python -c '' 2>/dev/null; then echo $$python; break; fi; done)

pythons: ## the Pythons that test-all-pythons would use
	@$(foreach v,$(PYTHONS),python=$(call find-python,$(v)); \
	    if [ -z "$$python" ]; then missing="$${missing:-} $(v)"; else printf '  %-6s %s\n' $(v) $$python; fi;) \
	for v in $${missing:-}; do \
	    echo "Python $$v is not here: pyenv install $$v (or apt-get install python$$v python$$v-venv)," >&2; \
	done; \
	[ -z "$${missing:-}" ] || { echo "or leave it out: make test-all-pythons PYTHONS='3.11 ...'" >&2; exit 1; }

.venv-%/.ready: pyproject.toml
	$(call make-venv,$(call find-python,$*),.venv-$*)

test-all-pythons: pythons servers $(foreach v,$(PYTHONS),.venv-$(v)/.ready) ## the test suite on each of PYTHONS
	@mkdir -p build; failed=0; summary=; \
	for v in $(PYTHONS); do \
	    printf '\nPython %s\n' $$v; start=$$SECONDS; result=ok; \
	    .venv-$$v/bin/python -m pytest $(PARALLEL) $(ARGS) 2>&1 | tee build/test-$$v.log || { result=FAILED; failed=1; }; \
	    closing=$$(tail -n 1 build/test-$$v.log | sed 's/^=* *//; s/ *=*$$//'); \
	    summary+=$$(printf '  %-8s %-7s %5d s   %s' $$v $$result $$((SECONDS - start)) "$$closing")$$'\n'; \
	done; \
	printf '\n  %-8s %-7s %7s   %s\n%s' Python result time 'pytest said' "$$summary"; \
	exit $$failed

build: $(READY) ## the wheel and the source archive, in dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . >build.log 2>&1 || { cat build.log >&2; rm -f build.log; exit 1; }
	@rm -f build.log; ls -l dist | awk 'NR > 1 { printf "  %8d bytes  dist/%s\n", $$5, $$9 }'

clean: ## remove the venvs and everything made
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
