# `make demo` is the whole product in one command; `make test` checks it. See README.md.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
STAMP := $(VENV)/.installed
# dvc starts `gapbridge` by name
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DO_NOT_TRACK := 1

.PHONY: setup demo digits controls stack stack-stop stack-status deploy test test-all test-stack lint lock

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $$(grep -c '==' requirements.lock) packages into $(VENV) (a few minutes the first time)"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements.lock \
		| { grep --line-buffered -E '^(Collecting|Installing)' || true; } | cut -c 1-100
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@python -m flows.train

digits: setup
	@python examples/digits/prepare.py
	@gapbridge profile digits
	@python -m flows.train

controls: setup
	@python perf/controls.py --seeds 0 1 2 --work $(or $(WORK),../gapbridge-controls)

# PORTS="mlflow=5001 s3=9001" chooses ports; they are remembered
stack: setup
	@python -m infra.stack up $(addprefix --port ,$(PORTS))

stack-stop: setup
	@python -m infra.stack down

stack-status: setup
	@python -m infra.stack status

deploy: setup
	@python -m infra.stack deploy

test: setup
	@python -m pytest

test-all: setup
	@python -m pytest -m ""

test-stack: setup
	@python -m pytest -m stack

lint: setup
	@ruff check . && ruff format --check . && lint-imports && mypy

lock:
	@uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-strip-extras \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements.lock
