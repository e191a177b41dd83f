# Everything a person does here, by name. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help install demo up down test crash year bench scheduler beyond check format lock clean

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
venv   := .venv
bin    := $(venv)/bin

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

# Two stamps: what is locked is installed (the lock is whole, so pip need not resolve anything), and
# the project itself over it.
install: $(venv)/.installed ## set everything up in .venv (the other commands do this by themselves)

$(venv)/.locked: requirements-dev.lock
	@echo "setting up $(venv): a minute or so, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvitt needs Python 3.11 or later; try: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear $(venv)
	@$(bin)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-dev.lock
	@touch $@

$(venv)/.installed: $(venv)/.locked pyproject.toml
	@$(bin)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## the main job from end to end on real parts, then everything down again
	@$(bin)/python -m sandbox demo

up: install ## the same parts, left running
	@$(bin)/python -m sandbox up

down: ## stop what `make up` started
	@if [ -x $(bin)/python ]; then $(bin)/python -m sandbox down; else echo "nothing is up"; fi

test: install ## all tests, the fast ones first
	@$(bin)/python -m pytest

# TRIALS=200 SEED=5 VENDOR=xledger SETTLE=0 FAULT='kill -9' ONLY=123 QUICK=1 RUSH=0 CROWD=0: any of
# them, or none. The last line of its output is JSON.
crash: install ## break everything, everywhere, and count what is in the books (20 minutes)
	@$(bin)/python -m tests.crash $(if $(TRIALS),--trials $(TRIALS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(VENDOR),--vendor $(VENDOR)) $(if $(SETTLE),--settle $(SETTLE)) \
		$(if $(FAULT),--fault '$(FAULT)') $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) \
		$(if $(WORKERS),--workers $(WORKERS)) $(if $(RUSH),--rush $(RUSH)) $(if $(CROWD),--crowd $(CROWD))

# VOUCHERS=20000 SEED=1 VENDOR=xledger: any of them, or none.
year: install ## a year of 20,000 vouchers to each vendor, audited to the øre (5 minutes)
	@$(bin)/python -m tests.year $(if $(VOUCHERS),--vouchers $(VOUCHERS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(VENDOR),--vendor $(VENDOR))

scheduler: install ## the second scheduler on a real pg_cron, PERIODS=20 minutes and a stopped Prefect
	@$(bin)/python -m tests.scheduler $(if $(PERIODS),--periods $(PERIODS))

# INTEGRATIONS=20. The last line of its output is JSON.
beyond: install ## two Prefect servers, three workers; one of each goes down in the middle (10 minutes)
	@$(bin)/python -m tests.beyond $(if $(INTEGRATIONS),--integrations $(INTEGRATIONS))

# ONLY='drift': one of them. The last line of its output is JSON.
bench: install ## measure, on real parts and two cores (30 minutes)
	@$(bin)/python -m benchmarks $(ONLY)

check: install ## format, lint, types, import rules
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/lint-imports
	@$(bin)/basedpyright

format: install ## put the code into its format
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

lock: ## renew both locks from pyproject.toml
	@$(bin)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header pyproject.toml --output-file requirements.lock
	@$(bin)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraint requirements.lock --extra dev pyproject.toml --output-file requirements-dev.lock

clean: down ## remove what `make` made
	@rm -rf $(venv) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
