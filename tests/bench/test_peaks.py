"""What a machine reaches: on the CPU, and with stand-ins of nvcc and of a GPU."""

from __future__ import annotations

import ctypes
import os
import sys
from types import SimpleNamespace

import pytest
import sources  # noqa: F401
from clocks import Machine

from bench import peaks
from bench.limits import Peaks, cache_bytes
from fastrnn_build import detect


def test_the_best_of_calls_for_a_second():
    machine = Machine()
    call = machine.call("a", iter([0.5, 0.25, 0.125, *[0.375] * 10]))
    assert peaks.best(lambda: call(0), machine.clock) == 0.125
    assert len(machine.calls) == peaks.ROUNDS


def test_peaks_of_the_cpu(monkeypatch):
    monkeypatch.setattr(peaks, "CPU_SIZE", 64)
    monkeypatch.setattr(peaks, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(peaks, "LEAST_SECONDS", 0.0)
    found = peaks.measure("cpu")
    assert list(found.peaks) == ["float32"]
    one = found.peaks["float32"]
    assert one.flops > 1e6
    assert one.bandwidth > 1e6
    assert one.exchange is None
    assert one.cache == cache_bytes("cpu") >= 1 << 18
    assert found.notes["bandwidth"].endswith(f"in {len(os.sched_getaffinity(0))} threads")


NVCC = detect.find_nvcc(os.environ)


@pytest.mark.skipif(isinstance(NVCC, detect.Missing), reason="no nvcc on this machine")
def test_the_exchange_compiles(tmp_path):
    library = ctypes.CDLL(str(peaks.build_exchange(tmp_path, "80")))
    assert library.BenchExchange is not None


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    """A function that puts an nvcc where CUDA_HOME says, off the PATH."""

    def make(script):
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        monkeypatch.delenv("CUDACXX", raising=False)
        path = tmp_path / "bin" / "nvcc"
        path.parent.mkdir()
        version = "echo 'Cuda compilation tools, release 13.0, V13.0.88'"
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {version}\n{script}\n')
        path.chmod(0o755)
        return path

    return make


def test_nvcc_is_found_where_the_build_finds_it(nvcc, tmp_path):
    nvcc(f'echo "$@" > {tmp_path}/seen')
    library = peaks.build_exchange(tmp_path, "90")
    seen = (tmp_path / "seen").read_text()
    assert "-arch=sm_90" in seen
    assert str(library) in seen


def test_an_nvcc_that_fails_is_no_failure(nvcc, tmp_path, monkeypatch):
    path = nvcc("echo 'no such architecture'; exit 1")
    with pytest.raises(peaks.MissingExchangeError, match=f"{path} does not .*: no such arch"):
        peaks.build_exchange(tmp_path, "90")


GPU = SimpleNamespace(
    cuda=SimpleNamespace(
        get_device_capability=lambda: (9, 0),
        get_device_properties=lambda number: SimpleNamespace(multi_processor_count=132),
    )
)


def test_without_nvcc_there_is_no_exchange_but_a_reason(monkeypatch):
    monkeypatch.setattr(detect, "find_nvcc", lambda environ: detect.Missing("nvcc was not found"))
    monkeypatch.setitem(sys.modules, "torch", GPU)
    seen = []
    monkeypatch.setattr(peaks, "on_gpu", lambda torch, exchange: seen.append(exchange) or {})
    assert peaks.measure("cuda").notes == {"exchange": "not measured: nvcc was not found"}
    assert seen == [None]


def test_the_fastest_exchange_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", GPU)
    monkeypatch.setattr(peaks, "exchange_seconds", lambda torch: {4: 3e-7, 64: 6e-7, 132: 9e-7})
    monkeypatch.setattr(
        peaks, "on_gpu", lambda torch, exchange: {"tf32": Peaks(1.0, 1.0, exchange, 1)}
    )
    found = peaks.measure("cuda")
    assert found.peaks["tf32"].exchange == 3e-7
    assert found.notes["exchange, seconds by blocks"][132] == 9e-7
