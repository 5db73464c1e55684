"""Bank conflicts of the sums that a block's warps add up in shared memory.

ProductShape::sum_index says where each sum is; these are the lanes' accesses in product.cuh,
product_float.cuh and persistent_forward.cuh.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
#include "cuda/persistent/product_shape.h"
extern "C" int SumIndex(int row_tiles, int batch_tiles, int row, int column) {
  fastrnn::cuda::ProductShape shape = {row_tiles, batch_tiles, 8, true, 0, 0};
  return shape.sum_index(row, column);
}
"""
WARPS, WARP, BANKS = 8, 32, 32


@pytest.fixture(scope="module")
def sum_index(tmp_path_factory):
    """Return ProductShape::sum_index, compiled."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    folder = tmp_path_factory.mktemp("banks")
    source, library = folder / "banks.cc", folder / "banks.so"
    source.write_text(SOURCE)
    options = ["-std=c++17", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library)).SumIndex


def wavefronts(addresses):
    """Return how often shared memory is accessed: different words of a bank one by one."""
    words = set(addresses)
    return max(sum(word % BANKS == bank for word in words) for bank in range(BANKS))


@pytest.mark.parametrize("batch_tiles", [1, 2, 4])
@pytest.mark.parametrize("row_tiles", [1, 2, 4])
def test_every_sum_has_its_own_place(sum_index, row_tiles, batch_tiles):
    rows, columns = 16 * row_tiles, 8 * batch_tiles
    places = {sum_index(row_tiles, batch_tiles, r, c) for r in range(rows) for c in range(columns)}
    assert places == set(range(rows * columns))


@pytest.mark.parametrize("row_tiles", [1, 2, 4])
def test_stores_have_no_conflicts(sum_index, row_tiles):
    for tile in range(row_tiles):
        for column in (0, 1):
            for row in (16 * tile, 16 * tile + 8):  # of fragments, 4 bytes
                lanes = [(row + i // 4, column + i % 4 * 2) for i in range(WARP)]
                assert wavefronts(sum_index(row_tiles, 1, *lane) for lane in lanes) == 1
            for half in (0, WARP // 2):  # of IEEE float32, 8 bytes: half a warp at once
                lanes = [(16 * tile + i % 8 * 2, column + i // 8 * 2) for i in range(WARP)]
                first = [sum_index(row_tiles, 1, *lane) for lane in lanes[half : half + WARP // 2]]
                assert wavefronts([*first, *(word + 1 for word in first)]) == 1
                second = [sum_index(row_tiles, 1, r + 1, c) for r, c in lanes]
                assert second[half : half + WARP // 2] == [word + 1 for word in first]


def cells_of(warp, units, lanes, rows):
    """Return unit and row of the first cell of each lane that has one."""
    every = [(i % lanes, i // lanes) for i in range(warp * WARP, (warp + 1) * WARP)]
    return [(unit, row) for unit, row in every if unit < units and row < rows]


@pytest.mark.parametrize("batch_tiles", [1, 2, 4])
@pytest.mark.parametrize("row_tiles", [2, 4])
def test_loads_of_four_gates_have_no_conflicts(sum_index, row_tiles, batch_tiles):
    # 16 bytes of each lane: a quarter of a warp at once.
    units = 4 * row_tiles
    for warp in range(WARPS):
        cells = cells_of(warp, units, units, 8 * batch_tiles)
        for first in range(0, len(cells), WARP // 4):
            at_once = cells[first : first + WARP // 4]
            words = [sum_index(row_tiles, batch_tiles, 4 * unit, row) for unit, row in at_once]
            assert all(word % 4 == 0 for word in words)
            assert wavefronts(word + gate for word in words for gate in range(4)) == 1


@pytest.mark.parametrize("batch_tiles", [1, 2, 4])
@pytest.mark.parametrize(("gates", "row_tiles"), [(3, 2), (3, 4), (1, 1), (1, 2)])
def test_loads_of_other_gates_have_few_conflicts(sum_index, gates, row_tiles, batch_tiles):
    units, rows = 16 * row_tiles // gates, 8 * batch_tiles
    # As LanesOfUnits in persistent_forward.cuh, which spreads 21 units over 32 lanes, but not if a
    # thread had 4 rows then.
    lanes = units if units == 21 and batch_tiles == 4 else 1 << (units - 1).bit_length()
    counts = [
        wavefronts(
            sum_index(row_tiles, batch_tiles, gate * units + unit, row) for unit, row in cells
        )
        for warp in range(WARPS)
        for cells in [cells_of(warp, units, lanes, rows)]
        for gate in range(gates)
        if cells
    ]
    # Three gates' units are not a power of two.
    most = 1 if gates == 1 else {10: 1.4, 21: 1}[units] if lanes > units else 2.2
    assert sum(counts) / len(counts) <= most
