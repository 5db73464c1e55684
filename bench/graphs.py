"""CUDA graphs: a call's work, captured once and replayed, which costs the host next to nothing."""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional

from bench.timing import Call

# Of a call; each holds memory of its own, and takes a call's time to capture. The eviction before
# each timed replay makes their inputs cold, however few they are.
MOST_GRAPHS = 2


class Graph(NamedTuple):
    """A call captured for some input sets, or why that cannot be."""

    call: Optional[Call]
    reason: Optional[str]
    delete: Callable[[], None]


def one_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def count_that_fits(sets: int, bytes_each: float, free_bytes: float) -> int:
    """How many graphs to capture: one for each input set, as far as half of the memory goes."""
    fit = int(free_bytes / 2 // max(1.0, bytes_each))
    return max(1, min(sets, MOST_GRAPHS, fit))


def capture(torch: Any, call: Call, count: int) -> Graph:
    """Capture a call's work on the first `count` input sets.

    The first set comes last, so that the results that the call leaves behind are those of it.
    """
    graphs: List[Any] = []
    pool, device = torch.cuda.graph_pool_handle(), torch.cuda.current_device()

    def delete() -> None:
        torch.cuda.synchronize()
        for graph in graphs:
            graph.reset()
        graphs.clear()

    for number in reversed(range(count)):
        graph = torch.cuda.CUDAGraph()
        try:
            # torch.cuda.graph leaves its own stream in use where the end of a capture fails.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
                call(number)
        except Exception as error:  # a call that waits or allocates, or a refusal of any library
            reason = one_line(error.__context__ or error)  # the end of the capture fails as well
            _leave(torch, device, pool)
            delete()  # waits, and raises if the failure was the GPU's last
            return Graph(None, reason, delete)
        graphs.insert(0, graph)
    return Graph(lambda number: graphs[number].replay(), None, delete)


def _leave(torch: Any, device: int, pool: Any) -> None:
    """Stop allocating from the pool of a capture that failed.

    Before 2.12, PyTorch goes on with that when the end of a capture fails (pytorch/pytorch, pull
    request 180395), and what is allocated next lies in a graph's memory.
    """
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is None:
        return
    try:
        end(device, pool)
    except RuntimeError as error:
        if "not currently recording" not in str(error):  # it has left already
            raise
