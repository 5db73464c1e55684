"""Gluon's recurrent layers, with the same arguments, parameters and numbers."""

from __future__ import annotations

from fastrnn._mxnet import import_mxnet

mx = import_mxnet()


class LSTM(mx.gluon.rnn.LSTM):
    """Long short-term memory; a drop-in `mxnet.gluon.rnn.LSTM`."""


class GRU(mx.gluon.rnn.GRU):
    """Gated recurrent unit; a drop-in `mxnet.gluon.rnn.GRU`."""


class RNN(mx.gluon.rnn.RNN):
    """Elman network with tanh or ReLU; a drop-in `mxnet.gluon.rnn.RNN`."""
