#!/usr/bin/env bash
# Builds the CUDA part for the emulator, plain and with the sanitizers, and runs its tests.
#   tests/emulator/run.sh PYTHON [FOLDER]
# PYTHON has fastrnn's test requirements and pybind11; the builds go to FOLDER (build/emulated).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
export FASTRNN_EMULATED_BUILDS="${2:-$PWD/build/emulated}"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

pybind11=$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')
for sanitizer in "" address thread; do
  folder="$FASTRNN_EMULATED_BUILDS/${sanitizer:-plain}"
  cmake -S . -B "$folder" -G Ninja --log-level=WARNING -DFASTRNN_EMULATE=ON \
    -DFASTRNN_SANITIZER="$sanitizer" -DFASTRNN_VERSION=emulated \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$pybind11"
  cmake --build "$folder" --parallel "${JOBS:-$(nproc)}" -- --quiet
done

"$python" -m pytest --quiet tests/emulator
