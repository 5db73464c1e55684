"""Calls captured into a CUDA graph, on a GPU, with PyTorch's graphs and tensors."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU", allow_module_level=True)

from kernel_cases import KernelCase

from fastrnn import kernels


@pytest.mark.parametrize("algorithm", ["stepwise", "persistent"])
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize(("directions", "layers"), [(2, 1), (1, 2), (1, 5)])
def test_a_graph_computes_with_what_its_arrays_hold(directions, layers, mode, algorithm):
    sizes = (6, 3, 8, 40, directions)
    first, second = (KernelCase(mode, *sizes, s, device="cuda", layers=layers) for s in (0, 1))
    on_gpu = lambda array: torch.from_numpy(array).cuda()  # noqa: E731
    weights = [on_gpu(w) for w in first.weights]
    x, d_output = on_gpu(first.x), on_gpu(first.d_output)
    options = {"layers": layers, "algorithm": algorithm, "tf32": False, "reserve": True}

    def run(result=None, gradients=None):
        stream = torch.cuda.current_stream()
        result = kernels.forward(mode, x, weights, **options, out=result, stream=stream)
        found = kernels.backward(result.reserve, d_output, out=gradients, stream=stream)
        return result, found

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        result, gradients = run()
        run(result, gradients)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(result, gradients)
    x.copy_(on_gpu(second.x))
    d_output.copy_(on_gpu(second.d_output))
    graph.replay()
    torch.cuda.synchronize()
    wanted, wanted_gradients = run()
    pairs = [(result.output, wanted.output), (result.h_n, wanted.h_n)]
    pairs += [(gradients.x, wanted_gradients.x)]
    pairs += list(zip(gradients.weights, wanted_gradients.weights))
    for found, expected in pairs:
        assert np.array_equal(kernels.to_host(found), kernels.to_host(expected))
