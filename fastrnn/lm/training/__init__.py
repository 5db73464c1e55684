"""Training: one network, its optimizer and its data, on one device or several."""

from __future__ import annotations

from fastrnn.lm.training.steps import differentiate, global_norm
from fastrnn.lm.training.trainer import Report, Training, same_corpus

__all__ = ["Report", "Training", "differentiate", "global_norm", "same_corpus"]
