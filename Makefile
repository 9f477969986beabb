# make serve | test | train | bench | proto | lint | format | clean
#
# Each environment is made when it is first needed, and again when its requirements change.

PYTHON ?= python3
# Where the data sets lie that no package brings (pneumoniamnist.npz).
DATA ?= $(firstword $(wildcard data ../shared/data) data)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
PIP_INSTALL = bin/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: serve test test-container train bench proto proto-check lint format clean

serve: .venv/installed
	@.venv/bin/medserve-server $(ARGS)

test: lint proto-check .venv-triton/installed
	MEDSERVE_DATA=$(DATA) .venv-dev/bin/python -m pytest -n 2 -m "not container" $(ARGS)

# Builds the image and runs it; needs podman or docker.
test-container: .venv-dev/installed
	.venv-dev/bin/python -m pytest tests/container -m container $(ARGS)

lint: .venv-dev/installed
	.venv-dev/bin/ruff check
	.venv-dev/bin/ruff format --check
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports --no-cache

format: .venv-dev/installed
	.venv-dev/bin/ruff check --fix
	.venv-dev/bin/ruff format

train: .venv-dev/installed
	.venv-dev/bin/medserve-train fit chest-xray --data-dir $(DATA)
	.venv-dev/bin/medserve-train evaluate models/chest-xray/1/model.onnx --data medmnist:pneumoniamnist --data-dir $(DATA)
	.venv-dev/bin/medserve-train fit breast-cancer-risk
	.venv-dev/bin/medserve-train evaluate models/breast-cancer-risk/1/model.onnx --data gbsg --crossval benchmarks/risk.json

bench: .venv-dev/installed
	.venv-dev/bin/medserve-train article-risk
	.venv-dev/bin/python -m benchmarks.environments
	.venv-dev/bin/python -m benchmarks.serving $(ARGS)

proto: .venv-proto/installed
	.venv-proto/bin/python proto/generate.py

proto-check: .venv-proto/installed
	rm -rf build/proto && .venv-proto/bin/python proto/generate.py build/proto

clean:
	rm -rf .venv .venv-dev .venv-proto .venv-triton build

# What serving needs; the client comes with it.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing the server into .venv (once, about half a minute)"
	@$(PYTHON) -m venv .venv
	@.venv/$(PIP_INSTALL) ".[server]"
	@touch $@

.venv-dev/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-dev
	.venv-dev/$(PIP_INSTALL) ".[dev]"
	touch $@

# The contracts' compiler needs an older protobuf than the rest.
.venv-proto/installed: proto/requirements.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet --requirement $<
	touch $@

# Another client of the protocol, which needs an older protobuf too; ours has to live beside it.
.venv-triton/installed: tests/e2e/tritonclient.txt pyproject.toml
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet --requirement $< --editable .
	touch $@
