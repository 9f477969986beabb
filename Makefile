# Each environment is created when it is first needed, and updated when its requirements change.
# `make help` prints the lines that begin with two hashes.

PYTHON ?= python3
# Folder with the data sets that no package contains: pneumoniamnist.npz, nuclei.zip, fetal_head_192x128.npz.
DATA ?= $(firstword $(wildcard data ../shared/data) data)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
PIP_INSTALL = bin/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help serve test test-fast test-tools test-container test-gpu coverage mutate fuzz soak train checksums bench docs
.PHONY: screenshots
.PHONY: proto proto-check lint format lock sbom audit clean

## help: list the targets; most pass ARGS="..." on to their command
help:
	@sed -n "s/^## \([a-z-]*\): /\1\t/p" $(MAKEFILE_LIST) | expand -t 16

## serve: install the server into .venv and serve models/
serve: .venv/installed
	@.venv/bin/medserve-server $(ARGS)

## test: run linters, type checks and all tests except those that need an image or a GPU
# Servers start faster from compiled modules, whatever the environment says about writing them.
test: export PYTHONDONTWRITEBYTECODE =
test: lint proto-check .venv-docs/installed .venv-triton/installed
	MEDSERVE_DATA=$(DATA) .venv-dev/bin/python -m pytest -n 4 --dist worksteal -m "not container and not gpu" $(ARGS)

## test-fast: run the unit tests that start no process; takes about a minute on two idle cores
test-fast: .venv-dev/installed
	.venv-dev/bin/python -m pytest tests/unit -n 2 -q -m "not process" $(ARGS)

## test-tools: install programs that some tests use for comparison; as root on Debian or Ubuntu
# Without them, these tests are skipped.
test-tools:
	apt-get -qq update
	apt-get -qq install --yes --no-install-recommends chromium dcmtk fish fonts-noto-cjk zsh
	command -v npm > /dev/null || apt-get -qq install --yes --no-install-recommends nodejs npm
	npm ci --prefix tests/e2e/node --ignore-scripts --no-audit --no-fund

## test-container: build the image and test it; needs podman or docker
test-container: .venv-dev/installed
	.venv-dev/bin/python -m pytest tests/container -m container $(ARGS)

## test-gpu: run the models on an NVIDIA GPU, print a table and write it to build/gpu.json
# Checks for a GPU first, so that CUDA libraries are downloaded only if needed. CUDA sees only nvidia-smi's GPU 0.
test-gpu: export CUDA_DEVICE_ORDER = PCI_BUS_ID
test-gpu: export CUDA_VISIBLE_DEVICES = 0
test-gpu:
	@if nvidia-smi --list-gpus 2>&1 | grep "^GPU "; then \
		$(MAKE) --no-print-directory .venv-gpu/installed && .venv-gpu/bin/python -m pytest tests/gpu -m gpu $(ARGS); \
	else \
		echo "test-gpu: skipped, since it needs an NVIDIA GPU and its driver: nvidia-smi --list-gpus lists none"; \
	fi

## coverage: measure branch coverage of the unit, end-to-end and web tests in all processes except Envoy
coverage: .venv-dev/installed .venv-triton/installed
	.venv-dev/bin/coverage erase
	MEDSERVE_DATA=$(DATA) .venv-dev/bin/coverage run -m pytest tests/unit tests/e2e tests/web -n 4 --dist worksteal $(ARGS)
	.venv-dev/bin/coverage combine --quiet
	.venv-dev/bin/coverage report

## mutate: change the engine and access control in small ways, and list changes that no unit test detects
# Takes hours; example of a part: make mutate ARGS="medserve_server.engine.plan*"
mutate: .venv-dev/installed
	.venv-dev/bin/python -m pip install --quiet --requirement tests/mutation/requirements.txt
	.venv-dev/bin/python tests/mutation/run.py $(ARGS)

## fuzz: run coverage-guided fuzzing of the parsers, until stopped
# Example: make fuzz ARGS="image -max_total_time=60"
fuzz: .venv-dev/installed
	PYTHONPATH=tests .venv-dev/bin/python -m fuzz.run $(ARGS)

## soak: run a mixed load for half an hour while models are replaced
# Example: make soak ARGS="--minutes 3 --transport grpcio"
soak: .venv-dev/installed
	PYTHONPATH=tests .venv-dev/bin/python -m soak.run $(ARGS)

## lint: check style, types, import rules and spelling
lint: .venv-dev/installed
	.venv-dev/bin/ruff check
	.venv-dev/bin/ruff format --check
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports --no-cache
	git ls-files -z | xargs -0 .venv-dev/bin/codespell

## format: fix and format the code
format: .venv-dev/installed
	.venv-dev/bin/ruff check --fix
	.venv-dev/bin/ruff format

## train: train all models from the data in DATA=folder, into models/; takes about an hour on two cores
# The order of floating-point sums, and thus the weights, depends on the number of threads.
train: export OMP_NUM_THREADS = 1
train: .venv-dev/installed
	.venv-dev/bin/medserve-train fit chest-xray --data-dir $(DATA)
	.venv-dev/bin/medserve-train evaluate models/chest-xray/1/model.onnx --data medmnist:pneumoniamnist --data-dir $(DATA)
	.venv-dev/bin/medserve-train fit breast-cancer-risk
	.venv-dev/bin/medserve-train evaluate models/breast-cancer-risk/1/model.onnx --data gbsg --crossval benchmarks/risk.json
	.venv-dev/bin/medserve-train fit fetal-head --data-dir $(DATA)
	.venv-dev/bin/medserve-train evaluate models/fetal-head/1/model.onnx --data hc18:fetal_head_192x128.npz --data-dir $(DATA)
	OMP_NUM_THREADS=2 .venv-dev/bin/medserve-train fit cell-nuclei --data-dir $(DATA)
	.venv-dev/bin/medserve-train evaluate models/cell-nuclei/1/model.onnx --data nuclei:nuclei.zip --data-dir $(DATA)

## checksums: write the hashes of all models in models/ to models/SHA256SUMS
checksums:
	cd models && sha256sum */*/model.onnx > SHA256SUMS

## bench: benchmark medserve and other servers, into benchmarks/
bench: .venv-dev/installed
	.venv-dev/bin/medserve-train article-risk
	.venv-dev/bin/python -m benchmarks.environments
	.venv-dev/bin/python -m benchmarks.serving $(ARGS)

## docs: build the documentation site, build/site/index.html
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict $(ARGS)

## screenshots: write eight pictures of the web page to build/screenshots; needs Debian's Chromium (make test-tools)
screenshots: .venv-dev/installed
	PYTHONPATH=tests .venv-dev/bin/python -m web.screenshots build/screenshots

## proto: generate the stubs and the OpenAPI description from the proto files
proto: .venv-proto/installed
	.venv-proto/bin/python proto/generate.py

## proto-check: check that the generated stubs are up to date
proto-check: .venv-proto/installed
	rm -rf build/proto && .venv-proto/bin/python proto/generate.py build/proto

# winloop is pyvoy's event loop on Windows and not needed here.
LOCK = .venv-audit/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-emit-package winloop --custom-compile-command "make lock"

## lock: update the lock files of the images after a change of pyproject.toml or the constraints
lock: .venv-audit/installed
	$(LOCK) --extra server --extra envoy --extra dicom --extra otel --extra segmentation -c constraints.txt pyproject.toml -o deploy/requirements-cpu.txt
	$(LOCK) --extra cuda --extra envoy --extra dicom --extra otel --extra segmentation -c constraints.txt -c constraints-cuda.txt pyproject.toml \
		-o deploy/requirements-cuda.txt
	$(LOCK) --group build -o deploy/requirements-build.txt

## sbom: write the software bill of materials of the server's environment, build/sbom.cdx.json
# Envoy is listed in addition to the Python package that contains it.
sbom: .venv/installed .venv-audit/installed
	mkdir -p build
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.cdx.json .venv
	.venv-audit/bin/python deploy/envoy_sbom.py build/sbom.cdx.json .venv/lib/python3*/site-packages/envoy/_bin/envoy

## audit: check the images' dependencies for known vulnerabilities
# Queries PyPI's database, or OSV with ARGS="--vulnerability-service osv". Envoy is always looked up in OSV.
audit: .venv-audit/installed
	.venv-audit/bin/pip-audit --disable-pip --requirement deploy/requirements-cpu.txt $(ARGS)
	.venv-audit/bin/pip-audit --disable-pip --requirement deploy/requirements-cuda.txt $(ARGS)
	.venv-audit/bin/python deploy/envoy_advisories.py deploy/requirements-cpu.txt
	.venv-audit/bin/python deploy/envoy_advisories.py deploy/requirements-cuda.txt

## clean: remove the environments and build/
clean:
	rm -rf .venv .venv-audit .venv-dev .venv-docs .venv-gpu .venv-proto .venv-triton build

# The server and the client.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing the server into .venv (once, about half a minute)"
	@$(PYTHON) -m venv .venv
	@.venv/$(PIP_INSTALL) ".[server,envoy,dicom,segmentation]"
	@touch $@

.venv-dev/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-dev
	.venv-dev/$(PIP_INSTALL) ".[dev]"
	touch $@

# Separate, since onnxruntime-gpu conflicts with onnxruntime and PyTorch pins other versions of the CUDA libraries.
.venv-gpu/installed: pyproject.toml constraints.txt constraints-cuda.txt
	@echo "Installing the server with CUDA into .venv-gpu (once; its CUDA libraries are large)"
	@$(PYTHON) -m venv .venv-gpu
	@.venv-gpu/$(PIP_INSTALL) ".[dev-cuda]" --constraint constraints-cuda.txt
	@touch $@

# The proto compiler needs an older protobuf than the other packages.
.venv-proto/installed: proto/requirements.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet --requirement $<
	touch $@

# The documentation generator and the proto compiler.
.venv-docs/installed: docs/site/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement $<
	touch $@

# Tools that inspect dependencies, kept out of the environments that they inspect.
.venv-audit/installed: deploy/audit-tools.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --requirement $<
	touch $@

# Triton's client, which needs an older protobuf; verifies that medserve can be installed in the same environment.
.venv-triton/installed: tests/e2e/tritonclient.txt pyproject.toml
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet --requirement $< --editable ".[server,segmentation]"
	touch $@
