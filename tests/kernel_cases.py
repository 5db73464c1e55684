"""Layers for fastrnn.kernels: random arguments on a device, and the oracle's results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Optional, Sequence

import noise as noises
import numpy as np
import reference as ref
from host_bfloat16 import HostBfloat16

from fastrnn import _native, kernels


def devices():
    """Return the devices that the native library has kernels for and that are here."""
    library = _native.library()
    found = [] if library.build_info()["onednn"] is None else ["cpu"]
    return found + ["cuda"] * bool(library.cuda_devices()["devices"])


# The devices, each with every type that it has; bfloat16 on the CPU has test_kernels_bfloat16.py,
# since NumPy does not have it.
DTYPES = {"cpu": ["float32", "float64", "float16"], "cuda": ["float32", "float16", "bfloat16"]}
PLACES = [(device, dtype) for device in devices() for dtype in DTYPES[device]]
# Types whose rounding is far below what tests of small layers look for.
PRECISE = [place for place in PLACES if place[1] in ("float32", "float64")]


def put(array: Any, device: str, dtype: Optional[str] = None) -> Any:
    """Return an array as the kernels take it on a device."""
    if array is None:
        return None
    if device == "cpu":
        if dtype == "bfloat16":
            return HostBfloat16(array)
        return array if dtype is None else array.astype(dtype, copy=False)
    return kernels.to_device(array, dtype)


def get(array: Any) -> Any:
    """Return a result on the host."""
    if isinstance(array, HostBfloat16):
        return array.numbers()
    return array if array is None or isinstance(array, np.ndarray) else kernels.to_host(array)


def rounded(array: Any, dtype: str) -> Any:
    """Return the numbers of `dtype` next to an array's: 16-bit ones as float32."""
    if array is None:
        return None
    if dtype in ("float32", "float64"):
        return array.astype(dtype)
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    bits = array.astype(np.float32).view(np.uint32)
    even = (bits >> 16) & 1
    return ((bits + 0x7FFF + even) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@dataclass
class KernelCase:
    """Random arguments of layers, and the gradients of its results, on the host.

    They are in float64 for that type, and in float32 for all others.
    """

    mode: str
    steps: int
    rows: int
    inputs: int
    hidden: int
    directions: int = 1
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    lengths: Optional[Sequence[int]] = None
    tf32: Optional[bool] = False
    algorithm: Optional[str] = None
    layers: int = 1
    clip: Optional[ref.Clip] = None
    projection: int = 0
    noise: Optional[kernels.Noise] = None
    noise_seed: Optional[int] = None
    layer_norm: bool = False

    def __post_init__(self):
        rng = np.random.RandomState(self.seed)
        state = (self.layers * self.directions, self.rows, self.projection or self.hidden)
        cell_state = (*state[:2], self.hidden)
        cell = self.mode == "lstm"
        self.x = self._draw(rng, self.steps, self.rows, self.inputs)
        self.h_0 = self._draw(rng, *state)
        self.c_0 = self._draw(rng, *cell_state) if cell else None
        sizes = {"layers": self.layers, "directions": self.directions}
        sizes.update(projection=self.projection, layer_norm=self.layer_norm)
        stack = ref.random_stack(rng, self.mode, self.inputs, self.hidden, **sizes)
        flat = [w for direction in stack for w in direction if w is not None]
        self.names = [name for name, w in stack[0]._asdict().items() if w is not None]
        self.weights = [rounded(w, self.dtype) for w in flat]
        self.d_output = self._draw(rng, self.steps, self.rows, self.directions * state[2])
        self.d_h_n = self._draw(rng, *state)
        self.d_c_n = self._draw(rng, *cell_state) if cell else None

    def _draw(self, rng, *shape):
        return rounded(rng.standard_normal(shape), self.dtype)

    def put(self, array):
        return put(array, self.device, self.dtype)

    def arguments(self):
        """Return the arguments of `kernels.forward`."""
        lengths = None if self.lengths is None else np.array(self.lengths, np.int32)
        return {
            "mode": self.mode,
            "x": self.put(self.x),
            "weights": [self.put(w) for w in self.weights],
            "h_0": self.put(self.h_0),
            "c_0": self.put(self.c_0),
            "layers": self.layers,
            "lengths": put(lengths, self.device),
            "projected": self.projection > 0,
            "clip": None if self.clip is None else kernels.Clip(*self.clip),
            "noise": self.noise,
            "seed": self.noise_seed,
            "layer_norm": self.layer_norm,
            "tf32": self.tf32,
            "algorithm": self.algorithm,
        }

    def forward(self, **changes):
        """Return the results on the host; the reserve stays where it is."""
        if self.device == "cpu" and self.dtype == "bfloat16":
            changes = {"out": self._new_result(), **changes}
        result = kernels.forward(**{**self.arguments(), **changes})
        return result._replace(**{k: get(getattr(result, k)) for k in ("output", "h_n", "c_n")})

    def _new_result(self):
        """Return arrays for the results, whose numbers do not matter."""
        # The reserve is as large as in float16.
        like = replace(self, dtype="float16").forward(reserve=True).reserve.values
        values = np.zeros_like(like)
        fields = dict.fromkeys(kernels.Reserve._fields)
        kept = kernels.Reserve(**{**fields, "values": values})
        return kernels.Result(*map(self.put, (self.d_output, self.h_0, self.c_0)), kept)

    def backward(self, reserve, *gradients):
        """Return the gradients on the host, by default of all results."""
        gradients = gradients or (self.d_output, self.d_h_n, self.d_c_n)
        out = None
        if self.device == "cpu" and self.dtype == "bfloat16":
            inputs = (self.x, self.h_0, self.c_0)
            out = kernels.Gradients(*map(self.put, inputs), [self.put(w) for w in self.weights])
        found = kernels.backward(reserve, *(self.put(g) for g in gradients), out=out)
        return SimpleNamespace(
            x=get(found.x),
            h_0=get(found.h_0),
            c_0=get(found.c_0),
            weights=[get(w) for w in found.weights],
        )

    def padding(self):
        """Return which places of [T, N] are past their row's length."""
        lengths = np.full(self.rows, self.steps) if self.lengths is None else self.lengths
        return np.arange(self.steps)[:, np.newaxis] >= lengths

    def stack(self):
        """Return the weights of each layer and direction."""
        size = len(self.names)
        return [
            ref.Weights(**dict(zip(self.names, self.weights[size * d : size * (d + 1)])))
            for d in range(self.layers * self.directions)
        ]

    def oracle_options(self):
        """Return the keyword arguments of the oracle."""
        return {
            "directions": self.directions,
            "lengths": None if self.lengths is None else np.array(self.lengths),
            "clip": self.clip,
            "noise": self._drawn(),
        }

    def reference(self, output=None):
        """Return the oracle's results, and its gradients.

        The derivative of ReLU jumps, so the oracle's backward starts from a given `output` of the
        last layer.
        """
        result = ref.stack_forward(
            self.mode, self.x, self.h_0, self.c_0, self.stack(), **self.oracle_options()
        )
        if self.mode == "rnn_relu" and output is not None and self.noise is None:
            last = result.tape[1][-self.directions :]
            for run, own in zip(last, np.split(output, self.directions, axis=2)):
                saved = run.tape[3]
                saved[:] = [(t, on, (x, h, own[t])) for t, on, (x, h, _) in saved]
        return result, ref.stack_backward(result, self.d_output, self.d_h_n, self.d_c_n)

    def _drawn(self):
        """Return what the layers draw, for the oracle."""
        if self.noise is None:
            return None
        sizes = (self.steps, self.rows, self.hidden, self.projection or self.hidden)
        return noises.drawn(self.noise, self.noise_seed, sizes, self.layers, self.directions)


def compare(case, result, gradients, precision=None):
    """Fail unless results and gradients are the oracle's, up to `precision`'s rounding."""

    def close(actual, expected, name):
        ref.assert_close(actual, expected, name, precision or case.dtype)

    expected, expected_gradients = case.reference(result.output)
    close(result.output, expected.output, "output")
    close(result.h_n, expected.h, "h_n")
    close(gradients.x, expected_gradients.x, "x")
    close(gradients.h_0, expected_gradients.h0, "h_0")
    if case.mode == "lstm":
        close(result.c_n, expected.c, "c_n")
        close(gradients.c_0, expected_gradients.c0, "c_0")
    flat = [w for d in expected_gradients.weights for w in d if w is not None]
    for i, (actual, wanted) in enumerate(zip(gradients.weights, flat)):
        close(actual, wanted, f"weights[{i}]")
    assert not result.output[case.padding()].any()
    assert not gradients.x[case.padding()].any()


def assert_agrees(case, precision=None):
    """Fail unless the kernels compute what the oracle does, with and without a reserve."""
    result = case.forward(reserve=True)
    compare(case, result, case.backward(result.reserve), precision)
    inference = case.forward()
    for kept, free in zip(result[:3], inference[:3]):
        # A GPU's library of products may choose by an array's alignment, which the reserve changes.
        if kept is not None and case.device == "cuda":
            ref.assert_close(free, kept, "without a reserve", precision or case.dtype)
        elif kept is not None:
            assert np.array_equal(kept, free)
    assert inference.reserve is None


def capability():
    """Return the device's compute capability, as 10 * major + minor."""
    return int(_native.library().device_facts(0)["capability"])


def persistent(**numbers):
    """Return the name of the algorithm, cut in this way."""
    return "persistent:" + ",".join(f"{name}={value}" for name, value in numbers.items())
