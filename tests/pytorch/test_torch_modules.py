"""fastrnn.torch's layers as PyTorch's modules: parameters, types, devices, threads, imports."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

from pairs import compare, pair

import fastrnn.torch
from fastrnn import kernels
from fastrnn.torch import operators


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(5)


def test_parameters_are_pytorch_s():
    for name in ("LSTM", "GRU", "RNN"):
        torch.manual_seed(2)
        theirs = getattr(torch.nn, name)(5, 9, 2, bidirectional=True)
        torch.manual_seed(2)
        ours = getattr(fastrnn.torch, name)(5, 9, 2, bidirectional=True)
        assert isinstance(ours, getattr(torch.nn, name))
        assert repr(ours) == repr(theirs)
        expected, found = theirs.state_dict(), ours.state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[key], array) for key, array in expected.items())


def test_copies_and_files():
    layer = fastrnn.torch.LSTM(5, 9, backend="native")
    x = torch.randn(4, 3, 5)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(x)[0], layer(x)[0])
        assert copied._choice == "native"


def test_a_parameter_may_be_replaced():
    theirs, ours = pair("lstm", 5, 9)
    for layer in (theirs, ours):
        weight = torch.nn.Parameter(torch.full_like(layer.weight_hh_l0, 0.1))
        layer.weight_hh_l0 = weight
    compare(theirs, ours, torch.randn(4, 3, 5))


def test_autocast_on_cuda_sets_the_type(monkeypatch):
    # Fake tensors have a device and a type, and no values: no GPU is needed.
    from torch._subclasses.fake_tensor import FakeTensorMode

    seen, call = [], operators.layer

    def watched(mode, x, states, weights, *others):
        seen.extend(a.dtype for a in (x, *states, *weights) if a is not None)
        return call(mode, x, states, weights, *others)

    monkeypatch.setattr(operators, "layer", watched)
    monkeypatch.setattr(fastrnn.torch.layers.backends, "obstacle", lambda *arguments: None)
    monkeypatch.setattr(fastrnn.torch.LSTM, "reset_parameters", lambda layer: None)
    monkeypatch.setattr(fastrnn.torch.LSTM, "flatten_parameters", lambda layer: None)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.float16)
    with FakeTensorMode(), torch.no_grad():
        layer = fastrnn.torch.LSTM(5, 9, device="cuda")
        states = (torch.empty(1, 3, 9, device="cuda"),) * 2
        output, (h_n, _) = layer(torch.empty(4, 3, 5, device="cuda"), states)
    assert set(seen) == {torch.float16}
    assert output.dtype == h_n.dtype == torch.float16


def test_autocast_leaves_float64_alone(monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.float16)
    with FakeTensorMode():
        for dtype in (torch.float64, torch.int64):
            assert (
                fastrnn.torch.layers._computed_in(torch.empty(2, device="cuda").to(dtype)) is dtype
            )


def test_parameters_on_another_device_are_refused():
    with torch.device("meta"):
        layer = fastrnn.torch.GRU(5, 9)
    loaded = torch.nn.GRU(5, 9).state_dict()
    del loaded["bias_hh_l0"]
    layer.load_state_dict(loaded, strict=False, assign=True)
    with pytest.raises(RuntimeError, match="not at the same device"):
        layer(torch.randn(20, 3, 5))


def test_parameters_of_another_type_are_refused():
    layer = fastrnn.torch.GRU(5, 9)
    layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0.half())
    with pytest.raises(RuntimeError, match="same dtype"):
        layer(torch.randn(20, 3, 5))


def test_a_layer_on_meta_has_shapes():
    layer = fastrnn.torch.GRU(5, 9, device="meta")
    assert layer(torch.empty(20, 3, 5, device="meta"))[0].shape == (20, 3, 9)
    assert "meta" in layer.backend.reason


def test_forward_mode_derivatives_are_pytorchs():
    from torch.autograd import forward_ad

    layer, x = torch.nn.GRU(5, 9).requires_grad_(False), torch.randn(20, 3, 5)
    tangents = []
    for _ in range(2):
        with forward_ad.dual_level():
            output = layer(forward_ad.make_dual(x, torch.ones_like(x)))[0]
            tangents.append(forward_ad.unpack_dual(output).tangent)
        fastrnn.torch.accelerate(layer)
    assert torch.equal(*tangents)


def run(code):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_pytorch_the_extra_is_named():
    done = run(
        "import sys, fastrnn; assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None; import fastrnn.torch"
    )
    assert "pip install 'fastrnn[torch]'" in done.stderr.splitlines()[-1]


def test_without_mxnet_nothing_is_missing():
    done = run(
        "import importlib.util as util, sys; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'mxnet' else find(name, *rest)\n"
        "import fastrnn.torch, torch; fastrnn.torch.LSTM(2, 3)(torch.ones(4, 1, 2))\n"
        "assert 'mxnet' not in sys.modules"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_number_of_threads_is_pytorch_s(monkeypatch):
    seen = []
    call = kernels.forward
    monkeypatch.setattr(
        kernels, "forward", lambda *a, **k: (seen.append(k["threads"]), call(*a, **k))[1]
    )
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            fastrnn.torch.GRU(5, 9, backend="native")(torch.randn(4, 3, 5))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_small_calls_are_left_to_pytorch():
    one_step, many = torch.randn(1, 3, 5), torch.randn(30, 3, 5)
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (30, 20)])
    short = torch.nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (3, 2)])

    def names(layer):
        return [layer.backend_for(x).name for x in (one_step, many, short, packed)]

    for cell, large in (("GRU", 9), ("RNN", 9), ("LSTM", 200)):
        layer = getattr(fastrnn.torch, cell)(5, large)
        step = "native" if cell == "LSTM" else "torch"
        assert names(layer) == [step, "native", "torch", "native"]
        assert "PyTorch's layer is faster" in layer.backend.reason
        forced = getattr(fastrnn.torch, cell)(5, large, backend="native")
        assert set(names(forced)) == {"native"}
    small = fastrnn.torch.LSTM(5, 9)
    assert names(small) == ["torch", "torch", "torch", "native"]
    assert "below 128 units" in small.backend.reason
    theirs = torch.nn.LSTM(5, 9)
    theirs.load_state_dict(small.state_dict())
    assert torch.equal(small(one_step)[0], theirs(one_step)[0])


def test_tf32_is_pytorch_s():
    on_cuda = SimpleNamespace(is_cuda=True)
    assert operators._tf32(SimpleNamespace(is_cuda=False)) is None
    found = {}
    before = torch.backends.cudnn.allow_tf32
    try:
        for allowed in (True, False):
            torch.backends.cudnn.allow_tf32 = allowed
            found[allowed] = operators._tf32(on_cuda)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert found == {True: None, False: False}  # None is the kernels' default
