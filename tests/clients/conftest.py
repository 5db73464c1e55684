"""Packages that use Gluon's recurrent layers: `make clients` installs and tests them."""

from __future__ import annotations

import fastrnn  # noqa: F401 - before MXNet, which it lets run on the NumPy that is there
