#!/usr/bin/env bash
# Builds the CUDA part for the emulator, plain and with the sanitizers, and runs its tests.
#   tests/emulator/run.sh PYTHON [FOLDER]
# PYTHON has fastrnn's test requirements and pybind11; the builds go to FOLDER (build/emulated).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
export FASTRNN_EMULATED_BUILDS="${2:-$PWD/build/emulated}"
mxnet=$("$python" -c 'from importlib.util import find_spec as f; s = f("mxnet")
print(s.submodule_search_locations[0] if s else "")')
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 CXX="${CXX:-g++}"

cmake -S . -B "$FASTRNN_EMULATED_BUILDS" -G Ninja --log-level=WARNING -DFASTRNN_EMULATE=ON \
  -DFASTRNN_WERROR=ON \
  -DFASTRNN_VERSION=emulated -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dpybind11_DIR="$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')" \
  -DFASTRNN_MXNET="$mxnet"
cmake --build "$FASTRNN_EMULATED_BUILDS" --parallel "${JOBS:-$(nproc)}" -- --quiet

"$python" -m pytest --quiet tests/emulator

# run_tests BUILD SCHEDULE FILE...: with the build's library in the place of fastrnn's own.
run_tests() {
  printf '%s, %s: ' "$1" "$2"
  FASTRNN_EMULATED_LIBRARY=$(echo "$FASTRNN_EMULATED_BUILDS/$1"/_C*.so) \
    FASTRNN_EMULATOR_SCHEDULE=$2 PYTHONPATH=tests:tests/emulator LD_PRELOAD=$(preload "$1") \
    "$python" -m pytest --quiet -p emulated_library -p no:cacheprovider "${@:3}"
}

# The sanitizers' runtimes, which have to be in the process before Python is.
preload() {
  case $1 in
    address) echo "$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)" ;;
    thread) "$CXX" -print-file-name=libtsan.so ;;
  esac
}

for schedule in fifo lifo random:1; do
  run_tests plain "$schedule" tests/emulator/calls.py
done
# Small layers are chosen to be persistent, where nobody says.
for schedule in fifo lifo random:1 random:2; do
  FASTRNN_ALGORITHM=stepwise run_tests plain "$schedule" tests/test_kernels.py \
    tests/test_kernels_cuda.py tests/test_kernels_lengths.py tests/test_kernels_layers.py
done
run_tests plain random:3 tests/test_kernels.py tests/test_kernels_cuda.py \
  tests/test_kernels_lengths.py tests/test_kernels_layers.py tests/test_kernels_out.py \
  tests/test_device_arrays.py
for schedule in fifo lifo random:1 random:2; do
  run_tests plain "$schedule" tests/test_persistent.py
done
run_tests turing random:1 tests/test_persistent.py
run_tests plain fifo tests/emulator/device_faults.py tests/emulator/occupancy.py
# The same kernels behind MXNet's operator, which works on the calling thread here.
export FASTRNN_EMULATED_OPERATORS=1 MXNET_ENGINE_TYPE=NaiveEngine FASTRNN_TF32=0
if [ -n "$mxnet" ]; then
  run_tests plain random:3 tests/test_operator.py
  run_tests plain random:4 tests/test_layers_numbers.py
  run_tests plain random:5 tests/test_layers_options.py -k 'float16 or lengths'
  run_tests plain random:6 tests/gpu/test_mxnet_operator.py
fi
unset FASTRNN_EMULATED_OPERATORS FASTRNN_TF32
# Python's own memory is never all given back.
export ASAN_OPTIONS=detect_leaks=0
# Shapes that are not all known, on the allocator that notices an overrun in MXNet, too.
if [ -n "$mxnet" ]; then
  MXNET_ENGINE_TYPE=ThreadedEnginePerDevice LD_PRELOAD=$("$CXX" -print-file-name=libasan.so) \
    "$python" -m pytest --quiet tests/test_layers_shapes.py
fi
export FASTRNN_ALGORITHM=stepwise
run_tests address lifo tests/emulator/small_layers.py tests/emulator/small_persistent.py
run_tests thread random:3 tests/emulator/small_layers.py tests/emulator/small_persistent.py
