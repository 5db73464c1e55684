"""fastrnn.torch's layers against PyTorch's own in float64: outputs, states and every gradient."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import reference as ref

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

import fastrnn.torch
from fastrnn import kernels
from fastrnn.torch import operators

CELLS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
}
SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (9, 4, 3, 17), (33, 2, 10, 31)]  # T, N, I, H


def pair(cell, inputs, hidden, layers=1, **options):
    """PyTorch's layer in float64, and ours with the same parameters."""
    name, own = CELLS[cell]
    theirs = getattr(torch.nn, name)(inputs, hidden, layers, **own, **options)
    ours = getattr(fastrnn.torch, name)(inputs, hidden, layers, **own, **options, backend="native")
    ours.load_state_dict(theirs.state_dict())
    return theirs.double(), ours


def as_list(hx):
    return [] if hx is None else list(hx) if isinstance(hx, tuple) else [hx]


def results(layer, dtype, given, hx, wanted=("output", "h_n", "c_n")):
    """Output, final states and, of a sum over those wanted, every gradient."""
    layer.zero_grad()
    packed = isinstance(given, torch.nn.utils.rnn.PackedSequence)
    data = (given.data if packed else given).detach().to(dtype).requires_grad_()
    leaves = [state.detach().to(dtype).requires_grad_() for state in as_list(hx)]
    x = given._replace(data=data) if packed else data
    states = None if hx is None else tuple(leaves) if isinstance(hx, tuple) else leaves[0]
    output, finals = layer(x, states)
    if packed:
        assert output.sorted_indices is given.sorted_indices
        assert torch.equal(output.batch_sizes, given.batch_sizes)
        output = output.data
    found = dict(zip(("output", "h_n", "c_n"), [output, *as_list(finals)]))
    weights = {
        name: torch.linspace(-1, 1, array.numel(), dtype=dtype).view(array.shape)
        for name, array in found.items()
    }
    sum((found[name] * weights[name]).sum() for name in wanted if name in found).backward()
    found["d_x"] = data.grad
    found.update((f"d_state{k}", leaf.grad) for k, leaf in enumerate(leaves))
    found.update((f"d_{name}", p.grad) for name, p in layer.named_parameters())
    return found


def compare(theirs, ours, given, hx=None, **options):
    expected = results(theirs, torch.float64, given, hx, **options)
    found = results(ours, torch.float32, given, hx, **options)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array is None:  # a state that nothing depends on
            continue
        ref.assert_close(found[name].detach(), array.detach().numpy(), name)
        assert found[name].stride() == array.stride()


def states_for(cell, layer, rows):
    count = layer.num_layers * (1 + layer.bidirectional)
    shape = (count, layer.hidden_size) if rows is None else (count, rows, layer.hidden_size)
    made = tuple(torch.randn(shape) for _ in range(1 + (cell == "lstm")))
    return made if cell == "lstm" else made[0]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(5)


@pytest.mark.parametrize("with_states", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_pytorch_s(cell, size, with_states):
    T, N, inputs, H = size
    theirs, ours = pair(cell, inputs, H)
    hx = states_for(cell, ours, N) if with_states else None
    compare(theirs, ours, torch.randn(T, N, inputs), hx)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3},
        {"bidirectional": True},
        {"layers": 2, "bidirectional": True, "batch_first": True},
        {"layers": 2, "bias": False},
        {"bidirectional": True, "bias": False, "batch_first": True},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("cell", CELLS)
def test_options(cell, options):
    theirs, ours = pair(cell, 5, 9, **options)
    x = torch.randn(4, 3, 5) if options.get("batch_first") else torch.randn(3, 4, 5)
    compare(theirs, ours, x, states_for(cell, ours, 4))
    with torch.no_grad():
        assert not ours(x)[0].requires_grad
        ref.assert_close(ours(x)[0], theirs(x.double())[0].numpy())


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_input_without_a_batch(cell, batch_first):
    theirs, ours = pair(cell, 5, 9, 2, batch_first=batch_first)
    compare(theirs, ours, torch.randn(6, 5), states_for(cell, ours, None))
    compare(theirs, ours, torch.randn(6, 5))


@pytest.mark.parametrize(
    "lengths",
    [[6, 4, 4, 1], [2, 6, 1, 4], [3, 3], [1], [1, 9]],
    ids=lambda n: "-".join(map(str, n)),
)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences(cell, bidirectional, lengths):
    theirs, ours = pair(cell, 5, 9, 2, bidirectional=bidirectional, batch_first=True)
    rows = [torch.randn(length, 5) for length in lengths]
    longest_first = lengths == sorted(lengths, reverse=True)
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=longest_first)
    assert ours.backend_for(packed).name == "native"
    compare(theirs, ours, packed, states_for(cell, ours, len(rows)))
    compare(theirs, ours, packed)


@pytest.mark.parametrize("wanted", [["output"], ["h_n"], ["c_n"]])
def test_gradients_of_a_part_of_the_results(wanted, monkeypatch):
    heads, call = [], kernels.backward

    def watched(reserve, *given, **options):
        heads.extend(name for name, d in zip(("output", "h_n", "c_n"), given) if d is not None)
        return call(reserve, *given, **options)

    monkeypatch.setattr(kernels, "backward", watched)
    theirs, ours = pair("lstm", 5, 9)
    compare(theirs, ours, torch.randn(4, 3, 5), states_for("lstm", ours, 3), wanted=wanted)
    assert heads == sorted({"output", *wanted}, reverse=True)  # no gradients of zeros


def test_gradients_of_some_parameters_alone():
    theirs, ours = pair("gru", 5, 9, 2)
    found = []
    for layer, dtype in ((theirs, torch.float64), (ours, torch.float32)):
        layer.requires_grad_(False)
        layer.weight_hh_l1.requires_grad_(True)
        torch.manual_seed(3)
        layer(torch.randn(4, 3, 5).to(dtype))[0].pow(2).sum().backward()
        assert [name for name, p in layer.named_parameters() if p.grad is not None] == [
            "weight_hh_l1"
        ]
        found.append(layer.weight_hh_l1.grad)
    torch.manual_seed(3)
    x = torch.randn(4, 3, 5)
    theirs.zero_grad()
    theirs(x.double())[0].pow(2).sum().backward()
    ref.assert_close(found[1], theirs.weight_hh_l1.grad.numpy())


@pytest.mark.parametrize("rate", [0.4, 1.0])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_draws_what_pytorch_draws(cell, rate):
    theirs, ours = pair(cell, 5, 9, 3, bidirectional=True, dropout=rate)
    theirs = theirs.float()
    x = torch.randn(7, 4, 5)
    for training in (True, False):
        found = []
        for layer in (theirs, ours):
            torch.manual_seed(8)
            layer.train(training).zero_grad()
            output, _ = layer(x)
            output.pow(2).sum().backward()
            found.append([output, *(p.grad for p in layer.parameters())])
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(4, 5, 6, 7),
        lambda: torch.randn(4, 2, 6),
        lambda: torch.randn(4, 2, 5, dtype=torch.float64),
        lambda: torch.randn(0, 2, 5),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 2, 9), torch.zeros(1, 3, 9))),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 9), torch.zeros(1, 9))),
        lambda: (torch.randn(4, 5), (torch.zeros(1, 1, 9), torch.zeros(1, 1, 9))),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 2, 9).double(),) * 2),
        lambda: (torch.randn(4, 2, 5), torch.zeros(1, 2, 9)),
    ],
)
def test_errors_are_pytorch_s(make):
    given = make()
    given = given if isinstance(given, tuple) else (given,)
    raised = []
    for layer in (torch.nn.LSTM(5, 9), fastrnn.torch.LSTM(5, 9)):
        with pytest.raises(Exception) as caught:
            layer(*given)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


def test_what_the_kernels_cannot_do_runs_on_pytorch_and_says_why():
    x = torch.randn(4, 3, 5)
    projected = fastrnn.torch.LSTM(5, 9, proj_size=4)
    assert str(projected.backend) == "torch: the kernels have no projection (proj_size=4)"
    assert projected(x)[0].shape == (4, 3, 4)
    double = fastrnn.torch.GRU(5, 9, dtype=torch.float64)
    assert double.backend.name == "torch"
    assert "float64" in double.backend.reason
    assert double.float().backend.name == "native"
    asked = fastrnn.torch.RNN(5, 9, backend="torch")
    assert str(asked.backend) == "torch: backend='torch'"
    torch.manual_seed(1)
    plain = torch.nn.RNN(5, 9)
    asked.load_state_dict(plain.state_dict())
    assert torch.equal(asked(x)[0], plain(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        layer = fastrnn.torch.LSTM(5, 9)
        assert "bfloat16" in layer.backend_for(x).reason
        assert layer(x)[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="backend is 'native', but .* projection"):
        fastrnn.torch.LSTM(5, 9, proj_size=4, backend="native")
    with pytest.raises(ValueError, match="backend is 'cudnn', expected one of auto, native, torch"):
        fastrnn.torch.LSTM(5, 9, backend="cudnn")


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
        seen.extend(array.dtype for array in (x, *states, *weights))
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
