"""fastrnn's kernels on a GPU, on PyTorch's tensors and stream."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from bench.cases import Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer, TensorLayer, to_host


def as_tensors(torch: Any, arrays: Any) -> Any:
    """A `kernels.Result` or `kernels.Gradients` whose arrays are PyTorch's, of the same memory."""

    def convert(value: Any) -> Any:
        if hasattr(value, "values") and hasattr(value, "_replace"):  # the reserve
            return value._replace(values=convert(value.values))
        if isinstance(value, list):
            return [convert(one) for one in value]
        return None if value is None else torch.from_dlpack(value)

    return type(arrays)(*map(convert, arrays))


def plan_of(case: Case, device: Any, algorithm: Optional[str] = None) -> Any:
    """What the kernels pick for a layer of the case, on a device as of `fastrnn.kernels.plan`."""
    from fastrnn import kernels

    return kernels.plan(
        case.cell,
        case.steps,
        case.batch,
        case.hidden,
        directions=case.directions,
        dtype=case.dtype,
        tf32=case.tf32,
        algorithm=algorithm,
        device=device,
    )


class KernelsLayer(TensorLayer):
    """`fastrnn.kernels.forward` and `backward`.

    The first run makes the arrays that all later ones write, as cuDNN's layer has its own too. So
    a call allocates nothing but workspace, and can be captured into a CUDA graph.

    Parameters
    ----------
    algorithm
        As for `fastrnn.kernels.forward`.
    """

    def __init__(self, torch: Any, case: Case, data: Data, device: str, algorithm: Optional[str]):
        super().__init__(torch, case, data, device)
        self._algorithm = algorithm
        self._weights = [self.put(w) for w in data.weights]
        self._lengths = None
        if data.lengths is not None:
            self._lengths = torch.from_numpy(data.lengths).to(device)
        result, gradients = self._passes(0, None, None)
        self._result = as_tensors(torch, result)
        self._gradients = None if gradients is None else as_tensors(torch, gradients)

    def _passes(self, number: int, result: Any, gradients: Any) -> Tuple[Any, Any]:
        """Run forward and backward into these arrays, or into new ones."""
        from fastrnn import kernels

        stream = self.torch.cuda.current_stream()
        case = self.case
        made = kernels.forward(
            case.cell,
            self.xs[number],
            self._weights,
            layers=case.layers,
            lengths=self._lengths,
            tf32=case.tf32,
            algorithm=self._algorithm,
            reserve=case.train,
            out=result,
            stream=stream,
        )
        if made.reserve is None:
            return made, None
        d_output = self.d_outputs[number]
        return made, kernels.backward(made.reserve, d_output, out=gradients, stream=stream)

    def run(self, number: int) -> None:
        self._passes(number, self._result, self._gradients)

    def results(self) -> Results:
        output = to_host(self._result.output)
        if self._gradients is None:
            return {"output": output}
        weights = [to_host(w) for w in self._gradients.weights]
        return named(output, to_host(self._gradients.x), weights)

    def facts(self) -> Dict[str, str]:
        """What the kernels picked for a layer; layers differ in their input only."""
        return {"plan": str(plan_of(self.case, 0, self._algorithm))}


class Fastrnn(Peer):
    """fastrnn's kernels: those that it picks itself, or one algorithm."""

    package = "fastrnn"
    lacks = ("hybridize",)
    in_pool = True

    def __init__(self, algorithm: Optional[str] = None):
        self.algorithm = algorithm
        self.name = "fastrnn" if algorithm is None else f"fastrnn {algorithm}"

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return task == "layer" or self.algorithm is None

    def available(self, device: str) -> Optional[str]:
        from fastrnn._native import find

        library, reason = find()
        if library is None:
            return reason
        if library.build_info()["cuda_toolkit"] is None:
            return "fastrnn was built without CUDA"
        found = library.cuda_devices()
        return None if found["devices"] else f"fastrnn sees no GPU: {found['error']}"

    def version(self) -> str:
        import fastrnn._version

        return fastrnn._version.__version__

    def unproven(self, case: Case, device: str) -> Optional[str]:
        from fastrnn import _native
        from fastrnn.check import verdict
        from fastrnn.check.kinds import CAPABILITY, Kind

        capability = _native.library().device_facts(0)["capability"]
        tf32 = case.tf32 and capability >= CAPABILITY["tf32"]
        kind = Kind(case.cell, "tf32" if tf32 else case.dtype, case.directions, case.ragged)
        found, reason = verdict.load(0, kernels_alone=True)
        if found is None:
            return reason
        result, details = found.result(kind)
        return None if result == verdict.PASSED else f"`fastrnn check`: {result}: {details}"

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import torch

        return KernelsLayer(torch, case, data, device, self.algorithm)

    def build_model(self, case: Case, text: Any, device: str) -> Layer:
        if self.algorithm is not None:
            return super().build_model(case, text, device)
        from bench.peers.pytorch import FastrnnTorch

        return FastrnnTorch().build_model(case, text, device)
