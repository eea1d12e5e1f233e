# The two commands are `make demo` and `make test`; each sets up what it needs.
SHELL := /bin/bash
PY := .venv/bin/python
QUEUE ?=
CONFIG ?= hookmirror.toml

.PHONY: help env demo test soak compose-test check bench up lock clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

env: .venv/.complete ## Make the environment, .venv, from the hash-pinned lock file

.venv/.complete: requirements-dev.lock pyproject.toml deploy/env.sh
	@bash deploy/env.sh .venv requirements-dev.lock
	@touch $@

demo: env ## See it work: two S3 servers, a stand-in for MCS, live sync (QUEUE=amqp://... over RabbitMQ)
	@$(PY) -m demo $(if $(QUEUE),--queue '$(QUEUE)')

test: env ## Run every test, on a RabbitMQ node of its own
	@bash deploy/packages.sh rabbitmq-server prometheus shellcheck awscli nginx-light
	@$(PY) -m pytest -n 3 --dist worksteal $(ARGS)

soak: env ## Run the long tests: 1 000 events through 50 kills, a worker stopped for a minute, ...
	@bash deploy/packages.sh rabbitmq-server
	@$(PY) -m pytest -m soak tests/acceptance $(ARGS)

compose-test: ## The demo under docker-compose, with workers and the broker killed (needs a Docker engine)
	@python3 -m tests.compose

check: env ## Lint and type-check
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench: env ## Measure: hooks/s against a bare handler, objects/s against rclone
	@bash deploy/packages.sh rabbitmq-server
	@$(PY) -m bench $(ARGS)

up: env ## Receiver and worker in one process (CONFIG=hookmirror.toml)
	@$(PY) -m console up --config $(CONFIG)

lock: ## Pin the dependencies again (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    pyproject.toml -o requirements.lock
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra dev \
	    --no-emit-package hookmirror -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the environment and what tools left
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
