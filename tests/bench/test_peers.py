"""Who takes part: on small layers, and with stand-ins for what needs a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sources  # noqa: F401

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from bench import data, language_model, measure, memory, peers
from bench.cases import CELLS, Case
from bench.limits import Peaks
from bench.peers import base, cudnn, kernels
from fastrnn import kernels as fastrnn_kernels

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}
PEAKS = {"float32": Peaks(1e12, 1e11, None)}


class Made(base.Peer):
    """Gives what a test wants."""

    def __init__(self, name="made", reason=None, mandatory=False, wrong=False, refuses=None):
        self.name, self.reason, self.mandatory = name, reason, mandatory
        self.wrong, self.refuses = wrong, refuses

    def available(self, device):
        return self.reason

    def version(self):
        return "0"

    def supports(self, case, device):
        return self.refuses

    def build(self, case, values, device):
        found = {k: v + self.wrong for k, v in data.expected(case, values).items()}
        return SimpleNamespace(run=lambda number: None, results=lambda: found)


def test_a_gpu_wants_all_who_are_mandatory():
    everyone = [
        Made("first", "no driver", mandatory=True),
        Made("second", "not installed", mandatory=True),
        Made("third", "not installed"),
        Made("fourth"),
    ]
    with pytest.raises(base.MissingPeerError) as error:
        peers.present("cuda", everyone)
    assert "first: no driver; second: not installed" in str(error.value)
    assert "third" not in str(error.value)
    assert peers.present("cpu", everyone) == everyone[3:]


def test_who_is_mandatory_on_a_gpu():
    everyone = peers.all_peers("cuda")
    mandatory = [peer.name for peer in everyone if peer.mandatory]
    assert mandatory == ["fastrnn", "PyTorch", "cuDNN STANDARD"]
    assert {"fastrnn stepwise", "FlashRNN", "Haste", "MXNet"} < {peer.name for peer in everyone}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_everyone_on_the_cpu_computes_the_same(cell, train):
    case = Case(cell, bidirectional=True, train=train, **SMALL)
    values = data.draw(case, 2)
    wanted = data.expected(case, values)
    for peer in peers.present("cpu", peers.all_peers("cpu")):
        layer = peer.build(case, values, "cpu")
        layer.run(1)
        assert "output" in data.difference(case, layer.results(), wanted)
        layer.run(0)
        assert data.difference(case, layer.results(), wanted) is None, peer.name


@pytest.mark.parametrize("train", [True, False])
def test_language_models_begin_with_the_oracle_s_numbers(train):
    task = "lm training" if train else "lm generation"
    case = Case("lstm", task=task, train=train, **{**SMALL, "steps": 4 if train else 1})
    text = language_model.draw(case)
    wanted = language_model.expected(case, text)
    for peer in peers.present("cpu", peers.all_peers("cpu")):
        model = language_model.build(peer.name, case, text, "cpu")
        model.run(0)
        first = model.results()
        assert data.difference(case, first, wanted) is None, peer.name
        if train:
            for _ in range(5):
                model.run(0)
            assert model.results()["loss"] < first["loss"]


def test_who_is_wrong_is_not_timed():
    case = Case("gru", train=False, **SMALL)
    everyone = [Made(), Made("liar", wrong=True), Made("other", refuses="no such layer")]
    row = measure.measure(case, "cpu", everyone, {"far": "not here"}, PEAKS, budget=0.001)
    entries = row["peers"]
    assert entries["made"]["status"] == "ok"
    assert entries["made"]["seconds"] > 0
    assert entries["liar"]["status"] == "wrong"
    assert entries["liar"]["reason"].startswith("output: ")
    assert "seconds" not in entries["liar"]
    assert entries["other"] == {"status": "unsupported", "reason": "no such layer"}
    assert entries["far"] == {"status": "missing", "reason": "not here"}


def test_the_reference_is_the_oracle_s():
    case = Case("gru", layers=2, bidirectional=True, ragged=True, **SMALL)
    values = data.draw(case, 2)
    wanted = data.expected(case, values)
    for name, array in measure.reference(case, values, "cpu").items():
        data.reference().assert_close(array, wanted[name], name, "float64")


def test_a_gradient_that_is_missing_or_nan_is_wrong():
    case = Case("rnn_relu", **SMALL)
    wanted = data.expected(case, data.draw(case))
    assert data.difference(case, {"output": wanted["output"]}, wanted).startswith("results are")
    broken = {**wanted, "gradient of x": wanted["gradient of x"] * np.nan}
    assert data.difference(case, broken, wanted).startswith("gradient of x")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_data_has_the_values_of_its_type(dtype):
    values = data.draw(Case("gru", dtype=dtype, **SMALL))
    for array in (*values.weights, *values.xs, values.d_output):
        assert np.array_equal(data.rounded(array, dtype), array)
        assert not np.array_equal(data.rounded(array + 1e-5, dtype), array + 1e-5)


def test_peak_memory_of_a_process():
    case = Case("lstm", layers=1, hidden=64, inputs=8, batch=2, steps=400)
    (peer,) = (p for p in peers.all_peers("cpu") if p.name == "fastrnn")
    # At least the gates of all steps, and less than what libraries take.
    assert 400 * 2 * 64 * 4 * 4 / 2**20 < memory.of_process(peer, case) < 100


class HostTorch:
    """PyTorch for `kernels.KernelsLayer`, whose tensors are NumPy arrays."""

    float32 = np.float32
    cuda = SimpleNamespace(current_stream=lambda: None)

    @staticmethod
    def from_numpy(array):
        return SimpleNamespace(to=lambda device, kind=None: array)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_stacks_of_the_kernels(cell, ragged, train, monkeypatch):
    monkeypatch.setattr(fastrnn_kernels, "to_host", np.asarray)
    case = Case(cell, bidirectional=True, ragged=ragged, train=train, **SMALL)
    values = data.draw(case)
    layer = kernels.KernelsLayer(HostTorch, case, values, "cpu", None)
    layer.run(0)
    assert data.difference(case, layer.results(), data.expected(case, values)) is None


class HostMemory:
    """Memory for cuDNN that is the host's."""

    put = staticmethod(lambda array, dtype: array)
    read = staticmethod(np.asarray)


class Baseline:
    """A cuDNN that gives the oracle's results."""

    Algorithm = {"STANDARD": 0}  # noqa: RUF012

    class Unsupported(Exception):  # noqa: N818
        pass

    class CudnnLayer:
        def __init__(self, case, algorithm, memory):
            assert algorithm == 0
            self.case, self.calls = case, []

        def set_weights(self, weights):
            self.weights = weights

        def forward(self, x):
            values = data.Data(self.weights, [x], data.draw(self.case).d_output, None)
            self.found = data.expected(self.case, values)
            return SimpleNamespace(output=self.found["output"])

        def backward_data(self, d_output):
            self.calls.append("data")
            return SimpleNamespace(x=self.found["gradient of x"])

        def backward_weights(self):
            self.calls.append("weights")

        def weight_gradients(self):
            assert self.calls == ["data", "weights"]
            return [v for k, v in self.found.items() if "weights" in k]


@pytest.mark.parametrize("train", [True, False])
def test_cudnn_takes_part(train):
    case = Case("gru", train=train, **SMALL)
    values = data.draw(case)
    layer = cudnn.CudnnLayer(Baseline, HostMemory, "STANDARD", case, values)
    layer.run(0)
    assert data.difference(case, layer.results(), data.expected(case, values)) is None


def test_what_cudnn_has_not_is_no_error(monkeypatch):
    class Refuses:
        def __init__(self, *_):
            raise Baseline.Unsupported("cudnnSetRNNDescriptor_v8: not supported")

    baseline = SimpleNamespace(
        Unsupported=Baseline.Unsupported, Algorithm=Baseline.Algorithm, CudnnLayer=Refuses
    )
    monkeypatch.setattr(cudnn, "_baseline", lambda: baseline)
    monkeypatch.setitem(sys.modules, "buffers", SimpleNamespace(TorchMemory=lambda device: None))
    row = measure.measure(
        Case("gru", **SMALL), "cpu", [_Willing("STANDARD"), Made()], {}, PEAKS, budget=0.001
    )
    entry = row["peers"]["cuDNN STANDARD"]
    assert entry["status"] == "unsupported"
    assert entry["reason"].startswith("cudnnSetRNNDescriptor_v8")


class _Willing(cudnn.Cudnn):
    def supports(self, case, device):
        return None
