"""``python -m fastrnn``: the command line."""

from __future__ import annotations

import sys

from fastrnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
