"""Measures constants of the cost model on the GPU at hand.

Nothing that runs depends on them: `fastrnn.plans` shows what the model makes of them.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Dict, Optional

from fastrnn import _native, plans
from fastrnn.check.kernels import Call
from fastrnn.check.problems import Shape
from fastrnn.check.timing import clock, unsolved

_CELL, _MATH = "lstm", "float32"  # which every GPU has
# So small that a step waits: stepwise for the host, persistent for the other blocks.
_ROWS, _STEPWISE_HIDDEN, _PERSISTENT_HIDDEN = 1, 32, 256
_ROUNDS = 7


def measure(device: int, steps: int) -> Dict[str, float]:
    """Return the measured rates by the names of `fastrnn.plans.DeviceFacts`.

    Parameters
    ----------
    steps
        Of the longer of two calls; the difference to a quarter of them leaves out what a call costs
        besides steps.
    """
    found = {"host_us": _step_us(device, "stepwise", _STEPWISE_HIDDEN, steps)}
    exchange = _exchange_us(device, steps)
    if exchange is not None:
        found["exchange_us"] = exchange
    # Beside other programs, a difference of two times may be none.
    return {name: us for name, us in found.items() if us > 0.0}


def _exchange_us(device: int, steps: int) -> Optional[float]:
    """Return the time of an exchange, or None where there is no persistent kernel."""
    facts = plans.DeviceFacts(**_native.library().device_facts(device))
    try:
        one, two = (_modelled_us(replace(facts, exchange_us=us), steps) for us in (1.0, 2.0))
    except ValueError:
        return None
    # The model's step is linear in the time of an exchange.
    measured = _step_us(device, "persistent", _PERSISTENT_HIDDEN, steps)
    return 1.0 + (measured - one) / (two - one)


def _modelled_us(facts: plans.DeviceFacts, steps: int) -> float:
    """Return the model's time of the persistent step that is measured."""
    sizes = (steps, _ROWS, _PERSISTENT_HIDDEN)
    chosen = plans.plan(_CELL, *sizes, tf32=False, algorithm="persistent", device=facts)
    return chosen.forward.step_us


def _step_us(device: int, algorithm: str, hidden: int, steps: int) -> float:
    """Return the measured time of a forward step."""
    seconds = []
    for count in (steps, steps // 4):
        problem = unsolved(Shape(_CELL, count, _ROWS, hidden, 1, False))
        call = Call(problem, _MATH, device, algorithm)
        call.forward_and_wait()
        seconds.append(median(clock(call.forward_and_wait, 1) for _ in range(_ROUNDS)))
    return 1e6 * (seconds[0] - seconds[1]) / (steps - steps // 4)
