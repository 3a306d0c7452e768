# Every target bootstraps itself on a machine that has Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
RUN_LOCK := $(VENV)/.run-$(shell cksum < requirements/run.txt | cut -d' ' -f1)
DEV_LOCK := $(VENV)/.dev-$(shell cksum < requirements/dev.txt | cut -d' ' -f1)

.PHONY: help env dev-env run test check format bench torture suites lock

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

env: $(RUN_LOCK) ## The environment in .venv

dev-env: $(DEV_LOCK)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# The stamp's name holds the lock's checksum: a changed lock is installed again, an unchanged one never.
$(RUN_LOCK): $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@rm -f $(VENV)/.run-* && touch $@

$(DEV_LOCK): $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@rm -f $(VENV)/.dev-* $(VENV)/.run-* && touch $@ $(RUN_LOCK)

run: env ## Start everything: broker, gateway, console, monitor, worker
	$(BIN)/python manage.py up

test: dev-env ## Every test
	tests/run

check: dev-env ## Format, lint, types, import contracts, templates, translations
	tests/check

format: dev-env ## Format the code and the templates
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/djlint templates --reformat --quiet

bench: dev-env ## Measure, beside the peers found on this machine
	$(BIN)/python -m bench

torture: dev-env ## The long crash, corruption and fuzz runs
	$(BIN)/pytest -m torture tests -p no:randomly

suites: dev-env ## Other projects' integration suites for their Kafka clients, against the embedded broker
	$(BIN)/python -m tests.acceptance.suites.run

lock: dev-env ## Resolve the dependencies of pyproject.toml into hashed requirements
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --extra postgres --extra redis pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --extra postgres --extra redis --group dev pyproject.toml -c requirements/run.txt -o requirements/dev.txt
