r"""Tables that give the nearest point of a codebook by one look-up instead of a search.

Positions are measured in cells: a value x of [-1, 1] stands at t = h x, which lies in cell ceil(t), one of
2h + 1. The table holds for every cell the number of midpoints in earlier cells.

On a lattice (points are integers over D, as in every universal set) h = 2D makes every midpoint an integer.
No midpoint is then inside a cell, only at its upper end, which belongs to it: the table entry is the code,
and ties go to the lower point, as in `sqlib.codebook.quantize`. Nothing is rounded, with any word sets.

Points off any lattice take h = 2048. Their midpoints can lie inside a cell, so the entry is where the code
starts, and the few midpoints of that cell are compared. Because t -> ceil(t) never decreases, the answer is
exact whatever the points are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib.codebook import Codebook
from sqlib.errors import InputError
from sqlib.kernels import vector

_HALF = 2048
# Largest denominator of a lattice table: its 4D + 1 cells stay integers in float32, and 64 KB.
_LARGEST = 16384


class NearestTable(NamedTuple):
    """A codebook prepared for the kernels; the dtype is that of the values they will see.

    Attributes
    ----------
    first
        uint8 (channels, 2 half + 1): where the code of a cell starts; one row for all channels if one set of
        points serves all.
    thresholds
        (channels, levels - 1): midpoints in cells, each rounded down to the dtype (which changes no code).
    values
        (channels, levels): the points times `unit`.
    half
        h: a value x stands at t = h x.
    unit
        D on a lattice, else 1: the factor of `values`.
    exact
        Whether every table entry is the code itself.
    few
        `thresholds` and `values` with 16 columns each (the last threshold infinite) for
        `sqlib.kernels.vector`; None where that does not apply.
    """

    first: NDArray[np.uint8]
    thresholds: NDArray[Any]
    values: NDArray[Any]
    half: int
    unit: int
    exact: bool
    few: tuple[NDArray[np.float32], NDArray[np.float32]] | None

    @property
    def levels(self) -> int:
        """Number of points."""
        return int(self.values.shape[1])


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
    if codebook.numerators is not None and denominator is not None and denominator <= _LARGEST:
        numerators = np.atleast_2d(codebook.numerators)
        thresholds = numerators[:, :-1] + numerators[:, 1:]
        half, unit, exact = 2 * denominator, denominator, True
        values = numerators.astype(kind)
        cells = thresholds + half
    else:
        half, unit, exact = _HALF, 1, False
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
