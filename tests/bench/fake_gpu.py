"""A PyTorch for measuring on a made-up GPU: calls do their work at once, on the host."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace


class FakeTorch:
    """What `measure` and `graphs` take of PyTorch.

    A layer that is to be replayed adds its work to `capturing`, while that is a list.
    """

    def __init__(self):
        self.cuda, self._C = self, SimpleNamespace()
        self.capturing = None
        self.dies_of = None  # text of an error after which the GPU does nothing
        self.float32 = "float32"
        self.seen = []  # what was done, as far as tests look at it
        self.alive, self.most_alive = [], 0  # graphs

    def synchronize(self):
        if self.dies_of:
            raise RuntimeError(self.dies_of)

    def get_device_properties(self, number):
        return SimpleNamespace(L2_cache_size=1 << 10)

    def zeros(self, count, dtype, device):
        assert (dtype, device) == ("float32", "cuda")
        self.seen.append(f"{4 * count} bytes")
        return SimpleNamespace(sum=lambda: self.seen.append("evict"))

    def Event(self, enable_timing):  # noqa: N802
        assert enable_timing
        return SimpleNamespace(
            record=lambda: self.seen.append("record"),
            synchronize=lambda: self.seen.append("wait"),
            elapsed_time=lambda end: 1.0,
        )

    def graph_pool_handle(self):
        return 0

    def current_stream(self):
        return 0

    def CUDAGraph(self):  # noqa: N802
        graph = SimpleNamespace(work=[], reset=lambda: self.alive.remove(graph))
        graph.replay = lambda: [work() for work in graph.work]
        return graph

    @contextmanager
    def stream(self, stream):
        yield

    @contextmanager
    def graph(self, graph, pool):
        self.capturing = graph.work
        try:
            yield
            self.alive.append(graph)
            self.most_alive = max(self.most_alive, len(self.alive))
        finally:
            self.capturing = None
