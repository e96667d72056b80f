r"""Bounds found by trying shrunken ranges: the grid searches that BRECQ and QDrop start from.

Both keep the candidate whose rounding error has the smallest L_p norm, p = 2.4 as published: between the
squared error, which clips freely, and the maximum, which does not clip at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import as_integer, check_bits, check_integer, check_number
from sqlib.codebook._arrays import as_array
from sqlib.codebook.bounds import Bounds, grid_constants
from sqlib.codebook.histogram import Histogram
from sqlib.errors import InputError

NORM = 2.4

Array = NDArray[np.float64]


def shrink_bounds(
    values: Any, bits: int, *, norm: float = NORM, steps: int = 80, axis: int | None = None
) -> Bounds:
    r"""Shrink the Min-Max range towards zero in steps of one percent and keep the best.

    .. math:: (l, u) = (1 - i/100) (\min x, \max x), \quad i = 0, \dots, \text{steps} - 1

    minimizes :math:`\sum |x - \hat x|^p`; the first of equal candidates wins.

    Parameters
    ----------
    values
        Finite real array of any shape, or a `Histogram` (then `axis` must be None and the search sees bin
        centres).
    bits : int
        1 to 16.
    norm : float
        The exponent p, above 0.
    steps : int
        Number of candidates, 1 to 100; 80 as published.
    axis : int or None
        Fit one range per index of this axis.

    Returns
    -------
    Bounds with ``integer_zero``; ``error`` is the squared error.

    Raises
    ------
    InputError
        For empty or non-finite data, bad bits, norm, steps or axis.

    Notes
    -----
    O(steps n) powers, two temporaries of the size of the data. Source: BRECQ (Li et al., ICLR 2021) as
    released.
    """
    norm, steps = _options(norm, steps)
    bits, rows, mass, shape = _prepare(values, bits, axis)
    lower, upper = rows.min(axis=1), rows.max(axis=1)
    if isinstance(values, Histogram):
        lower, upper = np.array([values.lower]), np.array([values.upper])
    best = np.full(len(rows), np.inf)
    factor = np.ones(len(rows))
    for i in range(steps):
        shrunk = 1 - i / 100
        error = _errors(rows, mass, lower * shrunk, upper * shrunk, bits, norm)
        better = error < best
        best[better], factor[better] = error[better], shrunk
    return _bounds(
        rows,
        mass,
        (lower * factor).reshape(shape),
        (upper * factor).reshape(shape),
        bits,
        f"shrink (p={norm:g})",
        axis,
        exact=not isinstance(values, Histogram),
    )


def scan_bounds(histogram: Histogram, bits: int, *, norm: float = NORM, steps: int = 100) -> Bounds:
    r"""Try every width of the range together with every position of zero in it.

    .. math:: u - l = \tfrac{i}{\text{steps}} (\max x - \min x), \quad l = -z s, \quad
              i = 1, \dots, \text{steps}, \; z = 0, \dots, K - 1

    Data on one side of zero needs no such scan: its range keeps the end at zero (z is 0 or K - 1).

    Parameters
    ----------
    histogram : Histogram
        What was seen.
    bits, norm : int, float
        As in `shrink_bounds`.
    steps : int
        Number of widths, at least 1; 100 as published.

    Returns
    -------
    Bounds with ``integer_zero``; ``error`` is the squared error of the bin centres.

    Raises
    ------
    InputError
        For an empty histogram, bad bits, norm or steps.

    Notes
    -----
    O(steps K bins) powers at worst; candidates whose clipped values alone cost more than the best one so
    far are passed over, which leaves few. Source: QDrop (Wei et al., ICLR 2022) as released.
    """
    norm, steps = _options(norm, steps)
    bits, rows, mass, _ = _prepare(histogram, bits, None)
    span, last = histogram.upper - histogram.lower, (1 << bits) - 1
    if histogram.lower >= 0:
        zeros, span = np.zeros(1), histogram.upper
    elif histogram.upper <= 0:
        zeros, span = np.full(1, float(last)), -histogram.lower
    else:
        zeros = np.arange(last + 1, dtype=np.float64)
    best = (np.inf, histogram.lower, histogram.upper)
    clipped = _ClippedAway(rows[0], mass, norm)
    for i in range(steps, 0, -1):  # from the widest, so that narrow ranges are soon known to clip too much
        scale = span * i / steps / last
        lower = -zeros * scale
        lower = lower[clipped.at_least(lower, lower + last * scale) < best[0]]
        if not lower.size:
            continue
        repeated = np.broadcast_to(rows, (lower.size, rows.shape[1]))
        error = _errors(repeated, mass, lower, lower + last * scale, bits, norm)
        k = int(np.argmin(error))
        if error[k] < best[0]:
            best = (float(error[k]), float(lower[k]), float(lower[k] + last * scale))
    low, up = np.array(best[1]), np.array(best[2])
    return _bounds(rows, mass, low, up, bits, f"scan (p={norm:g})", None, exact=False)


class _ClippedAway:
    """A lower bound of the error of a range: what its clipped values cost, read from two tables."""

    def __init__(self, values: Array, mass: Array | None, norm: float, entries: int = 256) -> None:
        self.edges = np.linspace(values.min(), values.max(), entries)
        below = np.maximum(self.edges[:, None] - values, 0) ** norm
        above = np.maximum(values - self.edges[:, None], 0) ** norm
        self.below, self.above = (t.sum(axis=1) if mass is None else t @ mass for t in (below, above))

    def at_least(self, lower: Array, upper: Array) -> Array:
        """Never more than the true cost: each end is moved outwards to the next edge, where less is cut."""
        low = np.searchsorted(self.edges, lower, side="right") - 1
        high = np.searchsorted(self.edges, upper, side="left")
        # 1 - 1e-9: the tables and the candidates round differently
        cost = np.where(low >= 0, self.below[low], 0.0) + np.where(
            high < len(self.edges), self.above[np.minimum(high, len(self.edges) - 1)], 0.0
        )
        return np.asarray(cost * (1 - 1e-9))


def _options(norm: float, steps: int) -> tuple[float, int]:
    return check_number("norm", norm, 0, math.inf, above=True), check_integer("steps", steps, 1, 100)


def _prepare(values: Any, bits: int, axis: int | None) -> tuple[int, Array, Array | None, tuple[int, ...]]:
    """Checked bits, data as (channels, n), its weights if it is a histogram, and the shape of the bounds."""
    bits = check_bits(bits)
    if isinstance(values, Histogram):
        if values.count == 0 or axis is not None:
            raise InputError(
                "the histogram is empty; add at least one value"
                if values.count == 0
                else "axis must be None for a Histogram"
            )
        used = values.counts > 0
        return bits, values.centres()[None, used], values.counts[used].astype(np.float64), ()
    x = as_array(values, "values")
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise InputError(f"{x.size} values of dtype {x.dtype}, expected at least one real number")
    x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        raise InputError("the values contain NaN or infinity; quantize finite data only")
    if axis is None:
        return bits, x.reshape(1, -1), None, ()
    place = as_integer(axis)
    if place is None or not -x.ndim <= place < x.ndim:
        raise InputError(f"axis={axis!r} for values of shape {x.shape}")
    return bits, np.moveaxis(x, place, 0).reshape(x.shape[place], -1), None, (x.shape[place],)


def _restored(rows: Array, lower: Array, upper: Array, bits: int) -> Array:
    grid = grid_constants(lower, upper, bits, True, np.dtype(np.float64))
    low, scale, top = (g[:, None] for g in grid)
    return np.asarray(np.rint(np.clip((rows - low) / scale, 0, top)) * scale + low)


def _errors(rows: Array, mass: Array | None, lower: Array, upper: Array, bits: int, norm: float) -> Array:
    powers = np.abs(rows - _restored(rows, lower, upper, bits)) ** norm
    return np.asarray(powers.sum(axis=1) if mass is None else powers @ mass)


def _bounds(
    rows: Array,
    mass: Array | None,
    lower: Array,
    upper: Array,
    bits: int,
    method: str,
    axis: int | None,
    *,
    exact: bool,
) -> Bounds:
    error = _errors(rows, mass, lower.reshape(-1), upper.reshape(-1), bits, 2.0).reshape(lower.shape)
    return Bounds(lower, upper, bits, error, method, axis, True, exact)
