"""Layers in float64 against finite differences, by MXNet's own check of gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, mx

from fastrnn.mxnet import native

pytestmark = pytest.mark.skipif(
    native.ON_CUDA or not native.STATUS.usable, reason="the native operator is not the CPU's"
)
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": [4, 0, 2]},
    "projection": {"projection": 2},
    "clip": {"clip": ref.Clip(-0.2, 0.3)},
}
CASES = [(mode, "plain") for mode in MODES] + [("gru", "lengths")]
CASES += [("lstm", name) for name in OPTIONS if name != "plain"]


@pytest.mark.parametrize(("mode", "option"), CASES)
def test_gradients_are_finite_differences(mode, option):
    case = LayerCase(mode, I=2, H=3, layers=2, directions=2, dtype="float64", **OPTIONS[option])
    layer = case.layer()
    assert layer.backend.name == "native"
    states = [mx.sym.var(f"state{k}") for k in range(2 if mode == "lstm" else 1)]
    inputs = [mx.sym.var("x"), states] + [mx.sym.var("lengths")] * bool(case.lengths)
    output, after = layer(*inputs)
    x, begin, *lengths = case.arguments()
    arrays = {"x": x, **{f"state{k}": state for k, state in enumerate(begin)}}
    arrays.update({p.name: p.data() for p in layer.collect_params().values()})
    differentiated = list(arrays)
    arrays.update(zip(["lengths"], lengths))
    mx.test_utils.check_numeric_gradient(
        mx.sym.concat(*(array.reshape((-1,)) for array in [output, *after]), dim=0),
        arrays,
        grad_nodes=differentiated,
        numeric_eps=1e-5,
        rtol=1e-7,
        atol=1e-8,
        dtype=np.float64,
    )
