"""Settings small enough to train in a second."""

from __future__ import annotations

import numpy as np

from fastrnn.lm import data
from fastrnn.lm.training import Training
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
CPU = [mx.cpu()]
# Large enough for a few batches an epoch, small enough for a second.
SMALL = {"embed": 8, "hidden": 16, "batch": 4, "steps": 20, "epochs": 4, "validation": 0.1}
SMALL = {**SMALL, "data": "builtin", "sample": 0, "ngram": 0}
TEXT = data.load_text("builtin")[:3000]
EVERY_KIND = [
    ("demo", {"dropout": 0.3, "layers": 2}),
    ("demo", {"cell": "gru", "tie_weights": True, "embed": 16, "clip": 0.5}),
    ("unrolled", {"window": 5}),
    ("zaremba-small", {}),
]


def trained(settings, epochs, checkpoint=None, contexts=CPU):
    training = Training(settings, TEXT, contexts, checkpoint)
    for _ in range(epochs):
        training.run_epoch()
    return training


def same(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
