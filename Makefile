# `make` prints what there is. Every target does its own set-up and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.seatrial-installed
# The tests and the servers that they start are hundreds of processes; without bytecode files each compiles all that it
# imports, which takes longer than the import.
export PYTHONDONTWRITEBYTECODE :=
SUDO   := $(if $(filter-out 0,$(shell id -u)),sudo)
# Two at a time: the tests start real servers and containers, and three overload two cores. One file stays in one
# process, because its tests share the services that it started; the files of few long tests come first.
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##

.PHONY: demo
demo: venv engine images ## Start everything, run the examples, print the URL (ONCE=1: end after the runs)
	$(BIN)/seatrial demo $(if $(ONCE),--once)

.PHONY: up
up: venv engine images ## Start Seatrial on your seatrial.toml
	$(BIN)/seatrial up

.PHONY: test
test: venv engine images browser testdeps lint ## Set up, lint and run every test
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder --hypothesis-profile=thorough --durations=40 --durations-min=5 tests

.PHONY: check
check: ## Exactly what CI does
	bash .ci/run

.PHONY: unit
unit: venv ## Run the unit tests alone (seconds, no services)
	$(PYTEST) -n 2 --dist worksteal tests/unit

.PHONY: lint
lint: venv ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: venv ## Let ruff put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: venv engine images benchtools browser ## Measure against the floors and print the table
	$(BIN)/python -m benchmarks

# Trials mostly wait: three go on beside each other, each on a server of its own. The scoreboard is measured alone.
SEEDS ?= 50
.PHONY: chaos
chaos: venv engine images testdeps ## Kill anything, with the times that people get (SEEDS=50), and print the scoreboard
	SEATRIAL_CHAOS_LONG=1 SEATRIAL_CHAOS_SEEDS=$(SEEDS) $(PYTEST) -n 3 --dist worksteal --timeout=3600 tests/chaos
	PYTHONPATH=.:tests $(BIN)/python tests/chaos/scoreboard.py

.PHONY: defences
defences: venv engine images testdeps ## Take out what guards each row of docs/reliability.md, and see its test fail (ROWS="A1 B7")
	$(BIN)/python tests/chaos/defences.py $(ROWS)

.PHONY: systemd-trial
systemd-trial: images ## Install and run the units of docs/systemd under a real systemd, in a container (10 minutes)
	tests/systemd/trial.sh

.PHONY: audit
audit: venv ## Look the pinned requirements up in the advisory database
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements-dev.txt

.PHONY: lock
lock: venv ## Pin the requirements anew from pyproject.toml (UPGRADE=1: to their newest versions)
	$(BIN)/uv pip compile --quiet $(LOCK) pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet $(LOCK) --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile --quiet $(LOCK) --group pyproject.toml:bench -o requirements-bench.txt
# No index and no command line in the files: they name hosts and paths of the machine that made them.
LOCK := --universal --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        $(if $(UPGRADE),--upgrade)

## Set-up

.PHONY: venv
venv: $(STAMP) ## Make .venv with the pinned requirements and the command `seatrial`

$(STAMP): requirements-dev.txt pyproject.toml docker/venv.sh
	@docker/venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

.PHONY: engine
engine: ## Make sure that a Docker engine answers (installs docker.io when there is none)
	@docker/engine.sh

.PHONY: images
images: engine ## Make seatrial/base:bookworm and seatrial/gateway:1 without a registry
	@docker/base-image.sh
	@docker/gateway-image.sh

.PHONY: browser
browser: ## Install Debian's Chromium and a font for the browser tests
	@docker/apt.sh "the browser tests" chromium=chromium fc-list=fontconfig /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf=fonts-dejavu-core

.PHONY: testdeps
testdeps: ## Install what else the tests use: xfsprogs (reflink clones), procps, iproute2, openssl
	@docker/apt.sh "the tests" mkfs.xfs=xfsprogs pgrep=procps ip=iproute2 openssl=openssl

.PHONY: benchtools
benchtools: venv ## Install datacompy, csv-diff and daff into .venv/bench, for `make bench` alone
	@docker/bench-tools.sh $(BIN)/uv $(VENV)/bench

.PHONY: app-image
app-image: engine ## Build seatrial/app:1 for docker/compose.yml
	@docker/app-image.sh
