"""When stepwise calls are captured and replayed, and what happens where that fails.

run.sh runs this file; tests/test_kernels_replay.py has the results.
"""

from __future__ import annotations

import contextlib

import emulated
import numpy as np
import pytest
import reference as ref
from emulated import CUBLAS, capture, in_new_thread
from repeated_layer import CALLS, STEPS, Layer

from fastrnn import kernels

LEGACY, FIRST, SECOND = 0, 0x1000, 0x2000  # addresses of streams, which the emulator does not read
MOST_CALLS = 16
PASSES = 2


def run(layer, stream=LEGACY):
    """Run both passes; return how many kernels the host launched for that, and how many graphs."""
    before = emulated.launches(), emulated.graph_launches()
    layer.run(stream)
    return emulated.launches() - before[0], emulated.graph_launches() - before[1]


def run_until_replayed(layer):
    for _ in range(CALLS):
        kernels_and_graphs = run(layer)
    assert kernels_and_graphs == (0, PASSES)


@contextlib.contextmanager
def failing_product(calls):
    """Have this thread's call of cuBLAS fail that is so many calls away."""
    CUBLAS.emulator_fail_blas(calls)
    try:
        yield
    finally:
        CUBLAS.emulator_fail_blas(0)


# ---- when ---------------------------------------------------------------------------------------


# A graph is of a layer, or of two that run at once.
@pytest.mark.parametrize("stream", [LEGACY, FIRST])
@pytest.mark.parametrize(
    ("directions", "layers", "of_pass"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 3, 2), (2, 2, 2)]
)
@pytest.mark.parametrize("mode", ref.MODES)
def test_the_third_call_launches_graphs_alone(mode, directions, layers, of_pass, stream):
    layer = Layer(mode, directions, layers=layers)
    weight = layer.arguments["weights"][1]  # a factor of every step, forward
    plain, graphs = run(layer, stream)
    assert plain >= 2 * STEPS * directions * layers
    assert graphs == 0
    # The second call's launches are recorded, not done.
    assert run(layer, stream) == (plain, PASSES * of_pass)
    products = emulated.factor_uses(weight)
    assert run(layer, stream) == (0, PASSES * of_pass)
    assert emulated.factor_uses(weight) == products
    layer.check()


@pytest.mark.parametrize(("steps", "waves"), [(9, 3), (19, 5), (80, 8), (3, 1)])
def test_layers_at_once_project_their_inputs_in_waves(steps, waves):
    layer = Layer("lstm", steps=steps, layers=2)
    weights = layer.arguments["weights"]
    before = [emulated.factor_uses(w) for w in (weights[0], weights[4])]
    kernels.forward(**layer.arguments)
    uses = [emulated.factor_uses(w) for w in (weights[0], weights[4])]
    assert [n - b for n, b in zip(uses, before)] == [waves, waves]


def test_any_stream_launches_the_graph():
    layer = Layer("lstm", 2)
    for stream in (LEGACY, FIRST):
        assert run(layer, stream)[0] > 0
    for stream in (SECOND, LEGACY, 1, FIRST):
        layer.replace(seed=stream)
        assert run(layer, stream) == (0, PASSES)
        layer.check()


def test_a_replay_reads_every_array_anew():
    layer, other = Layer("lstm", 2, seed=0), Layer("lstm", 2, seed=1)
    run_until_replayed(layer)
    case = layer.case = other.case
    arguments = layer.arguments
    pairs = [(arguments[name], getattr(case, name)) for name in ("x", "h_0", "c_0")]
    pairs += zip(arguments["weights"], case.weights)
    pairs += zip(layer.gradients_of_results, (case.d_output, case.d_h_n, case.d_c_n))
    for array, numbers in pairs:
        emulated.write(array, numbers)
    assert run(layer) == (0, PASSES)
    layer.check()


def test_another_workspace_is_another_call(monkeypatch):
    monkeypatch.setenv("FASTRNN_ALGORITHM", "stepwise")
    layer = Layer("rnn_tanh")  # has no reserve, on which the size depends
    run_until_replayed(layer)
    sizes = emulated.workspace_bytes("rnn_tanh", "float32", (STEPS, 3, 4, 5))
    # Takes the memory where the workspaces have been, and the little that they are aligned with.
    takers = [kernels.to_device(np.full(size // 4 + 16, 7, np.float32)) for size in sizes]
    assert run(layer)[1] == 0
    layer.check()
    assert all((kernels.to_host(taker) == 7).all() for taker in takers)


@pytest.mark.parametrize(("steps", "graphs"), [(7, 0), (8, PASSES), (2048, PASSES), (2049, 0)])
def test_graphs_are_for_neither_few_steps_nor_very_many(steps, graphs):
    layer = Layer("rnn_tanh", steps=steps)
    for _ in range(CALLS - 1):
        found = run(layer)
    assert found[1] == graphs
    assert (found[0] == 0) == (graphs > 0)


def test_graphs_can_be_switched_off(monkeypatch):
    layer = Layer("lstm")
    run_until_replayed(layer)
    monkeypatch.setenv("FASTRNN_GRAPHS", "0")
    assert run(layer)[1] == 0
    monkeypatch.setenv("FASTRNN_GRAPHS", "1")
    assert run(layer) == (0, PASSES)


# ---- others who capture -------------------------------------------------------------------------


def test_what_the_caller_captures_is_neither_captured_nor_replayed():
    layer = Layer("gru", 2)
    for call in range(CALLS):
        graphs = emulated.graph_launches()
        if call == 0:
            run(layer, FIRST)
        with capture(FIRST):
            assert run(layer, FIRST)[0] > 0
            layer.replace(seed=call)
        assert emulated.graph_launches() == graphs
        layer.check()
        run(layer, FIRST)
    assert run(layer, FIRST) == (0, PASSES)


def test_a_capture_of_another_stream_goes_on():
    layer = Layer("gru", 2)
    with capture(FIRST):
        for _ in range(CALLS):
            found = run(layer, SECOND)
        assert found == (0, PASSES)
        others = [Layer("gru", seed=seed) for seed in range(MOST_CALLS)]
        for other in others:  # which takes the room of the first
            run(other, SECOND)
        assert not emulated.captures_relaxed()
    layer.check()


# ---- room ---------------------------------------------------------------------------------------


def test_few_graphs_are_kept_and_none_when_the_thread_ends():
    def fill():
        before = emulated.executables()
        found = []
        for seed in range(MOST_CALLS):
            run_until_replayed(Layer("gru", seed=seed))
            found.append(emulated.executables() - before)
        return found

    before = emulated.executables()
    expected = [min(PASSES * (i + 1), MOST_CALLS) for i in range(MOST_CALLS)]
    assert in_new_thread(fill) == expected
    assert emulated.executables() == before


def test_calls_can_be_forgotten():
    layer = Layer("lstm")
    run_until_replayed(layer)
    before = emulated.executables()
    kernels._native().forget_replays()
    assert emulated.executables() == before - PASSES
    plain, graphs = run(layer)
    assert plain > 0
    assert graphs == 0
    run_until_replayed(layer)
    layer.check()


def test_the_latest_calls_are_remembered():
    def remembers():
        # 8 layers of two passes each are as many as there is room for.
        layers = [Layer("gru", seed=seed) for seed in range(MOST_CALLS // PASSES + 1)]
        for layer in layers[:-1]:
            run_until_replayed(layer)
        assert run(layers[0]) == (0, PASSES)
        assert run(layers[-1])[1] == 0  # takes the second one's place
        return [run(layer)[1] for layer in layers[:2]]

    assert in_new_thread(remembers) == [PASSES, 0]


def test_many_calls_in_turn_are_not_captured_again_and_again():
    def captured():
        layers = [Layer("gru", seed=seed) for seed in range(MOST_CALLS // PASSES + 1)]
        return [run(layer)[1] for _ in range(CALLS) for layer in layers]

    assert not any(in_new_thread(captured))


def test_long_graphs_leave_no_room_for_more():
    def captured():
        layers = [Layer("rnn_tanh", steps=steps) for steps in (2048, 2048, 8)]
        found = [[run(layer)[1] for _ in range(2)] for layer in layers]
        for seed in range(MOST_CALLS // PASSES):  # which are forgotten for these
            run(Layer("gru", seed=seed))
        return [*found, [run(layers[-1])[1] for _ in range(2)]]

    assert in_new_thread(captured) == [[0, PASSES], [0, PASSES], [0, 0], [0, PASSES]]


def test_graphs_that_nobody_uses_make_room():
    def works():
        long = [Layer("rnn_tanh", steps=2048, seed=seed) for seed in range(2)]
        for layer in long:
            run_until_replayed(layer)
        used, unused = long
        short = Layer("gru")
        for _ in range(40):
            found = run(short)
            assert run(used) == (0, PASSES)
        assert found == (0, PASSES)
        assert run(unused)[1] == PASSES - 1  # as much room as was needed
        return True

    assert in_new_thread(works)


# ---- failures -----------------------------------------------------------------------------------


FAILURES = {
    "begin": lambda: emulated.failing_call("cudaStreamBeginCapture"),
    "end": lambda: emulated.failing_call("cudaStreamEndCapture"),
    "instantiate": lambda: emulated.failing_call("cudaGraphInstantiateWithFlags"),
    "launch a graph": lambda: emulated.failing_call("cudaGraphLaunch"),
    "launch a kernel": lambda: emulated.failing_launch(5),
    "cuBLAS": lambda: failing_product(5),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("directions", [1, 2])
def test_what_cannot_be_captured_runs_plainly(directions, failure):
    layer, other = (Layer("lstm", directions, seed=seed) for seed in range(2))
    plain, _ = run(layer)
    layer.replace(seed=2)
    executables = emulated.executables()
    with FAILURES[failure]():
        launches, graphs = run(layer)
    assert emulated.last_error() == 0
    assert launches >= plain
    layer.check()
    single = failure in ("launch a kernel", "cuBLAS")  # backward did not fail
    assert graphs == emulated.executables() - executables == single
    for call in range(CALLS):  # it is tried again, the next time
        layer.replace(seed=3 + call)
        launches, graphs = run(layer)
        assert (launches > 0, graphs) == (call == 0, PASSES)
        layer.check()
    run_until_replayed(other)
    other.check()


def test_what_fails_again_and_again_is_tried_ever_more_seldom():
    layer = Layer("lstm")
    run(layer)
    before = kernels._native().replay_counts()
    failures = []
    for _ in range(16):
        with emulated.failing_call("cudaStreamBeginCapture"):
            assert run(layer)[1] == 0
        counts = kernels._native().replay_counts()
        failures.append(counts["failed"] - before["failed"])
    tried = [1, 2, 2, 3, 3, 3, 3, *[4] * 8, 5]
    assert failures == [PASSES * times for times in tried]
    assert "cudaStreamBeginCapture" in counts["failure"]


def test_an_end_that_fails_after_a_failure_leaves_no_error_behind():
    layer = Layer("lstm")
    run(layer)
    with emulated.failing_launch(5), emulated.failing_call("cudaStreamEndCapture"):
        kernels.forward(**layer.arguments, reserve=True, out=layer.result)
    assert emulated.last_error() == 0


def test_a_thread_without_a_stream_to_capture_runs_plainly():
    def works():
        layer = Layer("lstm")
        run(layer)
        with emulated.failing_call("cudaStreamCreateWithFlags"):
            assert run(layer)[1] == 0
        assert emulated.last_error() == 0
        layer.check()
        run_until_replayed(layer)
        run_until_replayed(Layer("lstm", seed=1))
        return True

    assert in_new_thread(works)


def test_a_graph_that_cannot_be_launched_is_replaced():
    layer = Layer("gru", 2)
    run_until_replayed(layer)
    executables = emulated.executables()
    layer.replace(seed=1)
    with emulated.failing_call("cudaGraphLaunch"):
        launches, graphs = run(layer)
    assert (launches > 0, graphs, emulated.last_error()) == (True, 0, 0)
    assert emulated.executables() == executables - PASSES
    layer.check()
    assert run(layer)[1] == PASSES
    assert run(layer) == (0, PASSES)
    layer.check()


def test_a_call_that_fails_plainly_is_not_remembered(monkeypatch):
    layer = Layer("lstm", 2)
    monkeypatch.setenv("FASTRNN_GRAPHS", "0")  # makes the arrays
    layer.run()
    monkeypatch.delenv("FASTRNN_GRAPHS")
    with emulated.failing_launch(3), pytest.raises(RuntimeError, match="too many resources"):
        layer.run()
    assert run(layer)[1] == 0
    assert run(layer)[1] == PASSES
    layer.check()


def test_an_error_of_the_work_itself_is_reported():
    layer = Layer("gru", 2, lengths=[STEPS, 3, 1])
    run(layer)
    for _ in range(2):
        with emulated.failing_call("cudaMemsetAsync"), pytest.raises(
            RuntimeError, match="cudaMemsetAsync"
        ):  # backward, in the capture and once more in the plain call
            layer.run()
        assert emulated.last_error() == 0
    layer.replace(seed=1)
    assert run(layer)[1] == 1  # forward
    layer.check()
