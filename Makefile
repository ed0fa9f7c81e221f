# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 100
SEED ?= 1
SECONDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help setup check format test test-containers test-pythons dist bench bench-drain bench-jobs bench-queue bench-scale bench-import demo experiments experiment-capacity fuzz simulate docs docs-serve protos lock terraform-check dashboard-pictures clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/.stamp: requirements/lock.txt requirements/xds.txt pyproject.toml scripts/setup.sh $(wildcard requirements/flavor-*.txt)
	@PYTHON="$(PYTHON)" scripts/setup.sh

setup: $(VENV)/.stamp ## Make .venv with everything (also done by the others when it is missing or stale)
	@PYTHON="$(PYTHON)" scripts/flavors.sh

check: setup ## Format, lint, types, import rules, generated code, issue numbers in commits
	@scripts/check.sh

format: setup ## Let ruff format and mend what it can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

terraform-check: setup ## Terraform's format and tests, then both examples applied to a moto server and destroyed; 6 minutes
	@scripts/terraform.sh check
	@SHOAL_TERRAFORM=full $(BIN)/python -m pytest -n 2 tests/terraform tests/integration/test_terraform.py

test: setup ## All tests: unit, property, integration with real ZooKeeper and real processes
	@scripts/test.sh $(ARGS)

fuzz: setup ## Random and mutated requests to every method of real services: make fuzz [SECONDS=300]
	@scripts/system.sh zookeeper
	@SHOAL_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q tests/fuzz

test-containers: setup ## Build the image, run 3 containers of each service, kill them under load; needs root, installs docker.io
	@scripts/system.sh zookeeper docker
	@scripts/wheels.sh
	@SHOAL_CONTAINERS=3 SHOAL_CONTAINER_JOBS=100 $(BIN)/python -m pytest tests/integration/test_containers.py tests/integration/test_compose.py $(ARGS)

test-pythons: setup ## Unit and SDK tests under each supported Python that is here, against the wheel
	@scripts/pythons.sh $(ARGS)

dist: setup ## An sdist and a wheel, into dist/
	@scripts/dist.sh

bench: setup ## Shoal against grpc's round robin, HAProxy and nginx: make bench [ARGS="--only latency"]
	@for each in zookeeper haproxy nginx; do \
	  scripts/system.sh $$each || echo "Without $$each, the rows that need it will be missing."; \
	done
	@$(BIN)/python -m benchmarks.paired $(ARGS)

bench-drain: setup ## Rolling restarts with retries off, into build/drain: how many calls fail
	@scripts/system.sh zookeeper
	@$(BIN)/python -m benchmarks.drain $(ARGS)

bench-jobs: setup ## No-op jobs beside Celery with Redis, into build/bench-jobs: rate, cost, losses
	@scripts/system.sh zookeeper redis
	@$(BIN)/python -m benchmarks.jobs $(ARGS)

bench-queue: setup ## A queue in ZooKeeper beside the registry's, into build/bench-queue: by how many jobs wait
	@scripts/system.sh zookeeper
	@$(BIN)/python -m benchmarks.queue $(ARGS)

demo: setup ## 100 real jobs while replicas and a host die: make demo [JOBS=100] [SEED=1]
	@scripts/system.sh zookeeper
	@$(BIN)/shoal demo --jobs $(JOBS) --seed $(SEED) --out build/demo

experiments: setup ## 1000 jobs under kills, upgrades, bad networks and without ZooKeeper; an hour: make experiments [SEED=1]
	@scripts/system.sh zookeeper
	@scripts/system.sh postgres
	@$(BIN)/shoal experiment failure --seed $(SEED)
	@$(BIN)/shoal experiment failure --seed $(SEED) --store postgres --out build/experiments/failure-postgres
	@$(BIN)/shoal experiment upgrade --seed $(SEED)
	@$(BIN)/shoal experiment partition --seed $(SEED)
	@$(BIN)/shoal experiment zookeeper-loss --seed $(SEED)
	@$(BIN)/shoal experiment ensemble --seed $(SEED)

experiment-capacity: setup ## How many jobs one replica of each service does, and three, and Celery; 20 minutes, machine to itself
	@scripts/system.sh zookeeper
	@$(BIN)/shoal experiment capacity --seed $(SEED)

bench-scale: setup ## 1000 replicas and 200 callers on one ZooKeeper, into build/scale; 6 minutes
	@scripts/system.sh zookeeper
	@$(BIN)/python -m benchmarks.scale $(ARGS)

bench-import: setup ## How long `import shoal` takes beside gRPC and kazoo alone, into build/bench-import
	@$(BIN)/python -m benchmarks.importing $(ARGS)

dashboard-pictures: setup ## Draw docs/dashboard-*.png in Chromium: a fleet under load, a kill, an upgrade, 300 replicas
	@scripts/system.sh zookeeper chromium
	@$(BIN)/python scripts/dashboard_pictures.py

simulate: setup ## The policies among 1000 replicas and callers on a virtual clock, into build/simulation
	@$(BIN)/python -m benchmarks.simulation $(ARGS)

# Strict: a link or an anchor that leads nowhere fails. Material's note about its successor is no warning of ours.
docs: setup ## The documentation, into build/site: open build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict
	@echo "build/site/index.html"

docs-serve: setup ## The documentation at http://127.0.0.1:8000, built again as you write
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

protos: ## Generate protos/gen from protos/
	@PYTHON="$(PYTHON)" scripts/protos.sh

lock: setup ## Pin the latest releases in requirements/
	@scripts/lock.sh

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
