"""fastrnn.torch's layers in PyTorch's programs: compiled, exported, transformed, distributed."""

from __future__ import annotations

import io

import pytest

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

import fastrnn.torch

CELLS = {"lstm": ("LSTM", 4), "gru": ("GRU", 3), "rnn_tanh": ("RNN", 1)}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(5)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def pair(name="LSTM", **options):
    theirs = getattr(torch.nn, name)(5, 7, 2, bidirectional=True, **options)
    ours = getattr(fastrnn.torch, name)(5, 7, 2, bidirectional=True, backend="native", **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def gradients(call, layer):
    x = torch.linspace(-1, 1, 90).view(6, 3, 5).requires_grad_()
    layer.zero_grad()
    output = call(x)
    output.pow(2).sum().backward()
    return [output, x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("mode", "projection"), [*((mode, None) for mode in CELLS), ("lstm", 4), ("lstm", 7)]
)
def test_the_operators_keep_their_promises(mode, projection, directions):
    rows, outputs = 7 * CELLS[mode][1], projection or 7
    shapes = [(rows, 5), (rows, outputs), (rows,), (rows,), projection and (projection, 7)]
    weights = [shape and torch.randn(shape, requires_grad=True) for shape in shapes * directions]
    x, h_0 = torch.randn(6, 3, 5, requires_grad=True), torch.randn(directions, 3, outputs)
    c_0 = torch.randn(directions, 3, 7, requires_grad=True) if mode == "lstm" else None
    arguments = (mode, x, h_0, c_0, *[*weights, *[None] * 5][:10], None, True)
    torch.library.opcheck(torch.ops.fastrnn.layer.default, arguments)


def test_without_a_reserve_there_is_no_backward_pass():
    _, ours = pair()
    weights = [getattr(ours, name) for name in ours._all_weights[0]]
    lengths = torch.tensor([2, 1], dtype=torch.int32)
    arguments = ("lstm", torch.randn(4, 2, 5), None, None, *weights, *[None] * 6, lengths, False)
    output, *_ = torch.ops.fastrnn.layer(*arguments)
    assert output[2:].abs().sum() == output[1:, 1].abs().sum() == 0
    with pytest.raises(RuntimeError, match="expected reserve=True"):
        output.sum().backward()


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_compiled_as_one_graph(name):
    theirs, ours = pair(name)
    # PyTorch compiles none of its recurrent layers unless this says so.
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        close(gradients(lambda x: compiled(x)[0], ours), gradients(lambda x: theirs(x)[0], theirs))


def test_a_compiled_model_calls_the_layer():
    theirs, ours = pair()
    head = torch.nn.Linear(14, 2)

    def model(layer, x):
        return head(layer(x.tanh())[0]).relu()

    compiled = torch.compile(lambda x: model(ours, x))
    close(gradients(compiled, ours), gradients(lambda x: model(theirs, x), theirs))


def test_exported_for_any_length_and_batch():
    theirs, ours = pair()
    T, N = (torch.export.Dim(name, min=2, max=64) for name in "TN")
    with torch.no_grad():
        x = torch.randn(6, 3, 5)
        program = torch.export.export(ours, (x,), dynamic_shapes=({0: T, 1: N},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    x = torch.randn(9, 4, 5)
    close(torch.export.load(file).module()(x), theirs(x))
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.fastrnn.layer.default) == 2


def test_traced_programs_need_pytorch_alone():
    theirs, ours = pair()
    x = torch.randn(6, 3, 5)
    traced = torch.jit.trace(ours, (x,))
    assert "fastrnn::" not in str(traced.inlined_graph)
    close(traced(x), theirs(x))


def test_functional_calls_and_their_gradients():
    theirs, ours = pair()
    parameters = {name: torch.randn_like(p) / 4 for name, p in theirs.named_parameters()}
    x = torch.randn(6, 3, 5)

    def loss(layer):
        return lambda of: torch.func.functional_call(layer, of, (x,))[0].pow(2).sum()

    close(loss(ours)(parameters), loss(theirs)(parameters))
    close(torch.func.grad(loss(ours))(parameters), torch.func.grad(loss(theirs))(parameters))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant):
    from torch.utils.checkpoint import checkpoint

    theirs, ours = pair(dropout=0.5)

    def call(x):
        torch.manual_seed(4)
        return checkpoint(lambda x: ours(x)[0], x, use_reentrant=reentrant)

    def plain(x):
        torch.manual_seed(4)
        return theirs(x)[0]

    close(gradients(call, ours), gradients(plain, theirs))


def test_hooks_see_what_backward_reads():
    _, ours = pair()
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor.clone()  # elsewhere in memory

    expected = gradients(lambda x: ours(x)[0], ours)

    def hooked(x):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return ours(x)[0]

    found = gradients(hooked, ours)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    # Of two layers: input, eight weights, output, and the gates and c of each step.
    assert sum(tensor.numel() == 6 * 3 * 2 * 7 * 5 for tensor in saved) == 2
    assert sum(tensor.shape == (28, 7) for tensor in saved) == 4


def test_gradients_are_checked_in_float64():
    layer = fastrnn.torch.GRU(3, 4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], (x,))
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))


def test_a_second_derivative_is_an_error():
    _, ours = pair()
    x = torch.randn(6, 3, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative.* backend='torch'"):
        gradient.sum().backward()


def train(model, x):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x)[0].pow(2).mean().backward()
        optimizer.step()


def train_on_half(rank, address, weights, queue):
    """Train on half of a batch, in a process of its own: with DDP, then with FSDP."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.set_num_threads(1)
    x = BATCH[:, 2 * rank : 2 * rank + 2]
    for how in ("ddp", "fsdp"):
        _, ours = pair()
        ours.load_state_dict(weights)
        if how == "ddp":
            train(torch.nn.parallel.DistributedDataParallel(ours), x)
            found = list(ours.parameters())
        else:
            train(fully_shard(ours, mesh=init_device_mesh("cpu", (2,))), x)
            found = [parameter.full_tensor() for parameter in ours.parameters()]
        if rank == 0:
            queue.put([array.detach().numpy() for array in found])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


BATCH = torch.linspace(-1, 1, 6 * 4 * 5).view(6, 4, 5)


def test_two_processes_learn_what_one_does(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("PyTorch was built without gloo")
    theirs, _ = pair()
    weights = {name: array.clone() for name, array in theirs.state_dict().items()}
    train(theirs, BATCH)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    arguments = (f"file://{tmp_path}/rendezvous", weights, queue)
    torch.multiprocessing.spawn(train_on_half, arguments, nprocs=2)
    for _ in ("ddp", "fsdp"):
        for array, parameter in zip(queue.get(), theirs.parameters()):
            close(torch.from_numpy(array), parameter.detach())
