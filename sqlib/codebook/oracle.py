"""The error oracle of uniform quantizers: prefix sums of the data, made once, asked for any bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import check_bits
from sqlib.codebook.bounds import grid_constants
from sqlib.codebook.histogram import Histogram
from sqlib.errors import InputError

Array = NDArray[np.float64]

BINS = 8192
"""Bins up to 6 bits; doubled for each further one, so that a level covers at least 128, up to `MOST_BINS`."""
MOST_BINS = 1 << 16
TINY = 1e-150
"""Ranges below this: squares underflow, and every error is 0."""


def bins_for(bits: int) -> int:
    """Number of bins that tells the errors of `bits`-bit quantizers apart."""
    return min(BINS << max(0, bits - 6), MOST_BINS)


@dataclass(frozen=True, eq=False)
class ErrorOracle:
    r"""Squared error of any bounds in O(levels log n), after O(n log n) or O(n) preparation.

    Made by `of_sorted`, `of_binned` or `of_histogram`. The formula is that of `sqlib.kernels.uniform_error`.

    Attributes
    ----------
    lower, upper : float
        Smallest and largest value.
    count : int
        Number of values, n.
    atoms : ndarray
        Sorted values minus `lower`, float64 (n,); empty where values are binned.
    counts, sums, squares : ndarray
        Prefix sums over atoms or bins, float64, one entry more than those.
    width : float
        Bin width, 0 for sorted values.
    total : float
        Sum of squares of (value - lower); for binned values at most n width^2 / 4 too large, the same for
        all bounds.
    shift : float
        Largest distance between a value and the position that stands for it.
    certified : bool
        Whether `errors` gives rigorous intervals: False for a `Histogram`, which forgot the sums.
    """

    lower: float
    upper: float
    count: int
    atoms: Array
    counts: Array
    sums: Array
    squares: Array
    width: float
    total: float
    shift: float
    certified: bool = True

    @classmethod
    def of_sorted(cls, values: Any) -> ErrorOracle:
        """Exact up to rounding: sorts the finite values (any shape, at least one). 32 bytes per value."""
        x = np.sort(np.asarray(values, dtype=np.float64), axis=None)
        if x.size == 0 or not (np.isfinite(x[0]) and np.isfinite(x[-1])):
            raise InputError(f"ErrorOracle: {x.size} values, expected at least one and only finite ones")
        lower, upper = float(x[0]), float(x[-1])
        x = x - lower
        squares = _prefix(np.square(x))
        counts = np.arange(x.size + 1, dtype=np.float64)
        return cls(lower, upper, x.size, x, counts, _prefix(x), squares, 0.0, float(squares[-1]), 0.0)

    @classmethod
    def of_binned(
        cls, values: Any, bits: int = 4, *, extent: tuple[float, float] | None = None, threads: int = 1
    ) -> ErrorOracle:
        """Counts and sums per bin in one pass, without sorting; errors come with rigorous intervals.

        `bits` decides the number of bins (`bins_for`); bounds of any bit-width may be asked for, with wider
        intervals for more bits. `extent`: smallest and largest value, if known.
        """
        from sqlib.kernels.binned import FRACTION, bin_sums

        x = flat(values)
        lower, upper = smallest_largest(x) if extent is None else extent
        bins = bins_for(check_bits(bits))
        if not upper - lower > TINY:
            return cls.of_sorted(x)
        width = (upper - lower) / bins
        unit = width / (1 << FRACTION)
        counts, sums = bin_sums(x, lower, upper, bins, threads=threads)
        mass = counts.astype(np.float64)
        # positions were rounded down to a unit: half of it back
        inside = (sums.astype(np.float64) + 0.5 * mass) * unit
        squares = _prefix(np.square(inside) / np.maximum(mass, 1))
        total = float(squares[-1]) + x.size * width * width / 4
        prefix = _prefix(inside)
        return cls(
            lower, upper, x.size, np.empty(0), _prefix(mass), prefix, squares, width, total, 0.51 * unit
        )

    @classmethod
    def of_histogram(cls, histogram: Histogram) -> ErrorOracle:
        """From counts alone: every value at the centre of its bin, those at the two ends exactly there."""
        if histogram.count == 0:
            raise InputError("the histogram is empty; add at least one value")
        lower, upper, width = histogram.lower, histogram.upper, histogram.width
        n = histogram.count
        if not upper - lower > TINY:
            ends = np.array([0.0, n])
            return cls(lower, upper, n, np.zeros(1), ends, 0 * ends, 0 * ends, 0.0, 0.0, 0.0, False)
        mass = histogram.counts.astype(np.float64)
        at_lower, at_upper = histogram.ends()
        centres = (np.arange(mass.size) + 0.5) * width
        sums, squares = mass * centres, mass * np.square(centres)
        sums[0] -= at_lower * centres[0]
        squares[0] -= at_lower * centres[0] ** 2
        sums[-1] += at_upper * (upper - lower - centres[-1])
        squares[-1] += at_upper * ((upper - lower) ** 2 - centres[-1] ** 2)
        # the variance of values spread evenly over their bin
        total = float(squares.sum()) + (n - at_lower - at_upper) * width * width / 12
        n_below, sum_below, square_below = (_prefix(v) for v in (mass, sums, squares))
        return cls(
            lower, upper, n, np.empty(0), n_below, sum_below, square_below, width, total, 0.0, certified=False
        )

    def errors(
        self, lower: Any, upper: Any, bits: int, *, integer_zero: bool = False, prune: bool = False
    ) -> tuple[Array, Array]:
        """Squared errors of many bounds, and how far each may be off.

        Parameters
        ----------
        lower, upper
            (m,) finite numbers, lower <= upper.
        bits : int
            1 to 16.
        integer_zero : bool
            Snap the lower end to a multiple of the scale, as in `Bounds`.
        prune : bool
            Allow infinity for bounds that are certainly worse than earlier ones.

        Returns
        -------
        estimate, margin
            float64 (m,). Differences between two true errors lie within the sum of their margins of the
            difference of their estimates. The estimates themselves share an offset of at most
            n width^2 / 4 where values are binned.
        """
        from sqlib.kernels.uniform_error import grid_errors

        low, up = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (lower, upper))
        grid = grid_constants(low, up, check_bits(bits), integer_zero, np.dtype(np.float64))
        low = grid.lower - self.lower
        reach = max(self.upper - self.lower, float(np.abs(low).max()), float(np.abs(up - self.lower).max()))
        # Prefix sums of n numbers err by at most n units in the last place, by about sqrt(n) in practice.
        units = 32 + min(self.count, 4 * self.count**0.5)
        rounding = float(np.finfo(np.float64).eps * units * self.count * reach * reach)
        estimate, margin = np.empty(low.size), np.empty(low.size)
        grid_errors(
            low,
            grid.scale,
            grid.top.astype(np.float64),
            self.atoms,
            self.counts,
            self.sums,
            self.squares,
            self.width,
            self.total,
            self.shift,
            rounding,
            prune,
            estimate,
            margin,
        )
        return estimate, margin


def flat(values: Any) -> NDArray[np.floating]:
    """The values as a contiguous float32 or float64 array (n,); half precision and integers are widened."""
    x = np.asarray(values)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
    return np.ascontiguousarray(x).reshape(-1)


def smallest_largest(x: NDArray[np.floating]) -> tuple[float, float]:
    """Smallest and largest value, or an `InputError` for no data, NaN or infinity."""
    lower, upper = (float(x.min()), float(x.max())) if x.size else (np.nan, np.nan)
    if not (np.isfinite(lower) and np.isfinite(upper)):
        raise InputError(
            "fit_bounds: the values contain NaN or infinity; quantize finite data only"
            if x.size
            else "fit_bounds: no values, expected at least one"
        )
    return lower, upper


def _prefix(values: Array) -> Array:
    return np.concatenate(([0.0], np.cumsum(values)))
