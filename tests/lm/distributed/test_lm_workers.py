"""What workers tell each other."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from fastrnn import cli
from fastrnn.lm import InputError, preset
from fastrnn.lm.command import commands
from fastrnn.lm.distributed.workers import ALONE, Workers, join
from fastrnn.lm.runs import check_resume
from fastrnn.lm.training.updates import Updates
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
VARIABLES = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "127.0.0.1",
    "DMLC_PS_ROOT_PORT": "9",
    "DMLC_NUM_WORKER": "2",
    "DMLC_NUM_SERVER": "1",
}


class Meeting(mx.kvstore.KVStoreBase):
    """A store of workers that run one after the other, the first one first."""

    said = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, rank, num_workers):
        self._rank, self._count = rank, num_workers

    type = "meeting"
    rank = property(lambda self: self._rank)
    num_workers = property(lambda self: self._count)

    @staticmethod
    def is_capable(capability):
        return False

    def broadcast(self, key, value, out, priority=0):
        (out[0] if isinstance(out, list) else out)[:] = self.said.setdefault(key, value.copy())


@pytest.fixture
def workers():
    Meeting.said.clear()
    return [Workers(Meeting(rank, 3)) for rank in range(3)]


@pytest.mark.parametrize("rows", [3, 7, 9, 32])
def test_shares_are_all_rows_once(workers, rows):
    shares = [np.arange(rows)[w.share(rows)] for w in workers]
    assert np.concatenate(shares).tolist() == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.share(rows) == slice(0, rows)


@pytest.mark.parametrize("size", [1, 3, 4, 1001])
def test_bytes_of_the_first_worker(workers, size):
    data = np.random.RandomState(size).bytes(size)
    assert [w.bytes_from_first(b"" if w.rank else data) for w in workers] == [data] * 3
    assert ALONE.bytes_from_first(data) == data


def test_parameters_are_there_before_the_first_gradients(workers):
    """MXNet may else deliver the sum of the first gradients in their place."""
    model = mx.gluon.nn.Dense(2, in_units=3)
    model.initialize()
    Updates(model.collect_params(), preset("demo"), [mx.cpu()], workers[0], 1, 1)
    assert set(Meeting.said) == {0, 1}


def test_workers_that_differ(workers):
    first, second, third = workers
    for worker in workers:
        worker.check_equal("settings", "the same")
    first.check_equal("settings", "one")
    with pytest.raises(InputError, match="settings: worker 1 has other ones than worker 0"):
        second.check_equal("settings", "another")
    third.check_equal("settings", "one")


@pytest.mark.parametrize(
    ("resumes", "message"),
    [
        (
            [True, False],
            "resume: worker 0 has --resume and worker 1 does not; all want it, or none",
        ),
        (
            [False, True],
            "resume: worker 1 has --resume and worker 0 does not; all want it, or none",
        ),
    ],
)
def test_a_worker_alone_that_resumes(monkeypatch, capsys, workers, resumes, message):
    check_resume(resumes[0], workers[0])
    monkeypatch.setattr(commands, "join", lambda name: workers[1])
    assert cli.main(["train", *["--resume"] * resumes[1]]) == 2
    assert capsys.readouterr().err == f"fastrnn: {message}\n"


@pytest.mark.parametrize("missing", ["DMLC_ROLE", "DMLC_NUM_SERVER"])
def test_variables_that_are_not_set(monkeypatch, missing):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(InputError, match=f"kvstore: got dist_sync, which needs .* {missing}; on"):
        join("dist_sync")


@pytest.mark.parametrize("name", ["local", "device", "nccl", "horovod"])
def test_stores_of_other_launchers(monkeypatch, name):
    """Each process would train alone, and write to the same folder as the others."""
    monkeypatch.setenv("DMLC_ROLE", "worker")
    with pytest.raises(InputError, match=f"kvstore: got {name}, but DMLC_ROLE is set"):
        join(name)


def test_names_of_stores():
    assert join("auto") is not ALONE
    assert (join("auto").store, join("local").store, join("nccl").store) == (None, "local", "nccl")
    with pytest.raises(InputError, match="kvstore: got 'other', wanted one of auto, local, dev"):
        join("other")


def test_a_store_that_another_package_registers():
    workers = join("teststore")
    assert (workers.rank, workers.count, workers.asynchronous) == (0, 1, False)


def test_horovod(monkeypatch):
    """With a Horovod whose other worker has the same arrays: it is not installed here."""
    hvd = types.ModuleType("horovod.mxnet")
    hvd.init, hvd.rank, hvd.size = (lambda: None), (lambda: 0), (lambda: 2)
    hvd.broadcast = lambda array, root_rank, name, priority: array.copy()

    def allreduce_(array, average, name, priority):
        assert not average
        array *= 2

    hvd.allreduce_ = allreduce_
    package = types.ModuleType("horovod")
    package.__spec__, package.__path__ = types.SimpleNamespace(), []
    monkeypatch.setitem(sys.modules, "horovod", package)
    monkeypatch.setitem(sys.modules, "horovod.mxnet", hvd)
    monkeypatch.delitem(sys.modules, "fastrnn.lm.distributed.horovod", raising=False)
    monkeypatch.setattr(mx.kvstore.KVStoreBase, "kv_registry", {})
    workers = join("horovod")
    assert (workers.rank, workers.count, workers.asynchronous) == (0, 2, False)
    assert workers.summed("losses", [1.0, 2.5]).tolist() == [2, 5]
    assert workers.from_first([3.0]).tolist() == [3]
    parameter = mx.gluon.Parameter("w", shape=(2,))
    parameter.initialize(mx.init.One(), ctx=[mx.cpu(0), mx.cpu(1)])
    trainer = mx.gluon.Trainer(
        [parameter], "sgd", {"learning_rate": 1}, workers.store, update_on_kvstore=False
    )
    for context in parameter.list_ctx():
        with mx.autograd.record():
            loss = (parameter.data(context) * 3).sum()
        loss.backward()
    trainer.step(1)
    for context in parameter.list_ctx():  # two devices of two workers
        assert parameter.data(context).asnumpy().tolist() == [1 - 12] * 2
