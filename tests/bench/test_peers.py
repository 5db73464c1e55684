"""Who takes part: on small layers, and with stand-ins for what needs a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import sources  # noqa: F401

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from made_peers import Made

from bench import data, language_model, measure, memory, peers
from bench.cases import CELLS, Case
from bench.peers import base, cudnn, gluon

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}


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
    for array in (*values.weights, *values.xs, *values.d_outputs):
        assert np.array_equal(data.rounded(array, dtype), array)
        assert not np.array_equal(data.rounded(array + 1e-5, dtype), array + 1e-5)


def test_peak_memory_of_a_process():
    case = Case("lstm", layers=1, hidden=64, inputs=8, batch=2, steps=400)
    (peer,) = (p for p in peers.all_peers("cpu") if p.name == "fastrnn")
    # At least the gates of all steps, and less than what libraries take.
    found = memory.of_process(peer, case)
    assert list(found) == ["peak_mib"]
    assert 400 * 2 * 64 * 4 * 4 / 2**20 < found["peak_mib"] < 100


def test_without_a_way_to_measure_there_is_no_peak_but_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no such folder" / "clear_refs")
    found = memory.measure("fastrnn", Case("gru", **SMALL))
    assert list(found) == ["peak_reason"]
    assert found["peak_reason"].endswith("cannot be written: No such file or directory")
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    found = memory.of_process(peers.all_peers("cpu")[0], Case("gru", **SMALL))
    assert found == {"peak_reason": "its process ended with status 1"}


def test_other_input_sets_give_other_results():
    case = Case("gru", ragged=True, **SMALL)
    values = data.draw(case, 3)
    for arrays in (values.xs, values.d_outputs):
        assert len(arrays) == 3
        assert all(np.array_equal(np.sort(a, None), np.sort(arrays[0], None)) for a in arrays)
        assert not any(np.array_equal(a, arrays[0]) for a in arrays[1:])
    late = np.arange(case.steps)[:, np.newaxis] >= case.lengths()
    assert all(not d[late].any() for d in values.d_outputs)
    assert data.draw(Case("gru", train=False, **SMALL), 3).d_outputs == []


def test_a_layer_on_gluon_is_not_fastrnn(monkeypatch):
    (peer,) = (p for p in peers.all_peers("cpu") if p.name == "fastrnn")
    case = Case("gru", **SMALL)
    assert peer.build(case, data.draw(case), "cpu").facts()["backend"].startswith("native: ")
    monkeypatch.setenv("FASTRNN_BACKEND", "gluon")
    with pytest.raises(RuntimeError, match="is not native; it runs on gluon: FASTRNN_BACKEND"):
        peer.build(case, data.draw(case), "cpu")
    model = Case("lstm", task="lm training", **SMALL)
    with pytest.raises(RuntimeError, match="is not native"):
        language_model.build("fastrnn", model, language_model.draw(model), "cpu")


def test_an_mxnet_that_does_not_load_is_one_line(monkeypatch):
    def fails():
        raise ImportError("libgomp.so is\nold")

    monkeypatch.setattr(gluon, "_mxnet", fails)
    for peer in (gluon.Fastrnn(), gluon.Mxnet()):
        assert peer.available("cpu") == "libgomp.so is"


def test_a_missing_cudnn_is_one_line(monkeypatch):
    monkeypatch.setenv("FASTRNN_CUDNN", "/no/such/libcudnn.so")
    reason = cudnn.Cudnn("STANDARD").available("cuda")
    assert reason.startswith("FASTRNN_CUDNN names no usable cuDNN; tried: /no/such/libcudnn.so")
    assert "\n" not in reason


def test_a_run_wants_all_who_are_mandatory():
    everyone = [
        Made("first", reason="no driver", mandatory=True),
        Made("second", reason="not installed", mandatory=True),
        Made("third", reason="not installed"),
        Made("fourth"),
    ]
    with pytest.raises(base.MissingPeerError) as error:
        peers.present("cuda", everyone)
    assert "a GPU needs first: no driver; second: not installed" in str(error.value)
    assert "third" not in str(error.value)
    assert peers.present("cpu", everyone[2:]) == everyone[3:]


def test_of_a_group_one_is_enough():
    two = [Made(name, reason=why, mandatory=True, group="both") for name, why in GROUP]
    assert peers.present("cuda", two) == two[1:]
    two[1].reason = "gone"
    with pytest.raises(base.MissingPeerError, match="a GPU needs both: not installed"):
        peers.present("cuda", two)


GROUP = (("a", "not installed"), ("b", None))


def test_who_is_mandatory():
    everyone = peers.all_peers("cuda")
    groups = peers.mandatory_groups(everyone, "cuda")
    assert list(groups) == ["fastrnn", "fastrnn stepwise", "PyTorch", "cuDNN"]
    assert len(groups["cuDNN"]) == 7
    assert {"cuDNN STANDARD", "cuDNN STANDARD packed"} < set(groups["cuDNN"])
    assert list(peers.mandatory_groups(everyone, "cuda", "lm training")) == ["fastrnn", "PyTorch"]
    assert list(peers.mandatory_groups(peers.all_peers("cpu"), "cpu")) == ["fastrnn"]
    assert {"FlashRNN", "Haste", "MXNet"} < {peer.name for peer in everyone}
