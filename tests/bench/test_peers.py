"""Who takes part: on small layers, and with stand-ins for what needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from made_peers import Made

from bench import data, language_model, measure, peers
from bench.calls import memory
from bench.cases import CELLS, Case
from bench.peers import gluon, kernels

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}


def fastrnn_peer():
    return peers.all_peers("cpu")[0]


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
        model = peer.build_model(case, text, "cpu")
        model.run(0)
        first = model.results()
        assert data.difference(case, first, wanted) is None, peer.name
        if train:
            for _ in range(5):
                model.run(0)
            assert model.results()["loss"] < first["loss"]


def test_the_reference_is_the_oracle_s():
    case = Case("gru", layers=2, bidirectional=True, ragged=True, **SMALL)
    values = data.draw(case, 2)
    wanted = data.expected(case, values)
    for name, array in measure.reference(case, values, "cpu").items():
        data.reference().assert_close(array, wanted[name], name, "float64")


class HostTorch:
    """PyTorch whose tensors are NumPy arrays."""

    float32 = np.float32
    cuda = SimpleNamespace(current_stream=lambda: None)
    from_dlpack = staticmethod(lambda array: array)

    @staticmethod
    def from_numpy(array):
        return SimpleNamespace(to=lambda device, kind=None: array)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
def test_the_kernels_write_each_run_into_the_same_arrays(ragged, train, monkeypatch):
    monkeypatch.setattr(kernels, "to_host", np.array)
    case = Case("lstm", bidirectional=True, ragged=ragged, train=train, **SMALL)
    values = data.draw(case, 2)
    layer = kernels.KernelsLayer(HostTorch, case, values, "cpu", None)
    layer.run(1)
    wanted = data.expected(case, values)
    assert data.difference(case, layer.results(), wanted) is not None
    layer.run(0)
    assert data.difference(case, layer.results(), wanted) is None


@pytest.mark.parametrize("task", ["layer", "lm training"])
def test_peak_memory_of_a_process(task):
    case = Case("lstm", layers=1, hidden=64, inputs=8, batch=2, steps=400, task=task)
    # At least the gates of all steps, and less than what libraries take.
    found = memory.cpu_peak("fastrnn", case)
    assert list(found) == ["peak_mib"]
    assert 400 * 2 * 64 * 4 * 4 / 2**20 < found["peak_mib"] < 100


def test_without_a_peak_there_is_a_reason():
    assert memory.cpu_peak("no_such_peer", Case("gru", **SMALL)).keys() == {"peak_reason"}


def test_a_layer_on_gluon_is_not_fastrnn(monkeypatch):
    case = Case("gru", **SMALL)
    layer = fastrnn_peer().build(case, data.draw(case), "cpu")
    assert layer.facts()["backend"].startswith("native: ")
    monkeypatch.setenv("FASTRNN_BACKEND", "gluon")
    with pytest.raises(RuntimeError, match="is not native; it runs on gluon: FASTRNN_BACKEND"):
        fastrnn_peer().build(case, data.draw(case), "cpu")
    model = Case("lstm", task="lm training", **SMALL)
    with pytest.raises(RuntimeError, match="is not native"):
        fastrnn_peer().build_model(model, language_model.draw(model), "cpu")


def test_an_mxnet_that_does_not_load_is_one_line(monkeypatch):
    def fails():
        raise ImportError("libgomp.so is\nold")

    monkeypatch.setattr(gluon, "_mxnet", fails)
    for peer in (gluon.Fastrnn(), gluon.Mxnet()):
        assert peer.available("cpu") == "libgomp.so is"


def test_a_run_wants_all_who_are_mandatory():
    everyone = [
        Made("first", reason="no driver", mandatory=True),
        Made("second", reason="not installed", mandatory=True),
        Made("third", reason="not installed"),
        Made("fourth"),
    ]
    with pytest.raises(peers.MissingPeerError) as error:
        peers.present("cuda", everyone)
    assert "a GPU needs first: no driver; second: not installed" in str(error.value)
    assert "third" not in str(error.value)
    assert peers.present("cpu", everyone[2:]) == everyone[3:]


def test_of_a_group_one_is_enough():
    two = [
        Made("a", reason="not installed", mandatory=True, group="both"),
        Made("b", mandatory=True, group="both"),
    ]
    assert peers.present("cuda", two) == two[1:]
    two[1].reason = "gone"
    with pytest.raises(peers.MissingPeerError, match="a GPU needs both: not installed"):
        peers.present("cuda", two)


def test_who_is_mandatory():
    everyone = peers.all_peers("cuda")
    groups = peers.mandatory_groups(everyone, "cuda")
    assert list(groups) == ["fastrnn", "fastrnn stepwise", "PyTorch", "cuDNN"]
    assert len(groups["cuDNN"]) == 7
    assert list(peers.mandatory_groups(everyone, "cuda", "lm training")) == ["fastrnn", "PyTorch"]
    assert list(peers.mandatory_groups(peers.all_peers("cpu"), "cpu")) == ["fastrnn"]
    assert {"FlashRNN", "Haste", "MXNet"} < {peer.name for peer in everyone}


@pytest.mark.parametrize(
    "name, options, reason",
    [
        ("FlashRNN", {"cell": "rnn_relu", "dtype": "float16"}, "it has no rnn_relu"),
        ("FlashRNN", {"cell": "lstm"}, "it has no float32"),
        ("Haste", {"cell": "lstm", "tf32": True}, "it has no tf32 form"),
        ("Haste", {"cell": "gru"}, None),
        ("cuDNN STANDARD", {"cell": "gru", "ragged": True}, None),
        ("cuDNN STANDARD packed", {"cell": "gru", "ragged": True}, "it has no ragged form"),
        ("fastrnn", {"cell": "gru", "hybridize": True}, "it has no hybridize form"),
    ],
)
def test_what_a_peer_has(name, options, reason):
    (peer,) = (peer for peer in peers.all_peers("cuda") if peer.name == name)
    assert peer.supports(Case(**options), "cuda") == reason
