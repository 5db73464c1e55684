"""Makes the benchmarks importable as ``bench``."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: in front of an installed fastrnn there would be one that is not built.
sys.path.append(str(Path(__file__).resolve().parents[2]))
