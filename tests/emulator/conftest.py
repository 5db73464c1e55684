"""The tests in this folder need the emulated builds that `make emulated` makes."""

import os

# The folder that holds the builds; see run.py.
BUILDS = os.environ.get("FASTRNN_EMULATED_BUILDS")

collect_ignore_glob = [] if BUILDS else ["test_*.py"]
