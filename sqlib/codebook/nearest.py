"""A codebook prepared for the kernels that look its nearest point up (`sqlib.kernels.nearest`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib.codebook.points import Codebook
from sqlib.errors import InputError
from sqlib.kernels import vector
from sqlib.kernels.nearest import NearestTable

HALF = 2048
"""Cells on each side of zero where the points are on no lattice."""

LARGEST = 16384
"""Largest denominator of a lattice table: its 4D + 1 cells stay integers in float32, and 64 KB."""


def nearest_table(codebook: Codebook, dtype: DTypeLike) -> NearestTable:
    """Prepare a codebook for values of `dtype` (float32 or float64); O(channels (cells + levels)).

    Raises
    ------
    InputError
        For more than 256 points, and for points outside [-1, 1], which normalized values never need.
    """
    kind = np.dtype(dtype)
    points = np.atleast_2d(codebook.points)
    if points.shape[1] > 256:
        raise InputError(f"{points.shape[1]} points, expected at most 256 (8 bits)")
    if np.abs(points).max() > 1:
        raise InputError(
            f"points from {points.min():g} to {points.max():g}, expected within [-1, 1], where normalized "
            "values are; divide them by the largest magnitude"
        )
    denominator = codebook.denominator
    if codebook.numerators is not None and denominator is not None and denominator <= LARGEST:
        numerators = np.atleast_2d(codebook.numerators)
        thresholds = numerators[:, :-1] + numerators[:, 1:]
        half, unit, exact = 2 * denominator, denominator, True
        values = numerators.astype(kind)
        cells = thresholds + half
    else:
        half, unit, exact = HALF, 1, False
        # half is a power of two, so scaling rounds nothing
        thresholds = np.atleast_2d(codebook.midpoints(kind)) * kind.type(half)
        values = points.astype(kind)
        cells = np.ceil(thresholds).astype(np.int64) + half
    first = np.zeros((len(points), 2 * half + 1), np.uint8)
    for row, channel in zip(first, cells):
        # midpoints in earlier cells: a cell's own end is still below its midpoint
        row[...] = np.searchsorted(channel, np.arange(2 * half + 1), side="left")
    thresholds, values = np.ascontiguousarray(thresholds, kind), np.ascontiguousarray(values)
    few = None
    if vector.AVAILABLE and kind == np.float32 and values.shape[1] <= vector.LANES:
        few = _padded(thresholds, np.inf), _padded(values, 0)
    return NearestTable(first, thresholds, values, half, unit, exact, few)


def _padded(rows: NDArray[Any], fill: float) -> NDArray[np.float32]:
    wide = np.full((len(rows), vector.LANES), fill, np.float32)
    wide[:, : rows.shape[1]] = rows
    return wide
