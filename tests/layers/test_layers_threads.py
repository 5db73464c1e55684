"""Layers that several threads call."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import LayerCase, mx

import fastrnn


@pytest.mark.parametrize("input_size", [0, 4], ids=["deferred", "known"])
@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
def test_first_calls_in_several_threads(hybridize, input_size, backend):
    x = mx.nd.ones((3, 2, 4))
    begin = threading.Barrier(4)

    def call(layer):
        begin.wait()
        return layer(x).asnumpy()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            layer = fastrnn.LSTM(8, input_size=input_size, backend=backend)
            layer.initialize()
            layer.hybridize(hybridize)
            first, *others = pool.map(call, [layer] * 4)
            assert all(np.array_equal(first, other) for other in others)


def test_the_first_run_of_a_graph_is_one_thread_s_alone(monkeypatch):
    # MXNet then infers shapes in what the threads share.
    meeting = threading.Barrier(2)

    class Meeting(mx.nd.CachedOp):
        def __call__(self, *arguments, **options):
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(timeout=0.5)
                pytest.fail("two threads in one graph")
            return super().__call__(*arguments, **options)

    monkeypatch.setattr(mx.nd, "CachedOp", Meeting)
    layer = fastrnn.LSTM(8, input_size=4, backend="gluon")
    layer.initialize()
    layer.hybridize()
    x = mx.nd.ones((3, 2, 4))
    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(lambda _: layer(x).asnumpy(), range(2)))
    assert meeting.broken
    assert np.array_equal(*outputs)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
def test_threads_share_a_layer_with_and_without_states(hybrid, backend):
    cases = [LayerCase(layers=2, states=states) for states in (True, False)]
    layer = cases[0].layer(backend)
    layer.hybridize(hybrid)
    for case in cases:
        case.check_outcome(layer(*case.arguments()))
    failures = []

    def work(case):
        try:
            for _ in range(30):
                case.check_outcome(layer(*case.arguments()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(case,)) for case in cases * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
