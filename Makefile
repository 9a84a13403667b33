# `make help` lists the targets. Everything happens in .venv; a second call does only what is left to do.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# More arguments for pip, such as --extra-index-url URL where a torch without CUDA is at hand.
PIP_ARGS ?=
# Also the tools that build the package in isolation are pinned (pip reads the first variable up to 25, the second after).
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
# Tests wait more than they compute: two processes share them, by file.
TEST_PROCESSES ?= 2
# Of `make images`: such as IMAGES="gateway operator" IMAGE_ARGS="--debian bookworm"; all by default.
IMAGES ?=
IMAGE_ARGS ?=
# A longer campaign: make test-faults FAULT_EVENTS=1000 FAULT_SECONDS=3600
FAULT_EVENTS ?= 1000
FAULT_SECONDS ?= 300
INSTALL = $(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable
INPUTS := pyproject.toml constraints.txt hatch_build.py $(wildcard protos/wan22/*/*.proto)
SOURCES := services/common/wan22 services/gateway/wan22_gateway services/inference/wan22_inference \
	services/model-registry/wan22_registry operator/wan22_operator testing/wan22_testing bench/wan22_bench cli/wan22_cli

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults faults test-long test-gpu verify kube-bin node-bin keda-bin cert-manager-bin traefik-bin images \
	cluster-up cluster-down test-cluster \
	lint checkov format proto constraints clean

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo
	@echo "torch from PyPI brings CUDA: 6 GB installed. For a build without it:"
	@echo '  make demo PIP_ARGS="--extra-index-url URL"'

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv is on PATH: install one, or set PYTHON=."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.local: .venv/bin/python $(INPUTS)
	@echo "Installing wan22 and what it runs on into .venv. The first time this downloads torch, of several GB."
	@$(INSTALL) '.[local]'
	@touch $@

.venv/.dev: .venv/.local $(INPUTS)
	@echo "Installing what the tests and linters need."
	@$(INSTALL) '.[local,operator,dev]'
	@touch $@

setup: .venv/.dev ## Installs everything into .venv

demo: .venv/.local ## Sets up, starts all services, makes one video and stops them again
	@$(BIN)/python tools/demo.py demo.mp4

test: setup ## Runs the tests, with coverage; not those that need a GPU, a Kubernetes node or minutes
	@$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations 30 \
		-m "not gpu and not node and not long"
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-faults: setup ## Runs the fault tests, then a campaign of random faults for FAULT_SECONDS (300), which prints its seed
	$(BIN)/python -m pytest tests/faults
	@$(MAKE) --no-print-directory faults

faults: setup ## Runs a campaign of random faults alone
	$(BIN)/python -m wan22_bench.faults --events $(FAULT_EVENTS) --seconds $(FAULT_SECONDS)

test-long: setup ## Runs the tests that take minutes each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long and not gpu and not node"

test-gpu: setup ## Runs the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

# Without a GPU its tests would fail, not be skipped: who asks for them wants them.
verify: lint checkov test test-long test-faults test-cluster $(if $(wildcard /dev/nvidiactl),test-gpu) ## Runs all of these, for hours

kube-bin: setup ## Builds the Kubernetes programs that cluster tests run, once; takes Go and 5 to 10 minutes
	@$(BIN)/python tools/kube_bin.py

images: setup ## Builds the images into build/images by buildah, as IMAGES="TARGET…" and IMAGE_ARGS say (docs/images.md)
	@$(BIN)/python tools/build_images.py $(IMAGE_ARGS) $(IMAGES)

node-bin: kube-bin ## Builds the programs of a Kubernetes node, once; takes Go and 3 to 6 minutes
	@$(BIN)/python tools/kube_bin.py node

keda-bin: kube-bin ## Builds KEDA, once; takes Go and 7 minutes
	@$(BIN)/python tools/kube_bin.py keda

cert-manager-bin: kube-bin ## Builds cert-manager, once; takes Go and 9 minutes on a busy machine
	@$(BIN)/python tools/kube_bin.py cert-manager

traefik-bin: kube-bin ## Builds Traefik, an Ingress and Gateway API controller, once; takes Go and 25 minutes on a busy machine
	@$(BIN)/python tools/kube_bin.py traefik

cluster-up: node-bin ## Starts a real Kubernetes cluster of two nodes on this machine; takes root, containerd and runc
	@$(BIN)/python tools/node_cluster.py up

cluster-down: setup ## Stops it and removes all of it
	@$(BIN)/python tools/node_cluster.py down

test-cluster: setup ## Runs the tests of a whole cluster on the one that KUBECONFIG names, else on one of their own
	$(BIN)/python -m pytest -m node

lint: setup ## Checks style, types, imports between packages, and protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) tests tools hatch_build.py
	$(BIN)/lint-imports
	$(BIN)/python tools/check_tree.py
	$(BIN)/hadolint Containerfile
	$(BIN)/yamllint --strict .
	$(BIN)/python tools/render_benchmarks.py --check
	@$(BIN)/python tools/copy_googleapis.py build/googleapis
	$(BIN)/buf lint

checkov: build/checkov/bin/checkov ## Checks the chart's examples by checkov, in an environment of its own (290 MB): it wants older packages than wan22
	$< --config-file .checkov.yaml

build/checkov/bin/checkov:
	$(PYTHON) -m venv build/checkov
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= build/checkov/bin/python -m pip install --quiet checkov==3.3.30

format: setup ## Formats the code and mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/.dev ## Generates the Python code of the protos
	$(BIN)/python hatch_build.py

constraints: setup ## Writes the versions that are installed into constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean: ## Removes .venv, builds, caches and the demo's state
	rm -rf .venv build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf services/common/wan22/v1 services/common/wan22/keda
	find . -name __pycache__ -prune -exec rm -rf {} +
