"""The machine code of the CPU's loops: they compute by vectors, and store whole ones.

A number that goes through memory in such a loop can make it scalar, and a condition can make its
stores masked, either of which takes several times as long and changes no result.
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
REGISTERS = {"avx512": "zmm", "avx2": "ymm"}
# With the numbers of their modes. In float64 the cells call the C library's functions.
CELLS = ("LstmCell, 0", "ClippedLstmCell, 0", "GruCell, 1", "RnnCell, 2", "RnnCell, 3")
FUNCTIONS = [f"{way}<{cell}, " for cell in CELLS for way in ("Forward", "Backward")]
FUNCTIONS.remove("Backward<ClippedLstmCell, 0, ")  # it is the LSTM's
FUNCTIONS += [f"NormalizedForward<{cell}, " for cell in ("NormalizedLstmCell", "GruCell")]
FUNCTIONS += ["NormalizedOutput<"]
# With sums over a row, in float32 and float64.
NORMALIZED = ("RowMoments<", "NormalizeGradient<", "NormalizedLstmBackward<")
pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="one version for all processors"),
    pytest.mark.skipif(LIBRARY.build_info()["onednn"] is None, reason="no kernels for the CPU"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no disassembler"),
]


@pytest.fixture(scope="module")
def machine_code():
    options = ["--disassemble", "--demangle", "--no-show-raw-insn"]
    command = ["objdump", *options, str(LIBRARY.__file__)]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    found = dict(part.strip().split(">:\n", 1) for part in text.split("\n\n") if ">:\n" in part)
    return {re.sub(r"\(fastrnn::Mode\)|\bfastrnn::", "", name): found[name] for name in found}


def bodies_of(machine_code, name, count):
    """Return the machine code of the functions whose names have this part; there are `count`."""
    found = [body for function, body in machine_code.items() if name in function]
    assert len(found) == count, name
    return found


def expect_vectors(body, processor):
    arithmetic = rf"\bv(?:add|sub|mul|div|f\w+)p[sd]\b.*%{REGISTERS[processor]}"
    assert re.search(arithmetic, body), "it computes one unit after the other"
    masked = r"\bvmaskmovp[sd]\b.*\)$|\bvmov\w+ .*\)\{%k\d\}$"
    assert not re.search(masked, body, re.MULTILINE), "its stores are masked"


@pytest.mark.parametrize("processor", REGISTERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_cells_loop_is_of_vectors(function, processor, machine_code):
    (body,) = bodies_of(machine_code, f"::{processor}::{function}float>", 1)
    expect_vectors(body, processor)


@pytest.mark.parametrize("processor", REGISTERS)
@pytest.mark.parametrize("function", NORMALIZED)
def test_a_normalised_row_is_of_vectors(function, processor, machine_code):
    for body in bodies_of(machine_code, f"::{processor}::{function}", 2):
        expect_vectors(body, processor)


@pytest.mark.parametrize("processor", REGISTERS)
def test_random_words_are_drawn_by_vectors(processor, machine_code):
    (body,) = bodies_of(machine_code, f"::{processor}::Draw(", 1)
    assert re.search(rf"\bvpmuludq\b.*%{REGISTERS[processor]}", body)


@pytest.mark.parametrize("processor", REGISTERS)
@pytest.mark.parametrize("function", ["Choose", "Mix", "Split", "Multiply", "AddProduct", "Add"])
def test_a_loop_of_noise_is_of_vectors(function, processor, machine_code):
    clones = {name: body for name, body in machine_code.items() if f"[clone .{processor}" in name}
    for body in bodies_of(clones, f"::Noise{function}(", 2):  # float32 and float64
        assert re.search(rf"\bv[a-z0-9]+p[sd]\b.*%{REGISTERS[processor]}", body)
