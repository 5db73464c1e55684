"""A clock, and a GPU with a queue, that only move when work is done."""

from __future__ import annotations

from types import SimpleNamespace


class Machine:
    def __init__(self):
        self.now = 0.0
        self.calls = []

    def clock(self):
        return self.now

    def call(self, name, seconds):
        def run(number):
            self.calls.append((name, number))
            self.now += next(seconds) if hasattr(seconds, "__next__") else seconds

        return run

    def event(self):
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.synchronize = lambda: None
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event
