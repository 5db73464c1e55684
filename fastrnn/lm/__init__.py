"""The language model: texts, networks, training, checkpoints, and writing.

``fastrnn.lm.preset`` gives settings, ``fastrnn.lm.runs.Run`` trains with them, and
``fastrnn.lm.generation.Writer`` writes. The command ``fastrnn`` does the same from a shell.
"""

from __future__ import annotations

from fastrnn.lm.config import PRESETS, Settings, preset
from fastrnn.lm.errors import InputError
from fastrnn.lm.tokenizers.vocabulary import Vocabulary

__all__ = ["PRESETS", "InputError", "Settings", "Vocabulary", "preset"]
