# Two targets for everybody: `make demo` runs the whole story, `make test` the tests.
PYTHON ?= python3
VENV   := .venv
TF     := .venv-tf
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes
BENCH  := build/bench
TF_PIP := $(TF)/bin/python -m pip --quiet --disable-pip-version-check install
# Those that skip, in part, where there is no TensorFlow.
TF_TESTS := tests/unit/serving/engines tests/unit/models/importing tests/interop/tensorflow tests/unit/modelserver tests/integration/client/test_published_stubs.py
UV     := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --no-header \
          --no-emit-index-url --no-emit-find-links

.PHONY: help proto setup demo test test-tensorflow lint format types contract build check bench bench-serving bench-scaling fuzz fuzz-env interop-env cluster-programs cluster-test balancer-test lock clean

help:
	@echo "make demo         set everything up and play the whole story on this machine"
	@echo "make test         run the tests"
	@echo "make test-tensorflow  run the tests that need TensorFlow in-process, in an environment of their own"
	@echo "make check        lint, types, import contract"
	@echo "make build        build the wheel and try it in a second, empty environment"
	@echo "make fuzz         fuzz every parser for FUZZ_SECONDS=60 each; FUZZ_TARGETS=\"quote policy\" for some of them"
	@echo "make images       build container images; BASE=... for another base, IMAGES=\"client provisioning\" for some of them"
	@echo "make images-test  build them twice, compare, and run what is in them (needs buildah and podman)"
	@echo "make interop-env  an environment with TensorFlow and TensorFlow Serving's published client, for their tests"
	@echo "make balancer-test  a launched service behind an nginx that ends TLS: sealed bodies under load (three minutes)"
	@echo "make cluster-test  the story in a real Kubernetes of one node (root; make cluster-programs builds its programs)"
	@echo "make bench        benchmarks (they print ratios and spreads, and gate nothing)"
	@echo "make bench-serving  serving beside TensorFlow, MLServer, KServe and LitServe (about 15 minutes); BENCH_ARGS=--quick"
	@echo "make bench-scaling  service times of this machine, and fleets of 10, 1,000 and 100,000 replicas simulated with them; BENCH_ARGS=--quick"
	@echo "make proto        compile proto/ into the message descriptors"
	@echo "make lock         resolve requirements/*.txt anew"

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Ensconce needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV) || { echo "the venv module is missing: apt install python3-venv" >&2; exit 1; }; }
	@echo "installing what Ensconce runs on"
	@$(PIP) -r requirements/runtime.txt -r requirements/build.txt
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "installing what the tests need"
	@$(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.runtime
	@echo "installing the fuzzer"
	@$(PIP) -r requirements/fuzz.txt || { echo "there are wheels for Linux on x86-64, Python 3.11 to 3.14" >&2; exit 1; }
	@touch $@

$(TF)/.interop: requirements/interop.txt requirements/build.txt pyproject.toml
	@$(TF)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(TF)
	@echo "installing TensorFlow and TensorFlow Serving's published client (large)"
	@$(TF_PIP) --no-deps --require-hashes -r requirements/interop.txt -r requirements/build.txt
	@$(TF_PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Others' servers, each in an environment of its own, and matplotlib in another.
$(BENCH)/%/.made: benchmarks/serving/requirements-%.txt
	@echo "making $(BENCH)/$*"
	@$(PYTHON) -m venv --clear $(BENCH)/$*
	@$(BENCH)/$*/bin/python -m pip --quiet --disable-pip-version-check install --no-deps -r $<
	@touch $@

$(BENCH)/importing/.made: requirements/convert.txt requirements/build.txt pyproject.toml
	@echo "making $(BENCH)/importing (TensorFlow: large)"
	@$(PYTHON) -m venv --clear $(BENCH)/importing
	@$(BENCH)/importing/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes \
		-r requirements/convert.txt -r requirements/build.txt
	@$(BENCH)/importing/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.runtime

interop-env: $(TF)/.interop

fuzz-env: $(VENV)/.fuzz

demo: setup
	@$(BIN)/ensconce demo

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 --no-loadscope-reorder $(PYTEST_ARGS)

test-tensorflow: interop-env
	@$(TF)/bin/python -m pytest $(TF_TESTS) $(PYTEST_ARGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev
	@$(BIN)/mypy
	@$(BIN)/mypy deploy/images/*.py docs/commands.py

contract: $(VENV)/.dev
	@$(BIN)/lint-imports

check: lint types contract

# Outside the tree: they take half an hour to build, and are the same for every checkout.
cluster-programs:
	@tests/e2e/kubernetes/programs/build.sh "$${ENSCONCE_KUBERNETES_PROGRAMS:-$${XDG_CACHE_HOME:-$$HOME/.cache}/ensconce-kubernetes}"

cluster-test: $(VENV)/.dev
	@ENSCONCE_CLUSTER_TEST=1 $(BIN)/python -m pytest -rs tests/e2e/kubernetes $(PYTEST_ARGS)

balancer-test: $(VENV)/.dev
	@ENSCONCE_BALANCER_TEST=1 $(BIN)/python -m pytest -rs tests/e2e/balancer $(PYTEST_ARGS)

build: $(VENV)/.dev
	@rm -rf dist build/wheel-env
	@$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	@$(PYTHON) -m venv build/wheel-env
	@build/wheel-env/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r requirements/runtime.txt
	@build/wheel-env/bin/python -m pip --quiet --disable-pip-version-check install --no-deps dist/*.whl
	@! build/wheel-env/bin/python -m pip check | grep -v -e 'requires openvino-telemetry' -e 'No broken requirements'
	@build/wheel-env/bin/ensconce --version
	@build/wheel-env/bin/python -c 'import importlib.util as u; assert u.find_spec("openvino_telemetry") is None'

bench: $(VENV)/.dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-serving: $(VENV)/.dev $(BENCH)/importing/.made $(BENCH)/mlserver/.made $(BENCH)/kserve/.made $(BENCH)/litserve/.made $(BENCH)/plot/.made
	@command -v h2load > /dev/null || { echo "h2load is missing: apt install nghttp2-client" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.serving --markdown $(BENCH)-serving/results.md --plot $(BENCH)-serving/results.png $(BENCH_ARGS)

bench-scaling: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.scaling $(BENCH_ARGS)

fuzz: fuzz-env
	@nice $(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),60) --jobs $(or $(FUZZ_JOBS),1) $(FUZZ_TARGETS)

# What is given as BASE=... reaches deploy/images/build through the environment.
images: setup
	@PYTHON=$(BIN)/python nice deploy/images/build $(IMAGES)

images-test: $(VENV)/.dev
	@ENSCONCE_IMAGES_TEST=1 PYTHON=$(BIN)/python nice $(BIN)/python -m pytest tests/e2e/images $(PYTEST_ARGS)

proto: $(VENV)/.dev
	@$(BIN)/python proto/compile.py

lock: $(VENV)/.dev
	@$(BIN)/python -m pip --quiet install uv
	@echo openvino | $(UV) pyproject.toml - --no-emit-package openvino-telemetry -o requirements/runtime.txt
	@$(UV) requirements/build.in -o requirements/build.txt
	@$(UV) requirements/dev.in -c requirements/runtime.txt -c requirements/build.txt -o requirements/dev.txt
	@$(UV) requirements/images.in -o requirements/images.txt
	@$(UV) pyproject.toml -c requirements/runtime.txt -o requirements/no-engine.txt
	@$(UV) pyproject.toml --extra aws --extra postgresql -c requirements/runtime.txt -c requirements/dev.txt \
		-o requirements/provisioning.txt
	@$(UV) requirements/fuzz.in -c requirements/runtime.txt -o requirements/fuzz.txt
	@echo openvino | $(UV) pyproject.toml - requirements/convert.in --no-emit-package openvino-telemetry -o requirements/convert.txt
	@echo openvino | $(UV) pyproject.toml requirements/dev.in requirements/interop.in - -c requirements/runtime.txt \
		-c requirements/dev.txt --no-emit-package tensorflow --no-emit-package openvino-telemetry -o requirements/interop.txt

clean:
	@rm -rf $(VENV) $(TF) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
