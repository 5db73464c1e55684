"""The machine code of the CPU's cells: their loops over hidden units are vectors.

A number that goes through memory in such a loop can make it scalar, which takes several times as
long and changes no result.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from fastrnn import _native

LIBRARY = _native.library()
CELLS = ("kLstm", "ClippedLstm", "kGru", "kRnnTanh", "kRnnRelu")
FUNCTIONS = [f"{cell}{way}" for cell in CELLS for way in ("Forward", "Backward")]
FUNCTIONS.remove("ClippedLstmBackward")  # it is the LSTM's
NORMALIZED = {  # how many: for float32 and float64, and for both cells if they are different
    "NormalizedForward": 4,
    "NormalizeGradient": 2,
    "NormalizedOutput": 2,
    "NormalizedLstmBackward": 2,
}
pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="one version for all processors"),
    pytest.mark.skipif(LIBRARY.build_info()["onednn"] is None, reason="no kernels for the CPU"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no disassembler"),
]


@pytest.fixture(scope="module")
def machine_code():
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(LIBRARY.__file__)]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    found = dict(part.strip().split(">:\n", 1) for part in text.split("\n\n") if ">:\n" in part)
    if not any("kLstmForward" in name for name in found):
        pytest.skip("the library has no names of functions")
    return found


@pytest.mark.parametrize(("processor", "register"), [("avx512f", "zmm"), ("avx2", "ymm")])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_cells_loop_is_of_vectors(function, processor, register, machine_code):
    name = rf"\d{function}E\w*\.{processor}"  # as C++ mangles it
    (body,) = (body for found, body in machine_code.items() if re.search(name, found))
    arithmetic = rf"\bv(?:add|sub|mul|div|f\w+)\w*ps\b.*%{register}"
    assert re.search(arithmetic, body), f"{function} computes one unit after the other"


@pytest.mark.parametrize(("processor", "register"), [("avx512", "zmm"), ("avx2", "ymm")])
@pytest.mark.parametrize("function", NORMALIZED)
def test_a_normalised_row_is_of_vectors(function, processor, register, machine_code):
    name = rf"{len(processor)}{processor}{len(function)}{function}I"  # as C++ mangles it
    bodies = [body for found, body in machine_code.items() if re.search(name, found)]
    assert len(bodies) == NORMALIZED[function]
    for body in bodies:
        # Sums over a row, and what is computed for each number.
        for arithmetic in ("add", "mul"):
            assert re.search(rf"\bv(?:{arithmetic}|f\w+)p[sd]\b.*%{register}", body)


@pytest.mark.parametrize(("processor", "register"), [("avx512", "zmm"), ("avx2", "ymm")])
def test_random_words_are_drawn_by_vectors(processor, register, machine_code):
    name = f"{len(processor)}{processor}4DrawE"  # a function of that namespace
    (body,) = (body for found, body in machine_code.items() if name in found)
    assert re.search(rf"\bvpmuludq\b.*%{register}", body)


@pytest.mark.parametrize(("processor", "register"), [("avx512f", "zmm"), ("avx2", "ymm")])
@pytest.mark.parametrize("function", ["Choose", "Mix", "Split", "Multiply", "AddProduct", "Add"])
def test_a_loop_of_noise_is_of_vectors(function, processor, register, machine_code):
    name = rf"\dNoise{function}E.*\.{processor}"
    bodies = [body for found, body in machine_code.items() if re.search(name, found)]
    assert len(bodies) == 2  # float32 and float64
    for body in bodies:
        assert re.search(rf"\bv[a-z0-9]+p[sd]\b.*%{register}", body)
