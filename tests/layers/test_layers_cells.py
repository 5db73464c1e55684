"""Cells, compared with Gluon's: step by step, and unrolled."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
gluon = mx.gluon
T, N, I, H = 4, 3, 5, 6  # noqa: E741

CELLS = {
    "LSTMCell": {},
    "GRUCell": {},
    "RNNCell": {"activation": "tanh"},
    "RNNCell, ReLU": {"activation": "relu"},
}
NESTED = {
    "SequentialRNNCell": lambda m: sequential(gluon.rnn.SequentialRNNCell(prefix="s_"), m),
    "HybridSequentialRNNCell": lambda m: sequential(
        gluon.rnn.HybridSequentialRNNCell(prefix="s_"), m
    ),
    "BidirectionalCell": lambda m: gluon.rnn.BidirectionalCell(
        m.LSTMCell(H, prefix="l_"), m.LSTMCell(H, prefix="r_")
    ),
    "ResidualCell": lambda m: gluon.rnn.ResidualCell(m.GRUCell(I, prefix="g_")),
    "ZoneoutCell": lambda m: gluon.rnn.ZoneoutCell(m.LSTMCell(H, prefix="z_"), 0.5, 0.5),
    "VariationalDropoutCell": lambda m: gluon.contrib.rnn.VariationalDropoutCell(
        m.LSTMCell(H, prefix="v_"), 0.5, 0.5, 0.5
    ),
}


def sequential(stack, module):
    with stack.name_scope():
        stack.add(module.LSTMCell(H))
        stack.add(gluon.rnn.DropoutCell(0.3))
        stack.add(module.GRUCell(H))
        stack.add(gluon.rnn.ResidualCell(module.RNNCell(H)))
    return stack


def pair(make):
    """Return Gluon's block and fastrnn's, with the same parameters."""
    blocks = [make(module) for module in (gluon.rnn, fastrnn)]
    for block in blocks:
        mx.random.seed(3)
        block.initialize(mx.init.Uniform(0.5))
        block.unroll(T, sequence())
    parameters = [list(block.collect_params().values()) for block in blocks]
    for theirs, ours in zip(*parameters):
        ours.set_data(theirs.data())
    return blocks


def cells(name):
    kind, options = name.split(",")[0], CELLS[name]
    return pair(lambda module: getattr(module, kind)(H, prefix="c_", **options))


def sequence(layout="NTC", steps=T):
    shape = (N, steps, I) if layout == "NTC" else (steps, N, I)
    x = mx.nd.array(np.random.RandomState(0).randn(*shape))
    x.attach_grad()
    return x


def results(cell, x, length=T, **options):
    """Return outputs, states and gradients of all inputs as NumPy arrays."""
    mx.random.seed(5)
    with mx.autograd.record():
        outputs, states = cell.unroll(length, x, **options)
        listed = outputs if isinstance(outputs, list) else [outputs]
        loss = sum(((k + 1) * y * y).sum() for k, y in enumerate(listed))
        loss = loss + sum((3 * s * s).sum() for s in states)
    loss.backward()
    gradients = [p.grad() for p in cell.collect_params().values()]
    inputs = x if isinstance(x, list) else [x]
    return [a.asnumpy() for a in (*listed, *states, *gradients, *(v.grad for v in inputs))]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
@pytest.mark.parametrize("lengths", [None, [4, 1, 2]])
@pytest.mark.parametrize("merge", [None, True, False])
def test_unroll(name, layout, lengths, merge):
    theirs, ours = cells(name)
    options = {"layout": layout, "merge_outputs": merge}
    if lengths is not None:
        options["valid_length"] = mx.nd.array(lengths)
    kinds = [type(cell.unroll(T, sequence(layout), **options)[0]) for cell in (theirs, ours)]
    assert kinds[0] is kinds[1]
    found, wanted = (results(cell, sequence(layout), **options) for cell in (ours, theirs))
    assert_equal(found, wanted)


def test_unroll_is_the_layers_operator():
    cell = fastrnn.LSTMCell(H)
    assert cell.backend == fastrnn.LSTM(H).backend


@pytest.mark.parametrize("name", CELLS)
def test_a_list_of_steps_and_states(name):
    theirs, ours = cells(name)
    steps = [sequence(steps=1).reshape((N, I)) + k for k in range(T)]
    for step in steps:
        step.attach_grad()
    states = [mx.nd.ones((N, H)) * 0.1 for _ in ours.state_info()]
    for cell in (theirs, ours):
        assert isinstance(cell.unroll(T, steps, states)[0], list)
    assert_equal(
        results(ours, steps, begin_state=states), results(theirs, steps, begin_state=states)
    )


@pytest.mark.parametrize("name", CELLS)
def test_one_step(name):
    theirs, ours = cells(name)
    x = sequence(steps=1)
    assert_equal(results(ours, x, length=1), results(theirs, x, length=1))
    states = ours.begin_state(batch_size=N)
    assert_equal(*([y.asnumpy(), *(s.asnumpy() for s in after)] for y, after in (
        cell(x[:, 0], states) for cell in (ours, theirs)
    )))  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("lengths", [None, [4, 1, 2]])
def test_in_other_cells(name, lengths):
    theirs, ours = pair(NESTED[name])
    options = {"merge_outputs": True}
    if lengths is not None:
        options["valid_length"] = mx.nd.array(lengths)
    if name != "ZoneoutCell":  # takes its masks in another order
        assert_equal(results(ours, sequence(), **options), results(theirs, sequence(), **options))
    for found, wanted in zip(*(c.unroll(T, sequence(), **options) for c in (ours, theirs))):
        assert_equal(*([a.asnumpy() for a in (v if isinstance(v, list) else [v])]
                       for v in (found, wanted)))  # fmt: skip


class Net(gluon.HybridBlock):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def hybrid_forward(self, F, x):
        outputs, states = self.cell.unroll(T, x, merge_outputs=True)
        return F.concat(outputs.sum(axis=1), *states, dim=1)


@pytest.mark.parametrize("name", CELLS)
def test_in_a_hybridized_block_that_is_exported(name, tmp_path):
    theirs, ours = (Net(cell) for cell in cells(name))
    x = sequence()
    wanted = theirs(x).asnumpy()
    ours.hybridize()
    np.testing.assert_allclose(ours(x).asnumpy(), wanted, rtol=1e-4, atol=1e-5)
    ours.export(str(tmp_path / "net"))
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params")]
    loaded = gluon.SymbolBlock.imports(files[0], ["data"], files[1])
    np.testing.assert_allclose(loaded(x).asnumpy(), wanted, rtol=1e-4, atol=1e-5)


class OwnStep(fastrnn.GRUCell):
    def hybrid_forward(self, F, inputs, states, **parameters):
        output, states = super().hybrid_forward(F, inputs, states, **parameters)
        return 2 * output, states


def test_what_has_to_see_the_steps_goes_step_by_step():
    own = OwnStep(H, input_size=I)
    own.initialize()
    plain = fastrnn.GRUCell(H, input_size=I, params=own.params)
    plain_outputs = plain.unroll(T, sequence(), merge_outputs=True)[0].asnumpy()
    own_outputs = own.unroll(T, sequence(), merge_outputs=True)[0].asnumpy()
    np.testing.assert_allclose(own_outputs, 2 * plain_outputs, rtol=1e-4, atol=1e-5)
    seen = []
    plain.register_forward_hook(lambda *_: seen.append(1))
    plain.unroll(T, sequence())
    assert len(seen) == T
    softsign = fastrnn.RNNCell(H, activation="softsign")
    reasons = [cell.backend.reason.split(";")[0] for cell in (own, plain, softsign)]
    assert reasons == [
        "a derived class has a step of its own",
        "hooks see each step",
        "no layer has its activation",
    ]


def test_parameters_that_are_exchanged_are_followed():
    theirs, ours = cells("GRUCell")
    ours.unroll(T, sequence())
    other = gluon.Parameter("other", shape=ours.h2h_weight.shape, init=mx.init.One())
    other.initialize()
    for cell in (theirs, ours):
        cell._reg_params["h2h_weight"] = other
        object.__setattr__(cell, "h2h_weight", other)
    options = {"merge_outputs": True}
    found, wanted = (c.unroll(T, sequence(), **options)[0].asnumpy() for c in (ours, theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_copy_has_parameters_of_its_own():
    cell = cells("LSTMCell")[1]
    twin = copy.deepcopy(cell)
    twin.i2h_bias.set_data(twin.i2h_bias.data() + 1)
    outputs = [c.unroll(T, sequence(), merge_outputs=True)[0].asnumpy() for c in (cell, twin)]
    assert abs(outputs[0] - outputs[1]).max() > 0.01


def test_another_type():
    cell = fastrnn.LSTMCell(H, input_size=I)
    cell.initialize()
    cell.unroll(T, sequence())
    cell.cast("float64")
    states = [s.astype("float64") for s in cell.begin_state(batch_size=N)]
    outputs = cell.unroll(T, sequence().astype("float64"), states, merge_outputs=True)[0]
    assert outputs.dtype == np.float64


def test_a_wrong_length():
    cell = fastrnn.GRUCell(H, input_size=I)
    cell.initialize()
    with pytest.raises(ValueError, match="length: expected 4, as inputs have, got 3"):
        cell.unroll(3, sequence())


def test_cells_of_a_model_are_replaced_and_restored():
    theirs = pair(NESTED["SequentialRNNCell"])[0]
    wanted = results(theirs, sequence(), merge_outputs=True)
    before = [vars(theirs[k]).keys() for k in (0, 2)]
    report = fastrnn.accelerate(theirs)
    assert [r.kind for r in report.replaced] == ["LSTMCell", "GRUCell", "RNNCell"]
    assert type(theirs[0]) is fastrnn.LSTMCell
    assert_equal(results(theirs, sequence(), merge_outputs=True), wanted)
    fastrnn.restore(theirs)
    assert type(theirs[0]) is gluon.rnn.LSTMCell
    assert [vars(theirs[k]).keys() for k in (0, 2)] == before
    with fastrnn.accelerated():
        assert type(gluon.rnn.GRUCell(H)) is fastrnn.GRUCell
