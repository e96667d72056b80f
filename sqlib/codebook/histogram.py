"""A histogram that grows by batches, so that calibration needs the same memory for 32 images or 32,000."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._arrays import as_array
from sqlib.errors import InputError

BINS = 8192
_MOST = 2**26  # half a gigabyte of counts


class Histogram:
    """Counts over equal bins of a known range (find the range in a first pass over the data).

    Parameters
    ----------
    lower, upper : float
        Smallest and largest value that will come; values outside are counted in the end bins.
    bins : int
        Number of bins; 8,192 take 64 KB.

    Attributes
    ----------
    counts : ndarray of int64
        int64 array (bins,).
    count
        Number of values added.
    """

    def __init__(self, lower: float, upper: float, bins: int = BINS) -> None:
        if not (_is_number(lower) and _is_number(upper) and lower <= upper):
            raise InputError(
                f"Histogram: lower={lower!r}, upper={upper!r}, bins={bins!r}; expected finite lower <= upper"
            )
        count: Any = bins
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= _MOST:
            raise InputError(f"Histogram: bins={bins!r}; expected an integer from 1 to {_MOST}")
        self.lower, self.upper = float(lower), float(upper)
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.count = 0
        # Exact counts at the two ends: after a ReLU a large share of the values is exactly the lower end,
        # and a percentile that falls there should be that number, not a point inside the first bin.
        self._at_lower = 0
        self._at_upper = 0

    @property
    def width(self) -> float:
        """Width of a bin, the largest possible error of `percentile`."""
        return (self.upper - self.lower) / self.counts.size

    def centres(self) -> NDArray[np.float64]:
        """Centres of the bins, float64 (bins,)."""
        return np.asarray(self.lower + (np.arange(self.counts.size) + 0.5) * self.width, dtype=np.float64)

    def add(self, values: Any) -> None:
        """Add an array of finite real numbers of any shape; O(n)."""
        from sqlib.kernels.histogram import add_histogram

        x = as_array(values, "Histogram.add")
        if x.dtype.kind not in "fiub":
            raise InputError(f"Histogram.add: {x.size} values of dtype {x.dtype}, expected real numbers")
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64 if x.dtype.kind in "iu" else np.float32)
        if x.size == 0:
            return
        if not (np.isfinite(x.min()) and np.isfinite(x.max())):
            raise InputError("Histogram.add: the values contain NaN or infinity")
        at_lower, at_upper = add_histogram(x, self.lower, self.upper, self.counts)
        self.count += x.size
        self._at_lower += at_lower
        self._at_upper += at_upper

    def ends(self) -> tuple[int, int]:
        """How many values lie exactly at (or beyond) the lower and the upper end."""
        return self._at_lower, self._at_upper

    def percentile(self, q: float) -> float:
        """The q-th percentile (0 to 100), within one bin width of `numpy.percentile` on the same values.

        The two neighbouring order statistics are each located to their bin (and interpolated in it), then
        interpolated linearly as NumPy does.
        """
        if self.count == 0:
            raise InputError("Histogram.percentile: the histogram is empty; add at least one value")
        if not (_is_number(q) and 0 <= q <= 100):
            raise InputError(f"Histogram.percentile: q={q!r}; expected a number from 0 to 100")
        position = q / 100.0 * (self.count - 1)
        below = math.floor(position)
        first, second = self._order_statistic(below), self._order_statistic(min(below + 1, self.count - 1))
        return first + (position - below) * (second - first)

    def _order_statistic(self, rank: int) -> float:
        if rank < self._at_lower:
            return self.lower
        if rank >= self.count - self._at_upper:
            return self.upper
        cumulative = np.cumsum(self.counts)
        b = int(np.searchsorted(cumulative, rank, side="right"))
        before = int(cumulative[b - 1]) if b else 0
        inside = (rank - before + 0.5) / int(self.counts[b])
        return self.lower + (b + inside) * self.width


def _is_number(value: Any) -> bool:
    """Real and finite, of Python or NumPy; True is none."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
