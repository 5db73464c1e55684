"""Persistent kernels in clusters, on an emulated device that has them; run.sh runs this file."""

from __future__ import annotations

import emulated
import pytest
from kernel_cases import Case, assert_agrees
from test_persistent import persistent


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("row_tiles", [2, 4])
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_clusters(mode, row_tiles, dtype):
    for batch_tiles in (1, 2, 4):
        algorithm = persistent(
            batch_tiles=batch_tiles, backward_row_tiles=row_tiles, split=4, cluster=1
        )
        case = Case(mode, 4, 11, 3, 45, device="cuda", dtype=dtype, algorithm=algorithm, seed=1)
        with emulated.compute_capability(90):
            assert_agrees(case)
