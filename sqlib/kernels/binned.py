"""Counts and sums per bin in one pass: a position is a fixed-point number, its bin the high bits.

One 64-bit word per bin takes both: the count from bit 40 up, below it the sum of the positions inside the bin
in units of 2^-16 bin widths. One addition per value instead of two; integer sums, so that neither order nor
threads matter.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from sqlib.kernels._jit import jit
from sqlib.kernels._threads import run_split

FRACTION = 16
"""Bits of a position inside its bin."""

# 2^24 positions below 2^16 sum to less than 2^40, where the counts begin.
_CHUNK = 1 << 24
_VALUES_PER_THREAD = 1 << 18


@jit
def _positions(x, lower, factor, last, out):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        q = np.int64((np.float64(x[i]) - lower) * factor)
        out[i] = q if q < last else last


@jit
def _scatter(positions, table):  # type: ignore[no-untyped-def]
    for i in range(positions.size):
        q = np.uint64(positions[i])
        table[q >> np.uint64(16)] += (np.int64(1) << 40) | (positions[i] & 65535)


@jit
def _add(x, lower, factor, last, table):  # type: ignore[no-untyped-def]
    positions = np.empty(1024, np.int64)  # found first, then used: the first loop is vectorized
    whole = x.size // 1024 * 1024
    for start in range(0, whole, 1024):
        _positions(x[start : start + 1024], lower, factor, last, positions)
        _scatter(positions, table)
    rest = positions[: x.size - whole]
    _positions(x[whole:], lower, factor, last, rest)
    _scatter(rest, table)


def bin_sums(
    x: NDArray[np.floating], lower: float, upper: float, bins: int, *, threads: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of `bins` equal bins over [lower, upper], and per bin the sum of (x - lower).

    Parameters
    ----------
    x : ndarray of float
        One-dimensional, contiguous, float32 or float64, all within the range; lower < upper and a bin width
        whose inverse is finite. These are preconditions: nothing is checked.
    threads : int
        Upper limit on threads.

    Returns
    -------
    counts, sums: int64 (bins,). The unit of a sum is a bin width / 2^16; a value's position is rounded down
    to that unit. Exact integers for up to 2^30 values in 2^16 bins.

    Notes
    -----
    O(n), no temporary of the size of the data.
    """
    last = (bins << FRACTION) - 1
    factor = (bins << FRACTION) / (upper - lower)
    counts, inside = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    lock = threading.Lock()

    def part(start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK):
            table = np.zeros(bins, np.int64)
            _add(x[first : min(first + _CHUNK, stop)], lower, factor, last, table)
            with lock:
                np.add(counts, table >> 40, out=counts)
                np.add(inside, table & ((1 << 40) - 1), out=inside)

    run_split(part, x.size, min(threads, x.size // _VALUES_PER_THREAD))
    return counts, inside + counts * (np.arange(bins, dtype=np.int64) << FRACTION)
