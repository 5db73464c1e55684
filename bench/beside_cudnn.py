"""fastrnn's kernels beside cuDNN itself: all that one layer gives, with states and their gradients.

cuDNN is an oracle here, which computes in the same types; `measure` compares with float64, and has
no states.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from bench import data as bench_data
from bench.buffers import Memory
from bench.cases import Case
from bench.cudnn import Algorithm, CudnnLayer
from bench.cudnn_api import Cudnn

Pair = Tuple[np.ndarray, np.ndarray]


def _weights(case: Case) -> List[np.ndarray]:
    weights = bench_data.draw(case).weights
    if case.cell != "rnn_relu":
        return weights
    # No pre-activation shall be so near 0 that rounding decides which side it is on.
    for k, (_, h2h, _, h2h_bias) in enumerate(zip(*[iter(weights)] * 4)):
        weights[4 * k + 1] = h2h * np.float32(0.125)
        h2h_bias[0::2], h2h_bias[1::2] = 16, -16
    return weights


def pairs(
    case: Case,
    memory: Memory,
    take: Callable[[Any], Any] = lambda buffer: buffer,
    library: Optional[Cudnn] = None,
    stream: Any = None,
) -> Dict[str, Pair]:
    """Run both on the same random arguments.

    Parameters
    ----------
    case
        Of one layer, for training.
    memory
        Has the buffers.
    take
        Makes an array that `fastrnn.kernels` takes of a buffer.
    library
        By default the cuDNN that `cudnn_api.load` finds.
    stream
        On which fastrnn works; cuDNN has the memory's own.

    Returns
    -------
    dict
        Of each result and gradient, by name: fastrnn's array and cuDNN's, of float32 on the host.
    """
    from fastrnn import kernels

    rng = np.random.RandomState(11)
    has_cell = case.cell == "lstm"
    state = (case.directions, case.batch, case.hidden)
    lengths = case.lengths()

    def draw(*shape: int) -> Any:
        return memory.put(bench_data.rounded(rng.standard_normal(shape), case.dtype), case.dtype)

    x = draw(case.steps, case.batch, case.inputs)
    initial = [draw(*state) for _ in range(1 + has_cell)]
    heads = [draw(case.steps, case.batch, case.directions * case.hidden)]
    heads += [draw(*state) for _ in range(1 + has_cell)]
    weights = _weights(case)

    result = kernels.forward(
        case.cell,
        take(x),
        [take(memory.put(w, case.dtype)) for w in weights],
        *map(take, initial),
        lengths=take(memory.put(lengths, "int32")) if case.ragged else None,
        tf32=case.tf32,
        reserve=True,
        stream=stream,
    )
    assert result.reserve is not None
    gradients = kernels.backward(result.reserve, *map(take, heads), stream=stream)
    ours = {
        **_named(["output", "h_n", "c_n"], result),
        **_named(["gradient of x", "gradient of h_0", "gradient of c_0"], gradients),
        **{f"gradient of weights[{k}]": w for k, w in enumerate(gradients.weights)},
    }
    with CudnnLayer(case, Algorithm.STANDARD, memory, library=library) as layer:
        layer.set_weights(weights)
        forward = layer.forward(x, *initial)
        backward = layer.backward_data(*heads)
        layer.backward_weights()
        theirs = {
            name: memory.read(buffer)
            for name, buffer in {
                **_named(["output", "h_n", "c_n"], forward),
                **_named(["gradient of x", "gradient of h_0", "gradient of c_0"], backward),
            }.items()
        }
        for k, gradient in enumerate(layer.weight_gradients()):
            theirs[f"gradient of weights[{k}]"] = gradient
    if case.ragged:
        # cuDNN promises nothing of the gradient of padding; fastrnn's is zero.
        padding = np.arange(case.steps)[:, np.newaxis] >= lengths
        theirs["gradient of x"][padding] = 0
    assert list(ours) == list(theirs)
    return {name: (_to_host(array), theirs[name]) for name, array in ours.items()}


def _named(names: List[str], arrays: Any) -> Dict[str, Any]:
    return {name: array for name, array in zip(names, arrays) if array is not None}


def _to_host(array: Any) -> np.ndarray:
    from fastrnn import kernels

    found = array if isinstance(array, np.ndarray) else kernels.to_host(array)
    return found.astype(np.float32)
