"""Those who take part in tests."""

from __future__ import annotations

from bench import data
from bench.peers import base


class Made(base.Peer):
    """Gives the oracle's results, and does what a test wants of it otherwise.

    Parameters
    ----------
    reason, refuses
        What `available` and `supports` say.
    wrong
        What is added to the results.
    run
        Called with each input set's number, after the work is done.
    """

    def __init__(
        self,
        name="made",
        reason=None,
        mandatory=False,
        wrong=0,
        refuses=None,
        group="",
        run=lambda number: None,
    ):
        self.name, self.reason, self.group, self._mandatory = name, reason, group, mandatory
        self.wrong, self.refuses, self.run = wrong, refuses, run
        self.uncapturable = None
        self.built = self.closed = 0

    def mandatory(self, device, task="layer"):
        return self._mandatory

    def available(self, device):
        return self.reason

    def version(self):
        return "0"

    def supports(self, case, device):
        return self.refuses

    def build(self, case, values, device):
        self.built += 1
        return MadeLayer(self, case, values)


class MadeLayer(base.Layer):
    """The oracle's results of the latest input set."""

    torch = None  # a `FakeTorch` that may be capturing

    def __init__(self, peer, case, values):
        self.peer, self.case, self.values = peer, case, values
        self.uncapturable = peer.uncapturable
        self.found = None

    def run(self, number):
        def work():
            values = self.values
            of_set = values._replace(xs=values.xs[number:], d_outputs=values.d_outputs[number:])
            self.found = data.expected(self.case, of_set)

        if self.torch is not None and self.torch.capturing is not None:
            self.torch.capturing.append(work)
        work()
        self.peer.run(number)

    def results(self):
        return {name: array + self.peer.wrong for name, array in self.found.items()}

    def close(self):
        self.peer.closed += 1
