"""cuDNN, called directly: each of its algorithms takes part on its own."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from bench.cases import Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer

ALGORITHMS = ("STANDARD", "PERSIST_STATIC", "PERSIST_DYNAMIC", "PERSIST_STATIC_SMALL_H")


def _baseline() -> Any:
    """The module that calls cuDNN, which is not looked for before it is needed."""
    import cudnn

    return cudnn


class CudnnLayer(Layer):
    """A layer of the baseline in the interface of the others."""

    def __init__(self, baseline: Any, memory: Any, algorithm: str, case: Case, data: Data):
        self._memory, self._case = memory, case
        self._layer = baseline.CudnnLayer(case, baseline.Algorithm[algorithm], memory)
        self._layer.set_weights(data.weights)
        self._xs = [memory.put(x, case.dtype) for x in data.xs]
        self._d_output = memory.put(data.d_output, case.dtype)
        self._output: Any = None
        self._d_x: Any = None

    def run(self, number: int) -> None:
        self._output = self._layer.forward(self._xs[number]).output
        if self._case.train:
            self._d_x = self._layer.backward_data(self._d_output).x
            self._layer.backward_weights()

    def results(self) -> Results:
        output = np.asarray(self._memory.read(self._output), np.float32)
        if not self._case.train:
            return {"output": output}
        d_x = np.asarray(self._memory.read(self._d_x), np.float32)
        weights = [np.asarray(w, np.float32) for w in self._layer.weight_gradients()]
        return named(output, d_x, weights)


class Cudnn(Peer):
    """One algorithm of cuDNN; a run needs its STANDARD one, which has every layer."""

    def __init__(self, algorithm: str):
        self.algorithm = algorithm
        self.name = f"cuDNN {algorithm}"
        self.mandatory = algorithm == "STANDARD"

    def available(self, device: str) -> Optional[str]:
        if device != "cuda":
            return "cuDNN is for GPUs"
        try:
            import cudnn_api

            cudnn_api.load()
        except (ImportError, OSError) as error:
            return f"cuDNN does not load: {str(error).splitlines()[0]}"
        return None

    def version(self) -> str:
        import cudnn_api

        return str(cudnn_api.load().version)

    def supports(self, case: Case, device: str) -> Optional[str]:
        return "cuDNN has no hybridized form" if case.hybridize else None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        from buffers import TorchMemory

        baseline = _baseline()
        try:
            return CudnnLayer(baseline, TorchMemory(device), self.algorithm, case, data)
        except baseline.Unsupported as error:
            raise NotImplementedError(str(error)) from error
