"""cuDNN's layers, called through its C interface, on a stand-in of the library."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference as ref
from fake_cudnn import FakeCudnn, HostBuffer, rounded

from bench.buffers import TorchMemory
from bench.cudnn import Algorithm, CudnnLayer, Unsupported
from bench.cudnn_api import PROTOTYPES, CudnnError


@dataclass(frozen=True)
class Case:
    """What `CudnnLayer` reads of a benchmark's case."""

    cell: str = "lstm"
    layers: int = 1
    inputs: int = 5
    hidden: int = 6
    batch: int = 3
    steps: int = 4
    bidirectional: bool = False
    train: bool = True
    dtype: str = "float32"
    tf32: bool = False
    ragged: bool = False

    def lengths(self):
        return np.array([2, self.steps, 1], np.int32)


class Data:
    """Random inputs, weights and gradients of a case, in numbers of its type."""

    def __init__(self, case, seed=0):
        rng = np.random.RandomState(seed)
        directions = 1 + case.bidirectional
        state = (directions * case.layers, case.batch, case.hidden)
        has_cell = case.cell == "lstm"

        def draw(*shape):
            return rounded(rng.standard_normal(shape), case.dtype)

        self.case = case
        self.directions = directions
        self.x = draw(case.steps, case.batch, case.inputs)
        self.states = [draw(*state) for _ in range(1 + has_cell)]
        self.heads = [draw(case.steps, case.batch, directions * case.hidden)]
        self.heads += [draw(*state) for _ in range(1 + has_cell)]
        stack = ref.random_stack(
            rng, case.cell, case.inputs, case.hidden, layers=case.layers, directions=directions
        )
        self.weights = [rounded(w, case.dtype) for one in stack for w in one[:4]]

    def reference(self):
        """Return the oracle's results and gradients, as flat lists."""
        stack = [ref.Weights(*self.weights[k : k + 4]) for k in range(0, len(self.weights), 4)]
        result = ref.stack_forward(
            self.case.cell,
            self.x,
            *[*self.states, None][:2],
            stack,
            directions=self.directions,
            lengths=self.case.lengths() if self.case.ragged else None,
        )
        gradients = ref.stack_backward(result, *self.heads)
        weights = [w for one in gradients.weights for w in one[:4]]
        results = [result.output, result.h, result.c]
        return results, [gradients.x, gradients.h0, gradients.c0, *weights]

    def put(self, memory, arrays):
        return [memory.put(array, self.case.dtype) for array in arrays]

    def run(self, layer, memory):
        """Return the layer's results and gradients; no gradients unless it is for training."""
        layer.set_weights(self.weights)
        results = layer.forward(*self.put(memory, [self.x, *self.states]))
        found = [None if a is None else memory.read(a) for a in results]
        if not self.case.train:
            return found, []
        gradients = layer.backward_data(*self.put(memory, self.heads))
        inputs = [None if a is None else memory.read(a) for a in gradients]
        if self.case.ragged:
            inputs[0][np.arange(self.case.steps)[:, np.newaxis] >= self.case.lengths()] = 0
        layer.backward_weights()
        return found, inputs + layer.weight_gradients()


def make(fake, case, algorithm=Algorithm.STANDARD, **options):
    return CudnnLayer(case, algorithm, fake.memory, library=fake.library, **options)


def close(found, expected, precision="float32"):
    assert len(found) == len(expected)
    for k, (actual, wanted) in enumerate(zip(found, expected)):
        assert (actual is None) == (wanted is None)
        if wanted is not None:
            ref.assert_close(actual, wanted, f"array {k}", precision)


def assert_agrees(fake, case, precision=None, algorithm=Algorithm.STANDARD, **options):
    data = Data(case)
    with make(fake, case, algorithm, **options) as layer:
        results, gradients = data.run(layer, fake.memory)
    wanted, wanted_gradients = data.reference()
    close(results, wanted, precision or case.dtype)
    if case.train:
        close(gradients, wanted_gradients, precision or case.dtype)


@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("train", [False, True], ids=["infer", "train"])
@pytest.mark.parametrize("cell", ref.MODES)
def test_results_and_gradients(fake, cell, train, layers, bidirectional, ragged):
    case = Case(cell, layers, train=train, bidirectional=bidirectional, ragged=ragged)
    assert_agrees(fake, case)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("cell", ref.MODES)
def test_short_types(fake, cell, dtype):
    # Only float32 has a choice of TF32.
    assert_agrees(fake, Case(cell, dtype=dtype, ragged=True, tf32=True))


def test_float32_is_tf32_when_asked(fake):
    case = Case(tf32=True, inputs=33)
    assert_agrees(fake, case, "tf32")
    with pytest.raises(AssertionError):
        assert_agrees(fake, case, "float32")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_algorithms(fake, algorithm):
    assert_agrees(fake, Case("gru", layers=2), algorithm=algorithm)
    assert [made.algorithm for made in fake.passes] == [algorithm] * 3


def test_rows_of_one_length_may_be_called_packed(fake):
    assert_agrees(fake, Case(layers=2), packed=True)
    assert_agrees(fake, Case(layers=2))
    assert [made.layout for made in fake.passes] == [1] * 3 + [0] * 3


def test_states_are_zero_by_default(fake):
    data = Data(Case())
    data.states = [np.zeros_like(state) for state in data.states]
    data.heads[1:] = [np.zeros_like(head) for head in data.heads[1:]]
    with make(fake, data.case) as layer:
        layer.set_weights(data.weights)
        results = layer.forward(*data.put(fake.memory, [data.x]))
        gradients = layer.backward_data(*data.put(fake.memory, data.heads[:1]))
        layer.backward_weights()
        found = [fake.memory.read(a) for a in (*results, *gradients)] + layer.weight_gradients()
    results, gradients = data.reference()
    close(found, results + gradients)
    assert fake.passes[0].hx is None


def test_a_layer_runs_again(fake):
    first, second = Data(Case(), seed=1), Data(Case(), seed=2)
    with make(fake, Case()) as layer:
        first.run(layer, fake.memory)
        results, gradients = second.run(layer, fake.memory)
    wanted, wanted_gradients = second.reference()
    close(results, wanted)
    close(gradients, wanted_gradients)


def test_passes_run_on_the_memory_s_stream(fake):
    data = Data(Case())
    with make(fake, data.case) as layer:
        for stream in (64, 128):
            fake.memory.stream_in_use = stream
            data.run(layer, fake.memory)
    assert [made.stream for made in fake.passes] == [64] * 3 + [128] * 3


def test_bytes_are_those_of_the_spaces(fake):
    with make(fake, Case()) as training, make(fake, Case(train=False)) as inference:
        assert training.bytes > 2 * inference.bytes > 0


def test_unsupported_algorithm(fake):
    case = Case(ragged=True)
    data = Data(case)
    unsupported = pytest.raises(Unsupported, match="cudnnRNNForward .*CUDNN_STATUS_NOT_SUPPORTED")
    with make(fake, case, Algorithm.PERSIST_STATIC_SMALL_H) as layer, unsupported:
        data.run(layer, fake.memory)


def test_algorithm_newer_than_the_library(fake):
    fake.library.version = 8005
    with pytest.raises(Unsupported, match="not in version 8005"):
        make(fake, Case(), Algorithm.PERSIST_STATIC_SMALL_H)


@pytest.mark.parametrize(
    ("version", "status", "unsupported"),
    [
        *[(8906, 9, True), (8906, 6, True)],
        *[(8906, 3, False), (8906, 8, False), (8906, 11, False), (8906, 3000, False)],
        *[(90100, 3000, True), (90100, 3002, True), (90100, 3007, True), (90100, 3010, True)],
        *[(90100, 9, False), (90100, 2000, False), (90100, 3008, False), (90100, 5000, False)],
    ],
)
def test_statuses(fake_path, version, status, unsupported):
    fake = FakeCudnn(fake_path, version)
    fake.fail("cudnnSetRNNDescriptor_v8", status)
    with pytest.raises(CudnnError, match=f"cudnnSetRNNDescriptor_v8 .*status {status}") as caught:
        make(fake, Case())
    assert isinstance(caught.value, Unsupported) == unsupported
    assert (caught.value.call, caught.value.status) == ("cudnnSetRNNDescriptor_v8", status)


@pytest.mark.parametrize("call", [name for name in PROTOTYPES if "Destroy" not in name])
def test_every_call_is_checked(fake, call):
    data = Data(Case())
    fake.fail(call, 4)
    failure = pytest.raises(CudnnError, match=rf"^{call} failed with status 4: CUDNN_STATUS_OTHER")
    with failure, make(fake, data.case, Algorithm.PERSIST_DYNAMIC) as layer:
        data.run(layer, fake.memory)
    assert fake.live() == 0


@pytest.mark.parametrize("kind", ["", "RNN", "RNNData", "Tensor", "Dropout"])
def test_destruction_is_checked(fake, kind):
    destroy = f"cudnnDestroy{kind}Descriptor" if kind else "cudnnDestroy"
    failure = pytest.raises(CudnnError, match=f"^{destroy} failed")
    with failure, fake.library.created(kind) as descriptor:
        fake.fail(destroy, 4)
    fake.fail("", 0)
    fake.library.call(destroy, descriptor)


def test_version_9_says_what_it_wanted(fake):
    with make(fake, Case()) as layer, pytest.raises(CudnnError) as caught:
        layer.cudnn.call("cudnnBuildRNNDynamic", layer._handle, layer._rnn, 3)
    assert ("kPersistDynamic" in str(caught.value)) == (fake.library.major == 9)


class TestArguments:
    @pytest.fixture
    def data(self):
        return Data(Case())

    @pytest.fixture
    def layer(self, fake, data):
        with make(fake, data.case) as layer:
            layer.set_weights(data.weights)
            yield layer

    def test_packed_and_ragged(self, fake):
        with pytest.raises(ValueError, match="packed is True for a case with ragged"):
            make(fake, Case(ragged=True), packed=True)

    def test_algorithm(self, fake):
        with pytest.raises(ValueError, match="4 is not a valid Algorithm"):
            make(fake, Case(), 4)

    def test_shape_type_and_strides(self, fake, layer, data):
        x = fake.memory.put(data.x[:3], "float32")
        with pytest.raises(ValueError, match=r"x has shape \(3, 3, 5\) .* expected \(4, 3, 5\)"):
            layer.forward(x)
        x = fake.memory.put(data.x, "float16")
        with pytest.raises(ValueError, match=r"x .* type float16, expected .* float32"):
            layer.forward(x)
        x = HostBuffer(np.asfortranarray(data.x), "float32")
        with pytest.raises(ValueError, match="x is not contiguous"):
            layer.forward(x)
        with pytest.raises(TypeError, match="got ndarray"):
            layer.forward(data.x)
        x, h = fake.memory.put(data.x, "float32"), fake.memory.put(data.x, "float32")
        with pytest.raises(ValueError, match="h_0 has shape"):
            layer.forward(x, h)
        layer.forward(x)
        with pytest.raises(ValueError, match="d_output has shape"):
            layer.backward_data(x)

    def test_weights(self, layer, data):
        with pytest.raises(ValueError, match="weights are 3 arrays, expected 4"):
            layer.set_weights(data.weights[:3])
        with pytest.raises(ValueError, match=r"weights\[1\] has shape \(24, 5\), expected"):
            layer.set_weights([data.weights[0], *data.weights[:3]])

    def test_cell_state_of_a_cell_without(self, fake):
        data = Data(Case("gru"))
        x, h = data.put(fake.memory, [data.x, *data.states])
        with make(fake, data.case) as layer, pytest.raises(ValueError, match="c_0 is given, but"):
            layer.forward(x, h, h)

    def test_order(self, fake, layer, data):
        with pytest.raises(RuntimeError, match="backward_data is called after made"):
            layer.backward_data(*data.put(fake.memory, data.heads))
        data.run(layer, fake.memory)
        with pytest.raises(RuntimeError, match="backward_weights is called after backward_weights"):
            layer.backward_weights()
        layer.forward(*data.put(fake.memory, [data.x]))
        with pytest.raises(RuntimeError, match="expected backward_weights before it"):
            layer.weight_gradients()

    def test_backward_of_inference(self, fake, data):
        case = replace(data.case, train=False)
        with make(fake, case) as layer:
            layer.forward(*data.put(fake.memory, [data.x]))
            with pytest.raises(RuntimeError, match="not for training"):
                layer.backward_data(*data.put(fake.memory, data.heads))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_memory_of_torch(fake, dtype):
    """Tensors on the CPU, which the stand-in can work on, take the ones on a GPU's way."""
    torch = pytest.importorskip("torch", reason="without PyTorch")
    fake.memory = TorchMemory("cpu")
    case = Case(layers=2, bidirectional=True, ragged=True, dtype=dtype)
    assert_agrees(fake, case)
    with make(fake, case) as layer:
        x = torch.zeros(4, 3, 5, dtype=getattr(torch, dtype))
        with pytest.raises(ValueError, match="x is not contiguous"):
            layer.forward(x.transpose(0, 1).contiguous().transpose(0, 1))
        with pytest.raises(ValueError, match=r"x has shape \(4, 3\) and type float64"):
            layer.forward(torch.zeros(4, 3, dtype=torch.float64))
        with pytest.raises(TypeError, match="expected a tensor on cpu, got one on meta"):
            layer.forward(x.to("meta"))
        with pytest.raises(TypeError, match="expected a tensor on cpu, got ndarray"):
            layer.forward(x.float().numpy())
