"""objects.py finds spills, stack frames and stale reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import objects
import pytest

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4Goodv' for 'sm_80'
ptxas info    : Function properties for _Z4Goodv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 26 registers, used 0 barriers, 480 bytes cmem[0]
ptxas info    : Compiling entry function '_Z5Spillv' for 'sm_80'
ptxas info    : Function properties for _Z5Spillv
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, 480 bytes cmem[0], 16 bytes cmem[2]
"""
MACHINE_CODE = """
.text._Z4Pollv:
        /*0030*/                   LDG.E.STRONG.GPU R0, desc[UR4][R2.64] ;
        /*0040*/                   CCTL.IVALL ;
        /*00b0*/                   LDG.E{constant} R3, desc[UR4][R2.64] ;
.text._Z4Readv:
        /*00b0*/                   LDG.E.CONSTANT R3, desc[UR4][R2.64] ;
"""
KERNELS = """
#include "cuda/runtime/device.cuh"
using namespace fastrnn::cuda;
__global__ void Indexed(float* x, int n) {
  volatile float values[64];
  for (int i = 0; i < n; ++i) values[i] = x[i];
  x[0] = values[n + 1];
}
__global__ void Stale(const float* __restrict__ x, unsigned* flag, float* y) {
  while (LoadAcquire(flag) == 0) {
  }
  *y = *x;
}
__global__ void Fresh(const float* x, unsigned* flag, float* y) {
  while (LoadAcquire(flag) == 0) {
  }
  *y = *x;
}
"""


def test_spills_are_found():
    good, spill = objects.parse_resources(REPORT)
    assert good == ("_Z4Goodv", "sm_80", 0, 0, 0, 26)
    assert good.complaint() is None
    assert spill.complaint() == (
        "_Z5Spillv for sm_80: 16 bytes of stack frame, 8 of spill stores, 12 of spill loads"
    )


def test_a_report_of_another_form_is_an_error():
    with pytest.raises(ValueError, match="ptxas says something unknown"):
        list(objects.parse_resources(REPORT.replace("spill stores", "stores")))


def test_stale_reads_are_found():
    (complaint,) = objects.stale_reads(MACHINE_CODE.format(constant=".CONSTANT"))
    assert complaint.startswith("_Z4Pollv polls other blocks")
    assert not list(objects.stale_reads(MACHINE_CODE.format(constant="")))


def test_kernels_that_poll_are_recognized():
    # What an acquire leaves in machine code may change with the compiler.
    kernel = ".text.PersistentForwardKernel:\n  BAR.SYNC 0x0 ;\n  {acquire}\n"
    (complaint,) = objects.stale_reads(kernel.format(acquire="LD.STRONG"))
    assert complaint.startswith("PersistentForwardKernel has no CCTL.IVALL")
    assert not list(objects.stale_reads(kernel.format(acquire="CCTL.IVALL ;")))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_real_kernels(tmp_path):
    source = tmp_path / "kernels.cu"
    source.write_text(KERNELS)
    nvcc, nvdisasm = Path(shutil.which("nvcc")), objects.find_nvdisasm()
    found, complaints = objects.check_with_nvcc(nvcc, source, "80", ["80", "86"], nvdisasm)
    assert [r.architecture for r in found] == 3 * ["sm_80"] + 3 * ["sm_86"]
    assert any("Indexed" in c and "256 bytes of stack frame" in c for c in complaints)
    assert any("Stale" in c for c in complaints) == (nvdisasm is not None)
    assert not any("Fresh" in c for c in complaints)
