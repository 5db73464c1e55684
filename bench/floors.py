"""What fastrnn's kernels cannot be faster than, by their cost model, on a GPU of given peaks.

The model is the one that picks them (`fastrnn.kernels.plan`), with this run's peaks in place of its
nominal rates. With these the plan counts that would be the cheapest, whatever calls run with, so
that the floor is below every plan. The host counts nothing, as in replayed graphs. An exchange that
was not measured stays nominal, and so does all that has no peak, such as the bandwidth of L2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, Optional

from bench.cases import Case
from bench.limits import Limit, Peaks, flops_beside_steps, limit
from bench.peers.kernels import Fastrnn, plan_of

if TYPE_CHECKING:
    from fastrnn.plans import DeviceFacts, Plan

NO_HOST_US = 1e-9  # 0 would be the nominal figure
# By themselves, clusters are chosen only where they gain more than a little; and where the cheapest
# steps are persistent, a stepwise pass may still be the cheaper one.
KINDS = ("stepwise", "auto:cluster=0", "auto:cluster=1")


def facts_of(device: str) -> Optional[DeviceFacts]:
    """Of the GPU; None on a CPU, and where fastrnn's kernels cannot run on it."""
    if device != "cuda" or Fastrnn().available(device) is not None:
        return None
    from fastrnn import _C
    from fastrnn.plans import DeviceFacts

    return DeviceFacts(**_C.device_facts(0))


def limits_of(
    case: Case, peaks: Peaks, sets: Optional[int], facts: Optional[DeviceFacts]
) -> Dict[str, Any]:
    """Seconds and bounds of a row: its limit, and on a GPU that of any algorithm as well.

    On a GPU the limit is the kernels' floor where that is above what no algorithm can beat.

    Parameters
    ----------
    sets
        As for `limits.limit`.
    """
    found = limit(case, peaks, sets)
    if facts is None:
        return {"limit": found.seconds, "bound": found.bound}
    own = max(found, Limit(floor_seconds(case, peaks, facts), "steps"))
    anyone = {"any_limit": found.seconds, "any_bound": found.bound}
    return {"limit": own.seconds, "bound": own.bound, **anyone}


def floor_seconds(case: Case, peaks: Peaks, facts: DeviceFacts) -> float:
    """Both passes' floors, of all layers.

    A pass is its steps and the products beside them: of the input, and backward of the weights'
    gradients. A persistent kernel leaves no room for these. Of stepwise directions at once, one
    may hide them behind the launches of the other, so there they count nothing.
    """
    measured = replace(
        facts,
        exchange_us=(peaks.exchange or 0.0) * 1e6,
        memory_bytes_per_us=peaks.bandwidth / 1e6,
        products_per_us=peaks.flops / 2 / 1e6 / facts.multiprocessors,
        host_us=NO_HOST_US,
    )
    plans = [plan_of(case, measured, algorithm) for algorithm in KINDS]
    passes = [[plan.forward for plan in plans], [plan.backward for plan in plans]]
    beside = [flops / peaks.flops for flops in flops_beside_steps(case)]
    return sum(
        min(_pass_seconds(case, plan, products) for plan in of_pass)
        for of_pass, products in zip(passes, beside)
    )


def _pass_seconds(case: Case, plan: Plan, products: float) -> float:
    steps = case.layers * plan.total_us / 1e6
    at_once = plan.algorithm == "stepwise" and case.directions > 1
    return steps if at_once else steps + products
