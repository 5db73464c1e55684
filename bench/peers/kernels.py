"""fastrnn's kernels on a GPU, on PyTorch's tensors and stream."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, List, Optional

import numpy as np

from bench.cases import Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer


class KernelsLayer(Layer):
    """A stack of `fastrnn.kernels.forward` and `backward`.

    Parameters
    ----------
    torch
        Has the tensors and the stream; tests bring a stand-in.
    algorithm
        As for `fastrnn.kernels.forward`.
    """

    def __init__(self, torch: Any, case: Case, data: Data, device: str, algorithm: Optional[str]):
        self._torch, self._case, self._algorithm = torch, case, algorithm
        kind = getattr(torch, case.dtype)

        def put(array: np.ndarray) -> Any:
            return torch.from_numpy(array).to(device, kind)

        weights, per_layer = [put(w) for w in data.weights], 4 * case.directions
        self._weights = [
            weights[k : k + per_layer] for k in range(0, len(weights), per_layer)
        ]  # of each layer
        self._xs = [put(x) for x in data.xs]
        self._d_output = put(data.d_output)
        self._lengths = None
        if data.lengths is not None:
            self._lengths = torch.from_numpy(data.lengths).to(device)
        self._latest: List[Any] = []

    def run(self, number: int) -> None:
        from fastrnn import kernels

        stream = self._torch.cuda.current_stream()
        case, output, reserves = self._case, self._xs[number], []
        for weights in self._weights:
            result = kernels.forward(
                case.cell,
                output,
                weights,
                lengths=self._lengths,
                tf32=case.tf32,
                algorithm=self._algorithm,
                reserve=case.train,
                stream=stream,
            )
            output = result.output
            reserves.append(result.reserve)
        self._latest = [output]
        if not case.train:
            return
        gradient, of_weights = self._d_output, []
        for reserve in reversed(reserves):
            assert reserve is not None
            found = kernels.backward(reserve, gradient, stream=stream)
            gradient = found.x
            of_weights[:0] = found.weights
        self._latest += [gradient, *of_weights]

    def results(self) -> Results:
        from fastrnn import kernels

        arrays = [kernels.to_host(array).astype(np.float32) for array in self._latest]
        if not self._case.train:
            return {"output": arrays[0]}
        return named(arrays[0], arrays[1], arrays[2:])


class Fastrnn(Peer):
    """fastrnn's kernels: those that it picks itself, or one algorithm."""

    def __init__(self, algorithm: Optional[str] = None):
        self.algorithm = algorithm
        self.name = "fastrnn" if algorithm is None else f"fastrnn {algorithm}"
        self.mandatory = algorithm is None

    def available(self, device: str) -> Optional[str]:
        if not find_spec("fastrnn._C"):
            return "fastrnn's native library is not built"
        from fastrnn import _C

        if _C.build_info()["cuda_toolkit"] is None:
            return "fastrnn was built without CUDA"
        found = _C.cuda_devices()
        return None if found["devices"] else f"fastrnn sees no GPU: {found['error']}"

    def version(self) -> str:
        import fastrnn._version

        return fastrnn._version.__version__

    def supports(self, case: Case, device: str) -> Optional[str]:
        return "the kernels have no hybridized form" if case.hybridize else None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import torch

        return KernelsLayer(torch, case, data, device, self.algorithm)
