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
from numpy.typing import NDArray


class NearestTable(NamedTuple):
    """A codebook prepared for the kernels; the dtype is that of the values they will see.

    Attributes
    ----------
    first : ndarray of uint8
        uint8 (channels, 2 half + 1): where the code of a cell starts; one row for all channels if one set of
        points serves all.
    thresholds : ndarray
        (channels, levels - 1): midpoints in cells, each rounded down to the dtype (which changes no code).
    values : ndarray
        (channels, levels): the points times `unit`.
    half : int
        h: a value x stands at t = h x.
    unit : int
        D on a lattice, else 1: the factor of `values`.
    exact : bool
        Whether every table entry is the code itself.
    few : tuple of ndarray of float32 or None
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
