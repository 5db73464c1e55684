"""Peak memory on a GPU, with stand-ins of PyTorch and of fastrnn's pool."""

from __future__ import annotations

import sys

import pytest
import sources  # noqa: F401

_C = pytest.importorskip("fastrnn._C", reason="installed without the native library")

from bench import gpu_memory

MIB = 2**20


class Gpu:
    """What is in use, which a test changes."""

    def __init__(self):
        self.cuda = self
        self.free, self.reserved, self.allocated, self.most = 900, 50, 40, 45
        self.pool = [10, 30]

    def synchronize(self):
        pass

    def empty_cache(self):
        self.reserved, self.free = self.reserved - 10, self.free + 10

    def reset_peak_memory_stats(self):
        self.most = self.allocated

    def mem_get_info(self):
        return self.free * MIB, 1000 * MIB

    def memory_reserved(self):
        return self.reserved * MIB

    def memory_allocated(self):
        return self.allocated * MIB

    def max_memory_allocated(self):
        return self.most * MIB

    def pool_bytes(self, device, set_back):
        assert device == 0
        if set_back:
            self.pool[1] = self.pool[0]
        return tuple(bytes * MIB for bytes in self.pool)


@pytest.fixture
def gpu(monkeypatch):
    fake = Gpu()
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(_C, "pool_bytes", fake.pool_bytes, raising=False)
    return fake


def test_the_most_that_pytorch_had_and_what_others_keep(gpu):
    before = gpu_memory.start()
    gpu.most = 47
    gpu.reserved, gpu.free = 60, 1000 - 60 - (50 + 5)
    assert gpu_memory.peak(before, in_pool=False) == {"peak_mib": 7 + 5}


def test_the_most_that_the_pool_had(gpu):
    before = gpu_memory.start()
    gpu.pool[:] = [12, 26]  # 16 more at the peak, of which the pool had 10
    gpu.free -= 6
    assert gpu_memory.peak(before, in_pool=True) == {"peak_mib": 16.0}
    gpu.free -= 30
    assert gpu_memory.peak(before, in_pool=True) == {"peak_mib": 16 + 20}
