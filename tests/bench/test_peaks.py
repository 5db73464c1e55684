"""What a machine reaches: on the CPU, and with stand-ins of nvcc and of a GPU."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import sources  # noqa: F401
from clocks import Machine

from bench import machine, peaks
from bench.limits import Peaks, cache_bytes


def test_the_best_of_calls_for_a_second():
    stopped = Machine()
    call = stopped.call("a", iter([0.5, 0.25, 0.125, *[0.375] * 10]))
    assert peaks.best(lambda: call(0), stopped.clock) == 0.125
    assert len(stopped.calls) == peaks.ROUNDS


def test_peaks_of_the_cpu(monkeypatch):
    monkeypatch.setattr(peaks, "CPU_SIZE", 64)
    monkeypatch.setattr(peaks, "CPU_LAYER", (4, 2, 8))
    monkeypatch.setattr(peaks, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(peaks, "LEAST_SECONDS", 0.0)
    found = peaks.on_cpu()
    assert list(found.peaks) == ["float32"]
    one = found.peaks["float32"]
    assert one.flops > 1e6
    assert one.bandwidth > 1e6
    assert one.exchange is None
    assert one.cache == cache_bytes("cpu") >= 1 << 18
    assert one.flops == max(found.notes["products, FLOP/s"].values())
    assert found.notes["bandwidth"].endswith(f"in {len(os.sched_getaffinity(0))} threads")


def test_peaks_of_the_cpu_come_from_a_process_of_their_own(monkeypatch):
    printed = json.dumps(peaks.Found({"float32": Peaks(1.0, 2.0, None, 3)}, {"a": 1})._asdict())

    def run(command, **options):
        assert command == [sys.executable, peaks.__file__]
        return SimpleNamespace(stdout=printed)

    monkeypatch.setattr(peaks.subprocess, "run", run)
    assert peaks.measure("cpu") == ({"float32": Peaks(1.0, 2.0, None, 3)}, {"a": 1})


GPU = SimpleNamespace(
    cuda=SimpleNamespace(
        get_device_capability=lambda: (9, 0),
        get_device_properties=lambda number: SimpleNamespace(multi_processor_count=132),
    )
)


def test_without_an_exchange_there_is_a_reason(monkeypatch):
    def fails():
        raise peaks.MissingExchangeError("nvcc was not found")

    monkeypatch.setattr(peaks, "fastest_in_process", fails)
    monkeypatch.setitem(sys.modules, "torch", GPU)
    seen = []
    monkeypatch.setattr(peaks, "on_gpu", lambda torch, exchange: seen.append(exchange) or {})
    assert peaks.measure("cuda").notes == {"exchange": "not measured: nvcc was not found"}
    assert seen == [None]


def test_the_fastest_exchange_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", GPU)
    fastest = {4: 3e-7, 64: 6e-7, 132: 9e-7}
    monkeypatch.setattr(peaks, "fastest_in_process", lambda: fastest)
    monkeypatch.setattr(
        peaks, "on_gpu", lambda torch, exchange: {"tf32": Peaks(1.0, 1.0, exchange, 1)}
    )
    found = peaks.measure("cuda")
    assert found.peaks["tf32"].exchange == 3e-7
    assert found.notes["exchange, seconds by blocks"][132] == 9e-7


class TimedGpu(Machine):
    """A PyTorch whose copies take 4 seconds, sums 1, and products as many as their width."""

    float32 = float16 = bfloat16 = None

    def __init__(self):
        super().__init__()
        self.cuda = self.backends = self
        self.matmul = Products(self)

    def Event(self, enable_timing):  # noqa: N802
        return self.event()

    def synchronize(self):
        pass

    def zeros(self, *sizes, **options):
        copy, read = (self.call(name, seconds) for name, seconds in (("copy", 4.0), ("sum", 1.0)))
        return SimpleNamespace(copy_=copy, sum=lambda: read(None))

    ones_like = zeros

    def randn(self, *sizes, **options):
        return SimpleNamespace(to=lambda kind: sizes[0])


class Products:
    """``torch.matmul``, and where its arithmetic is said."""

    def __init__(self, gpu):
        self.gpu, self.allow_tf32 = gpu, None

    def __call__(self, a, b):
        self.gpu.now += a / (2 if self.allow_tf32 else 1)


def test_of_the_bandwidths_and_of_the_products_the_larger_counts(monkeypatch):
    monkeypatch.setattr(peaks, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(peaks, "cache_bytes", lambda device: 7)
    found = peaks.on_gpu(TimedGpu(), 1e-6)
    assert list(found) == ["float32", "tf32", "float16", "bfloat16"]
    size = 4 * peaks.COPY_BYTES
    assert found["tf32"] == (4 * 8192**2, size / 1.0, 1e-6, 7)
    assert found["float16"].flops == 2 * 8192**2


def test_a_gpu_is_warm_before_it_is_timed():
    gpu = TimedGpu()
    peaks._warm_up(gpu, lambda: gpu.call("work", 0.2)(None), gpu.clock)
    assert len(gpu.calls) == 3  # 0.5 seconds


CUBLAS = """
extern "C" int cublasGetProperty(int part, int* value) {
  *value = 10 * (part + 1);
  return part == 2;
}
"""


def test_the_cublas_of_the_process_is_named(compiler, tmp_path):
    source, library = tmp_path / "fake.cc", tmp_path / "libcublas.so.12"
    source.write_text(CUBLAS)
    subprocess.run([*compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    assert not any(str(library) in named for named in machine.cublas())
    ctypes.CDLL(str(library))
    assert f"{library} 10.20.?" in machine.cublas()
