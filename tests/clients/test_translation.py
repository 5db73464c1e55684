"""A translation model like Google's (Wu et al., arXiv:1609.08144), of GluonNLP 0.10's blocks.

GluonNLP's own is in its scripts, which are not in the package. As there, the encoder unrolls its
cells, the first one in both directions, and the decoder goes step by step with attention.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from compared import check, mx

import fastrnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nlp = pytest.importorskip("gluonnlp")

rnn = mx.gluon.rnn
CELLS = {"lstm": rnn.LSTMCell, "gru": rnn.GRUCell}
N, T, V, UNITS = 16, 20, 50, 48


class Encoder(nlp.model.Seq2SeqEncoder):
    def __init__(self, cell):
        super().__init__()
        with self.name_scope():
            self.cells = mx.gluon.nn.HybridSequential()
            self.cells.add(rnn.BidirectionalCell(cell(UNITS), cell(UNITS)), cell(UNITS))
            self.cells.add(rnn.ResidualCell(cell(UNITS)))

    def forward(self, inputs, valid_length=None, states=None):
        """Return the outputs and each cell's last states; of the first, those of backwards."""
        after = []
        for cell in self.cells:
            inputs, last = cell.unroll(
                inputs.shape[1], inputs, merge_outputs=True, valid_length=valid_length
            )
            after.append(last[len(last) // 2 :] if cell is self.cells[0] else last)
        return inputs, after


class Decoder(mx.gluon.HybridBlock):
    """One step: the lowest cell attends, and the others see what it attended to."""

    def __init__(self, cell):
        super().__init__()
        with self.name_scope():
            self.attention = nlp.model.DotProductAttentionCell(UNITS, luong_style=True)
            self.cells = mx.gluon.nn.HybridSequential()
            self.cells.add(cell(UNITS), cell(UNITS), rnn.ResidualCell(cell(UNITS)))

    def hybrid_forward(self, F, inputs, context, states, memory, mask):
        output, after = self.cells[0](F.concat(inputs, context, dim=1), states[0])
        query = F.expand_dims(output, axis=1)
        context, _ = self.attention(query, memory, memory, F.expand_dims(mask, axis=1))
        context, after = F.reshape(context, shape=(0, -1)), [after]
        for k in (1, 2):
            before = F.concat(output, context, dim=1) if k == 1 else output
            output, last = self.cells[k](before, states[k])
            after.append(last)
        return output, context, after


class Translation(mx.gluon.Block):
    def __init__(self, cell):
        super().__init__()
        with self.name_scope():
            self.source, self.target = (mx.gluon.nn.Embedding(V, UNITS) for _ in range(2))
            self.encoder, self.decoder = Encoder(cell), Decoder(cell)
            self.words = mx.gluon.nn.Dense(V, flatten=False)

    def forward(self, source, lengths, target):
        memory, states = self.encoder(self.source(source), lengths)
        steps = mx.nd.arange(source.shape[1])
        mask = mx.nd.broadcast_lesser(steps.reshape((1, -1)), lengths.reshape((-1, 1)))
        context, outputs = mx.nd.zeros_like(memory[:, 0]), []
        for inputs in self.target(target).swapaxes(0, 1):
            output, context, states = self.decoder(inputs, context, states, memory, mask)
            outputs.append(output)
        return self.words(mx.nd.stack(*outputs, axis=1)), states


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_translation(cell, hybrid):
    net = Translation(CELLS[cell])
    net.initialize()
    net.hybridize(hybrid)
    rng = np.random.RandomState(3)
    source, target = (mx.nd.array(rng.randint(0, V, (N, steps))) for steps in (T, 15))
    lengths = mx.nd.array(rng.randint(1, T + 1, N))
    check(net, lambda net: net(source, lengths, target), replaced=7)
    assert fastrnn.restore(net).replaced
