# make demo    train a small language model on the embedded text, and let it write
# make test    run the tests          make lint    check style and types
# make bench   run the benchmarks     make docs    build the documentation into build/docs
# make clean   remove what these made
# make notebook                       run docs/tutorial.ipynb, and keep its output in it
# make emulated                       run the CUDA kernels' tests without a GPU; needs the toolkit's
#                                     headers
# make mutants                        leave out each of the kernels' barriers, fences and waits in
#                                     turn, and see that a test notices
# make objects                        compile the kernels for every GPU, with nvcc and as CUDA 11
#                                     does; look for spilled registers, and read the machine code
# make clients                        test packages that use Gluon's recurrent layers, before and
#                                     after fastrnn.accelerate: GluonNLP, GluonTS, CnOCR, d2l; it
#                                     prints times, which other processes disturb
# make gpu-check OUT=folder           on a machine with a GPU: build with what $(PYTHON) has, test,
#                                     and write a report; COMMIT=... where git cannot tell it, and
#                                     MXNET=script where $(PYTHON) has no MXNet that sees the GPU;
#                                     LIMIT=seconds for each step (300)
# make gpu-bench OUT=folder           the benchmarks' full grid, in calls of at most LIMIT seconds
#                                     (540), each of which goes on where the one before stopped;
#                                     put OUT/results.json back where OUT is emptied in between
#
# PYTHON=python3.8 chooses another interpreter (3.8 to 3.13), VENV=folder another environment,
# JOBS=1 fewer processes than processors, where there are several.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find build_backend csrc -type f \
	-not -name '*.pyc') fastrnn/_version.py
CXX_SOURCES := $(shell find csrc tests bench -name '*.cc' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh')

# Compute capabilities of the GPUs that are there.
GPUS = $(shell PYTHONPATH=build_backend $(PYTHON) -c \
	'from fastrnn_build.detect import find_gpus; print(*find_gpus())')

.PHONY: demo test emulated mutants objects clients gpu-check gpu-bench lint docs bench notebook clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo-$(VERSION)
	$(BIN)/fastrnn train --preset demo --out runs/demo --overwrite

test: $(VENV)/.dev-$(VERSION)
	$(BIN)/pytest -n $(or $(JOBS),auto) --dist worksteal $(PYTEST_ARGUMENTS)

emulated: $(VENV)/.dev-$(VERSION)
	$(BIN)/pip install --quiet cmake ninja pybind11
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/emulator/run.py \
		$(if $(JOBS),--jobs $(JOBS))

mutants: $(VENV)/.dev-$(VERSION)
	$(BIN)/pip install --quiet cmake ninja pybind11
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/emulator/mutants.py \
		$(if $(JOBS),--jobs $(JOBS))

objects: $(VENV)/.dev-$(VERSION)
	$(BIN)/pip install --quiet nvidia-cuda-nvdisasm
	$(BIN)/python tests/gpu/objects.py
	$(BIN)/python tests/gpu/objects.py --cuda-11

# Without their dependencies, some of which ask for other versions of NumPy and MXNet.
clients: $(VENV)/.dev-$(VERSION)
	$(BIN)/pip install --quiet --target $(VENV)/clients --upgrade --no-deps gluonnlp==0.10.0 \
		gluonts==0.11.12 pydantic==1.10.22 toolz cnocr==1.2.2 d2l==0.17.6 pandas==2.0.3 pytz \
		python-dateutil six typing_extensions
	PYTHONPATH=$(VENV)/clients $(BIN)/pytest -s tests/clients

gpu-check:
	@test -n "$(OUT)" || { echo "say where the report goes: make gpu-check OUT=folder" >&2; exit 1; }
	$(PYTHON) tests/gpu/gpu_check.py "$(OUT)" --commit "$(COMMIT)" \
		$(if $(MXNET),--mxnet "$(MXNET)") $(if $(LIMIT),--limit "$(LIMIT)")

gpu-bench:
	@test -n "$(OUT)" || { echo "say where results go: make gpu-bench OUT=folder" >&2; exit 1; }
	$(PYTHON) tests/gpu/gpu_bench.py "$(OUT)" --commit "$(COMMIT)" \
		$(if $(LIMIT),--limit "$(LIMIT)")

bench: $(VENV)/.dev-$(VERSION)
	$(BIN)/pytest bench

lint: $(VENV)/.dev-$(VERSION)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest fastrnn._C --mypy-config-file pyproject.toml \
		--allowlist tests/stubtest_allowlist.txt
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

# mkdocs-material announces the end of MkDocs 1 in every run.
docs: $(VENV)/.dev-$(VERSION)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: $(VENV)/.dev-$(VERSION)
	$(BIN)/python tests/run_tutorial.py

clean:
	rm -rf $(VENV) build dist fastrnn.egg-info fastrnn/third_party
	rm -f fastrnn/_C*.so fastrnn/libdnnl.so.3 fastrnn/_build.json

# The package is installed editable: a change of its Python files needs no new installation.
# MXNet's wheel for the CPU uses no GPU: without one the demo does without the CUDA part.
$(VENV)/.demo-$(VERSION): export FASTRNN_CUDA ?= $(if $(GPUS),auto,0)
$(VENV)/.demo-$(VERSION): $(VENV)/.created-$(VERSION) $(SOURCES)
	$(BIN)/pip install -e '.[cpu,lm,keyboard]'
	touch $@

# A newer compiler's new warning stops this build, never a user's.
$(VENV)/.dev-$(VERSION): export CMAKE_ARGS := $(CMAKE_ARGS) -DFASTRNN_WERROR=ON
# One architecture of GPUs is enough for tests, that of the GPU where there is one, else the one that
# takes the compiler the least time: `make objects` compiles for the others.
$(VENV)/.dev-$(VERSION): export FASTRNN_CUDA_ARCHITECTURES ?= $(if $(GPUS),,75)
$(VENV)/.dev-$(VERSION): $(VENV)/.created-$(VERSION) $(SOURCES)
	$(BIN)/pip install -e '.[cpu,lm,keyboard,onnx,test,browser,bench,lint,docs,notebook]'
	touch $@ $(VENV)/.demo-$(VERSION)

# MXNet pins a NumPy that Python 3.13 cannot have, and runs with the one it can.
$(VENV)/.created-$(VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null || { echo \
		"fastrnn needs Python 3.8 or newer; '$(PYTHON)' is not (try make PYTHON=python3.11)" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo \
		"'$(PYTHON)' cannot create virtual environments: its venv or ensurepip module is" \
		"missing (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --upgrade 'pip>=21.3'
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || \
		$(BIN)/pip install --no-deps mxnet==1.9.1
	touch $@
