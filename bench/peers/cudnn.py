"""cuDNN, called directly: each of its algorithms, and most in both layouts, on its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import numpy as np

from bench.cases import Case
from bench.cudnn import Algorithm, CudnnLayer, Unsupported
from bench.cudnn_api import Cudnn as Library
from bench.cudnn_api import MissingLibraryError, load
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer

ALGORITHMS = tuple(algorithm.name for algorithm in Algorithm)
# PERSIST_DYNAMIC compiles a kernel for each layer, which takes its time: once is enough.
PACKED = tuple(name for name in ALGORITHMS if name != "PERSIST_DYNAMIC")
GROUP = "cuDNN"


@contextmanager
def _refusal() -> Iterator[None]:
    """Say as the other peers do that there is no such layer."""
    try:
        yield
    except Unsupported as error:
        raise NotImplementedError(str(error)) from error


class BaselineLayer(Layer):
    """A layer of the baseline in the interface of the others.

    Parameters
    ----------
    memory
        Has the buffers and the stream; tests bring the host's.
    library
        By default what `cudnn_api.load` finds.
    """

    def __init__(
        self,
        memory: Any,
        algorithm: str,
        packed: bool,
        case: Case,
        data: Data,
        library: Optional[Library] = None,
    ):
        self._memory, self._case = memory, case
        with _refusal():
            self._layer = CudnnLayer(
                case, Algorithm[algorithm], memory, packed=packed, library=library
            )
        self._layer.set_weights(data.weights)
        self._xs = [memory.put(x, case.dtype) for x in data.xs]
        self._d_outputs = [memory.put(d, case.dtype) for d in data.d_outputs]
        self._output: Any = None
        self._d_x: Any = None
        self._padding = np.arange(case.steps)[:, np.newaxis] >= case.lengths()

    def run(self, number: int) -> None:
        # Whether it has an algorithm for a layer, cuDNN may say only here.
        with _refusal():
            self._output = self._layer.forward(self._xs[number]).output
            if self._case.train:
                self._d_x = self._layer.backward_data(self._d_outputs[number]).x
                self._layer.backward_weights()

    def results(self) -> Results:
        output = np.asarray(self._memory.read(self._output), np.float32)
        if not self._case.train:
            return {"output": output}
        d_x = np.asarray(self._memory.read(self._d_x), np.float32)
        d_x[self._padding] = 0  # cuDNN promises nothing there
        weights = [np.asarray(w, np.float32) for w in self._layer.weight_gradients()]
        return named(output, d_x, weights)

    def close(self) -> None:
        self._layer.close()


class Cudnn(Peer):
    """One algorithm of cuDNN, told that rows may be padded, or that they are packed."""

    group = GROUP

    def __init__(self, algorithm: str, packed: bool = False):
        self.algorithm, self.packed = algorithm, packed
        self.name = f"{GROUP} {algorithm}" + (" packed" if packed else "")

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return device == "cuda" and task == "layer"

    def available(self, device: str) -> Optional[str]:
        if device != "cuda":
            return "cuDNN is for GPUs"
        try:
            load()
        except MissingLibraryError as error:
            return " ".join(str(error).split())
        return None

    def version(self) -> str:
        return str(load().version)

    def supports(self, case: Case, device: str) -> Optional[str]:
        if case.hybridize:
            return "cuDNN has no hybridized form"
        if self.packed and case.ragged:
            return "rows of several lengths are padded here"
        return None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        from bench.buffers import TorchMemory

        return BaselineLayer(TorchMemory(device), self.algorithm, self.packed, case, data)
