# `make help` lists the targets. They need nothing but a Python 3.11 to 3.13 (Debian: python3, python3-venv).
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON := $(VENV)/bin/python
LOCK := $(PYTHON) -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--only-binary :all: --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock'

EXTRAS := argocd aws azure flux gcp kubernetes vault

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: venv
venv: ## the locked virtual environment in .venv, with this checkout in it
	@python=$$(.ci/python) && .ci/venv "$$python" $(VENV) requirements-dev.lock

.PHONY: demo
demo: venv ## renders an example shop: the plan, the diff with values masked, the real run
	@PATH="$(abspath $(VENV))/bin:$$PATH" examples/shop/demo.sh

.PHONY: test
test: venv ## lint, types and tests, on every declared Python that is here and with the lowest dependencies
	@.ci/test $(VENV)

.PHONY: test-hosts
test-hosts: venv ## tests with the real Helm 3 and 4, Kubernetes API, Argo CD, Flux, Vault, SOPS, built by Go (cold: an hour)
	@$(PYTHON) tests/hosts/build.py
	@$(PYTHON) -m tests.hosts.image
	@env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest --quiet --numprocesses=4 --dist=loadgroup tests/hosts

.PHONY: test-long
test-long: venv ## the tests of random inputs, with twenty times as many of them
	@HYPOTHESIS_PROFILE=long $(PYTHON) -m pytest --quiet --numprocesses=2 -m hypothesis --ignore=tests/hosts tests
	@HYPOTHESIS_PROFILE=long $(PYTHON) -m pytest --quiet --numprocesses=2 tests/hosts/test_proof_go.py

.PHONY: bench
bench: venv ## speed and memory beside the peers: generated streams, stores behind a network, Argo CD; writes bench.json
	@$(PYTHON) -m tests.bench.run
	@$(PYTHON) -m tests.bench.stores
	@$(PYTHON) -m tests.bench.argocd

.PHONY: lint
lint: venv ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

.PHONY: format
format: venv ## ruff's formatter and its safe fixes
	@$(VENV)/bin/ruff check --fix-only --quiet . && $(VENV)/bin/ruff format .

.PHONY: lock
lock: venv ## the lock files from pyproject.toml; UPGRADE=--upgrade moves every version up
	@$(LOCK) $(UPGRADE) --extra all --group dev --output-file requirements-dev.lock
	@$(LOCK) $(UPGRADE) --extra all --group test --resolution lowest-direct --output-file requirements-lowest.lock
	@$(LOCK) --constraints requirements-dev.lock --output-file plugin/requirements.lock
	@for extra in $(EXTRAS); do \
		$(LOCK) --constraints requirements-dev.lock --extra $$extra \
			--output-file plugin/requirements-$$extra.lock || exit; \
	done
	@$(subst compile pyproject.toml,compile,$(LOCK)) $(UPGRADE) --constraints requirements-dev.lock --group image \
		--output-file requirements-image.lock

.PHONY: build
build: venv ## the wheel and the source archive, in dist/
	@$(PYTHON) -m build --quiet

.PHONY: clean
clean: ## removes what the other targets made here
	@rm -rf .venv .venv-* .venv.lock .venv-*.lock build dist bench.json plugin/*.egg-info plugin/.venv \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
