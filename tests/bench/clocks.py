"""A clock, and a GPU with a queue and a cache, that only move when work is done."""

from __future__ import annotations

from types import SimpleNamespace

from bench.calls.timing import Gpu

# Seconds; powers of two, whose sums are exact.
RECORD = 2.0**-20  # the GPU's, of an event
EVICTION = 2.0**-14
COLD = 2.0**-13  # what a call takes longer when something else has been in the cache


def _next(seconds):
    return next(seconds) if hasattr(seconds, "__next__") else seconds


class Machine:
    """`calls` has each call's name, input set, and whether its inputs were not in the cache."""

    def __init__(self):
        self.now = self.done = 0.0  # of the host, and when the GPU has done what is queued
        self.cold = False
        self.calls = []
        self.waits = 0

    def clock(self):
        return self.now

    def call(self, name, seconds):
        """One that the host does."""

        def run(number):
            self.calls.append((name, number))
            self.now += _next(seconds)

        return run

    def queue(self, seconds):
        self.done = max(self.now, self.done) + seconds

    def launch(self, name, host, seconds):
        """One that takes the host a while, and the GPU's work begins after that."""

        def run(number):
            self.calls.append((name, number, self.cold))
            self.now += host
            self.queue(_next(seconds) + COLD * self.cold)
            self.cold = False

        return run

    def evict(self):
        self.queue(EVICTION)
        self.cold = True

    def event(self):
        event = SimpleNamespace(at=None)

        def record():
            self.queue(RECORD)
            event.at = self.done

        def synchronize():
            self.waits += 1
            self.now = max(self.now, event.at)

        event.record, event.synchronize = record, synchronize
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event

    @property
    def gpu(self):
        return Gpu(self.event, self.evict)
