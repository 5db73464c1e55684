"""Makes the benchmarks importable as ``bench``; tests import this first."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# At the end: in front of an installed fastrnn there would be one that is not built.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
