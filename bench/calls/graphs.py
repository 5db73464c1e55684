"""CUDA graphs: a call's work, captured once and replayed, which costs the host next to nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, List

from bench.calls.timing import Call


class CaptureError(Exception):
    """A call cannot be captured: it waits or allocates, or its library refuses."""


def one_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def captured(torch: Any, call: Call, sets: int) -> Iterator[Call]:
    """Capture a call's work on each input set; the graphs are deleted at the end.

    The first set comes last, so that the results that the call leaves behind are those of it.

    Raises
    ------
    CaptureError
        With the reason.
    """
    graphs: List[Any] = []
    pool = torch.cuda.graph_pool_handle()
    try:
        for number in reversed(range(sets)):
            graph = torch.cuda.CUDAGraph()
            try:
                # torch.cuda.graph leaves its own stream in use where the end of a capture fails.
                stream = torch.cuda.stream(torch.cuda.current_stream())
                with stream, torch.cuda.graph(graph, pool=pool):
                    call(number)
            except Exception as error:
                _leave_pool(torch, pool)
                # The end of the capture fails as well.
                raise CaptureError(one_line(error.__context__ or error)) from error
            graphs.insert(0, graph)
        yield lambda number: graphs[number].replay()
    finally:
        torch.cuda.synchronize()
        for graph in graphs:
            graph.reset()


def _leave_pool(torch: Any, pool: Any) -> None:
    """Stop allocating from the pool of a capture that failed.

    Before 2.12, PyTorch goes on with that when the end of a capture fails (pytorch/pytorch, pull
    request 180395), and what is allocated next lies in a graph's memory.
    """
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is None:
        return
    try:
        end(torch.cuda.current_device(), pool)
    except RuntimeError as error:
        if "not currently recording" not in str(error):  # it has left already
            raise
