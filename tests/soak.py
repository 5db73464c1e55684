"""Long tests, run by hand: random layers against the oracle, and many steps of training.

    python tests/soak.py kernels --seed 1 --count 10000
    python tests/soak.py layers --seed 1 --count 10000
    python tests/soak.py steps --seed 1 --count 10000

`kernels` takes random shapes and options of `fastrnn.kernels`, `layers` those of the Gluon layers,
forward and backward; Hypothesis draws them, and shrinks a case that fails. `steps` trains layers in
batches of changing shapes, with calls that fail now and then, and stops if memory keeps growing.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import reference as ref
from kernel_cases import KernelCase, assert_agrees

from fastrnn import kernels
from fastrnn.check.reference import __file__ as oracle_file

# Growth of a process after its first half, in bytes, that is not a leak: the allocator's pieces.
SLACK = 32 << 20
# How many times the error of the oracle in float32 a result may have.
FACTOR = 8
# Units that a normalised layer has at least: one value minus its mean is nothing but rounding.
NORM_UNITS = 8


def size(most: int) -> Any:
    """Sizes up to `most`, a power of two: small ones as often as those between larger powers."""
    return st.integers(0, most.bit_length() - 1).flatmap(lambda bits: st.integers(1, 2**bits))


def options_of(mode: str) -> Any:
    """What only some cells have."""
    found = [st.just({})]
    if mode == "lstm":
        clip = st.builds(ref.Clip, st.just(-0.3), st.just(0.4), st.booleans())
        projected = st.fixed_dictionaries({"projection": size(32)})
        found += [projected, st.fixed_dictionaries({"clip": clip})]
    if mode in ref.NORM_GATES:
        found.append(st.just({"layer_norm": True}))
    return st.one_of(found)


@st.composite
def noise_of(draw: Any, mode: str) -> Dict[str, Any]:
    """Noise of the steps, and its seed."""
    rates = dict.fromkeys(["zoneout_outputs", "drop_states"], st.sampled_from([0, 0.1, 0.5]))
    if mode == "lstm":
        rates["zoneout_states"] = rates["drop_states"]
    noise = kernels.Noise(**draw(st.fixed_dictionaries(rates)))
    # Without a seed, the cell is in its inference form.
    seeds = st.none() | st.integers(0, 2**63 - 1)
    return {"noise": noise, "noise_seed": draw(seeds)} if any(noise) else {}


SHARED = {
    "mode": st.sampled_from(ref.MODES),
    "layers": st.sampled_from([1, 1, 2, 3]),
    "directions": st.integers(1, 2),
    "seed": st.integers(0, 2**31 - 1),
}


@st.composite
def kernel_cases(draw: Any) -> KernelCase:
    """Arguments of `fastrnn.kernels`."""
    steps, rows, hidden = draw(size(64)), draw(size(64)), draw(size(256))
    lengths = st.lists(st.integers(0, steps), min_size=rows, max_size=rows)
    shared = {name: draw(values) for name, values in SHARED.items()}
    own = draw(options_of(shared["mode"]))
    hidden += NORM_UNITS * bool(own.get("layer_norm"))
    # The oracle's derivative of ReLU starts from the output, which noise changes.
    if not own.get("layer_norm") and shared["mode"] != "rnn_relu":
        own.update(draw(st.just({}) | noise_of(shared["mode"])))
    return KernelCase(
        steps=steps,
        rows=rows,
        inputs=draw(size(64)),
        hidden=hidden,
        dtype=draw(st.sampled_from(["float32", "float32", "float64"])),
        lengths=draw(st.none() | lengths),
        **shared,
        **own,
    )


@st.composite
def layer_options(draw: Any) -> Dict[str, Any]:
    """Options of `cases.LayerCase`."""
    options = {
        **SHARED,
        "T": size(32),
        "N": size(32),
        "I": size(32),
        "H": size(64),
        "dtype": st.sampled_from(["float32", "float32", "float64"]),
        "layout": st.sampled_from(["TNC", "NTC"]),
        "lengths": st.booleans(),
        "states": st.booleans(),
    }
    drawn = draw(st.fixed_dictionaries(options))
    own = draw(options_of(drawn["mode"]))
    return {**drawn, **own, "H": drawn["H"] + NORM_UNITS * bool(own.get("layer_norm"))}


class Arguments(NamedTuple):
    """What a stack of layers computes its results and gradients from."""

    mode: str
    options: Dict[str, Any]  # of the oracle
    arrays: List[Any]  # x, h0, c0
    weights: List[Any]
    gradients: List[Any]  # of output, h, c

    def compute(self, oracle: Any, perturb: Callable[[Any], Any]) -> List[Any]:
        """All arrays that the oracle computes from perturbed arguments."""
        result = oracle.stack_forward(
            self.mode,
            *map(perturb, self.arrays),
            [oracle.Weights(*map(perturb, weights)) for weights in self.weights],
            **{**self.options, "noise": self._noise(oracle)},
        )
        found = oracle.stack_backward(result, *map(perturb, self.gradients))
        arrays = [result.output, result.h, result.c, found.x, found.h0, found.c0]
        arrays += [array for weights in found.weights for array in weights]
        return [array for array in arrays if array is not None]

    def _noise(self, oracle: Any) -> Any:
        """What the layers draw, in the oracle's type: their arrays would change the others'."""
        drawn, kind = self.options.get("noise"), np.float32 if oracle is SINGLE else np.float64
        if drawn is None:
            return None
        return [type(own)(*(np.asarray(array, kind) for array in own)) for own in drawn]


def oracle_in_single_precision() -> Any:
    """The oracle in float32. Its cells take the type of their arguments, unless they clip."""
    module = types.ModuleType("oracle_in_single_precision")
    source = Path(oracle_file).read_text(encoding="utf-8").replace("float64", "float32")
    exec(compile(source, oracle_file, "exec"), module.__dict__)
    return module


SINGLE = oracle_in_single_precision()
ill_conditioned = 0


def within_rounding(check: Callable[[], None], arguments: Arguments, dtype: str) -> None:
    """Run `check`; if it fails, again with the tolerance that rounding to float32 explains.

    The one tolerance is too tight where terms of a sum cancel, such as in the gradient of a layer's
    only weight, or in 1 - h**2 of a tanh near 1. There the oracle itself is as wrong in float32.
    """
    try:
        check()
        return
    except AssertionError:
        error = error_in_single_precision(arguments) * (2.0**-29 if dtype == "float64" else 1)
        tolerance = max(ref.TOLERANCE[dtype], FACTOR * error)
    kept = dict(ref.TOLERANCE)
    ref.TOLERANCE[dtype] = tolerance
    try:
        check()
    finally:
        ref.TOLERANCE.update(kept)
    global ill_conditioned  # noqa: PLW0603
    ill_conditioned += 1


def error_in_single_precision(arguments: Arguments) -> float:
    """The oracle's largest error in float32, as a share of the array that it is in."""
    rng = np.random.RandomState(0)

    def perturb(array: Any) -> Any:
        if array is None:
            return None
        return (array * (1 + 2.0**-24 * rng.uniform(-1, 1, array.shape))).astype(np.float32)

    wanted = arguments.compute(ref, lambda array: array)
    return max(
        np.abs(one - two).max(initial=0) / (np.abs(one).max(initial=0) + 1e-30)
        for _ in range(16)
        for one, two in zip(wanted, arguments.compute(SINGLE, perturb))
    )


def check_kernels(options: argparse.Namespace) -> None:
    """Compare random cases of `fastrnn.kernels` with the oracle."""

    @given(kernel_cases())
    def check(case: KernelCase) -> None:
        arguments = Arguments(
            case.mode,
            case.oracle_options(),
            [case.x, case.h_0, case.c_0],
            case.stack(),
            [case.d_output, case.d_h_n, case.d_c_n],
        )
        within_rounding(lambda: assert_agrees(case), arguments, case.dtype)

    run_cases(check, options)


def check_layers(options: argparse.Namespace) -> None:
    """Compare random Gluon layers with the oracle."""
    from cases import LayerCase

    @given(layer_options(), st.booleans())
    def check(drawn: Dict[str, Any], hybridize: bool) -> None:
        case = LayerCase(**drawn)
        layer = case.layer()
        layer.hybridize(hybridize)
        arguments = Arguments(
            case.mode,
            {"directions": case.directions, "lengths": case.row_lengths, "clip": case.clip},
            [case.x, case.h0, case.c0],
            case.weights,
            [case.d_output, case.d_h, case.d_c],
        )
        within_rounding(lambda: case.check(layer), arguments, case.dtype)

    run_cases(check, options)


def run_cases(check: Callable[[], None], options: argparse.Namespace) -> None:
    """Let Hypothesis run a test as often as the command line says."""
    draws = settings(
        max_examples=options.count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    seed(options.seed)(draws(check))()
    print(f"{ill_conditioned} needed the tolerance of ill-conditioned sums", flush=True)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Steps:
    """Trains layers that are kept, in batches of changing shapes."""

    def __init__(self) -> None:
        import fastrnn
        from fastrnn.mxnet import import_mxnet

        self.mx = import_mxnet()
        self.layers = [
            fastrnn.LSTM(24, 2, dropout=0.2, bidirectional=True, input_size=8),
            fastrnn.GRU(40, use_sequence_length=True, input_size=8),
            fastrnn.RNN(16, activation="tanh", input_size=8),
        ]
        self.trainers = []
        for number, layer in enumerate(self.layers):
            layer.initialize()
            if number % 2:
                layer.hybridize()
            self.trainers.append(self.mx.gluon.Trainer(layer.collect_params(), "adam"))

    def __call__(self, pick: random.Random, interrupts: bool) -> None:
        """Train one step; every tenth call is one that has to fail first."""
        which = pick.randrange(len(self.layers))
        layer, nd = self.layers[which], self.mx.nd
        steps, rows = (pick.randint(1, 2 ** pick.randint(0, 5)) for _ in range(2))
        lengths = [nd.array([pick.randint(0, steps) for _ in range(rows)])] if which == 1 else []
        states = pick.choice([None, layer.begin_state(rows)])
        if pick.random() < 0.1:
            failures = [self.bad_shape, self.out_of_memory, *([self.interrupt] * interrupts)]
            pick.choice(failures)(layer, bool(lengths))
        with self.mx.autograd.record():
            result = layer(nd.random.uniform(shape=(steps, rows, 8)), states, *lengths)
            output = result if states is None else result[0]
            loss = (output**2).mean()
        loss.backward()
        self.trainers[which].step(1)
        assert np.isfinite(loss.asscalar())

    def bad_shape(self, layer: Any, has_lengths: bool) -> None:
        """Call the layer with an input of the wrong size."""
        lengths = [self.mx.nd.ones(3)] if has_lengths else []
        try:
            layer(self.mx.nd.ones((2, 3, 9)), None, *lengths)
        except ValueError:
            return
        raise AssertionError("a wrong input was accepted")

    def out_of_memory(self, layer: Any, has_lengths: bool) -> None:
        """Call the layer while the process may not have the memory for its results."""
        steps, nd = 100_000, self.mx.nd
        lengths = [nd.full(32, steps)] if has_lengths else []
        x = nd.ones((steps, 32, 8))
        x.wait_to_read()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        try:
            with self.mx.autograd.record():
                outcome = layer(x, None, *lengths)
            outcome.backward()
            nd.waitall()
        except self.mx.MXNetError:
            return
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        raise AssertionError("there was enough memory")

    def interrupt(self, layer: Any, has_lengths: bool) -> None:
        """Interrupt the layer, as Ctrl-C does, at some moment of a call and its backward pass."""
        lengths = [self.mx.nd.ones(16)] if has_lengths else []
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 5e-3))
            # Python drops an interrupt that arrives in a destructor, so the loop has an end.
            for _ in range(100):
                with self.mx.autograd.record():
                    output = layer(self.mx.nd.ones((16, 16, 8)), None, *lengths)
                output.backward()
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            # MXNet's `record` stays on if the interrupt comes as it begins or ends.
            self.mx.autograd.set_recording(False)
            self.mx.autograd.set_training(False)


def train_steps(options: argparse.Namespace) -> None:
    """Train as often as the command line says; fail if memory keeps growing."""
    pick = random.Random(options.seed)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    step, half = Steps(), 0
    for number in range(options.count):
        # MXNet's Python loses the arrays of a call that is interrupted, Gluon's layers' as well. So
        # memory is measured without interrupts.
        step(pick, interrupts=number < options.count // 2)
        if number == options.count // 2:
            half = resident()
    grown = resident() - half
    print(f"{resident() >> 20} MiB resident, {grown / 2**20:+.1f} since half of the steps")
    assert grown < SLACK, "memory keeps growing"


def main() -> None:
    """Run what the command line asks for."""
    runs = {"kernels": check_kernels, "layers": check_layers, "steps": train_steps}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=list(runs))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10000)
    options = parser.parse_args()
    begin = time.monotonic()
    runs[options.what](options)
    seconds = time.monotonic() - begin
    print(f"{options.what}: {options.count} of seed {options.seed} in {seconds:.0f} s")


if __name__ == "__main__":
    main()
