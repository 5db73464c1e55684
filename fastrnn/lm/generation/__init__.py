"""Writing text with a trained model, and suggesting how one goes on."""

from __future__ import annotations

from fastrnn.lm.generation.sampling import choose, until
from fastrnn.lm.generation.writer import Suggestion, Suggestions, Writer

__all__ = ["Suggestion", "Suggestions", "Writer", "choose", "until"]
