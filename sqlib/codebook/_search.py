"""The best of a list of candidate bounds: an oracle names the few that can be it, the data decides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook.bounds import grid_constants
from sqlib.codebook.histogram import Histogram
from sqlib.codebook.oracle import ErrorOracle, bins_for

Array = NDArray[np.float64]

_DIRECT = 8
"""So many candidates are compared on the data itself; more go through sorted values first."""


class Search:
    """Compares candidate bounds on one set of values.

    Parameters
    ----------
    values : ndarray of float or Histogram
        A contiguous float32 or float64 array (n,) of at least one finite value, or a `Histogram`; on the
        latter the oracle's estimates decide.
    extent : tuple of float
        Smallest and largest value.
    bits, integer_zero : int, bool
        The quantizer that is to be fitted.
    threads : int
        Upper limit on threads.

    Attributes
    ----------
    oracle
        Sorted values for small arrays, bins otherwise.
    """

    def __init__(
        self,
        values: NDArray[np.floating] | Histogram,
        extent: tuple[float, float],
        bits: int,
        integer_zero: bool,
        threads: int = 1,
    ) -> None:
        self.bits, self.integer_zero, self.threads = bits, integer_zero, threads
        self.values = None if isinstance(values, Histogram) else values
        if isinstance(values, Histogram):
            self.oracle = ErrorOracle.of_histogram(values)
        elif values.size <= 2 * bins_for(bits):
            self.oracle = ErrorOracle.of_sorted(values)
        else:
            self.oracle = ErrorOracle.of_binned(values, bits, extent=extent, threads=threads)

    def best(self, lower: Array, upper: Array, *, prune: bool = False) -> tuple[int, float]:
        """Index of the candidate with the least squared error, the first of equal ones, and that error.

        The error is recomputed from the values and least to 1e-9 relative (estimated for a `Histogram`).
        """
        estimate, margin = self._errors(self.oracle, lower, upper, prune)
        if self.values is None:
            winner = int(np.argmin(estimate))
            return winner, max(float(estimate[winner]), 0.0)
        possible = _possible(estimate, margin)
        if possible.size > _DIRECT and self.oracle.width > 0:
            exact = ErrorOracle.of_sorted(self.values)
            estimate, margin = self._errors(exact, lower[possible], upper[possible], prune)
            near = _possible(estimate, margin)
            possible, estimate = possible[near], estimate[near]
        else:
            estimate = estimate[possible]
        # What is left beyond _DIRECT differs by rounding only.
        possible = np.sort(possible[np.argsort(estimate, kind="stable")[:_DIRECT]])
        error = self.recomputed(lower[possible], upper[possible])
        winner = int(np.argmin(error))
        return int(possible[winner]), float(error[winner])

    def estimates(self, lower: Array, upper: Array) -> Array:
        """The oracle's estimates, which share an offset."""
        return self._errors(self.oracle, lower, upper, False)[0]

    def recomputed(self, lower: Array, upper: Array) -> Array:
        """Squared errors (m,) of candidates on the values, in float64."""
        from sqlib.kernels.uniform_error import squared_errors

        if self.values is None:
            return np.maximum(self.estimates(lower, upper), 0.0)
        grid = grid_constants(lower, upper, self.bits, self.integer_zero, np.dtype(np.float64))
        return squared_errors(self.values, grid.lower, grid.scale, grid.top, threads=self.threads)

    def _errors(self, oracle: ErrorOracle, lower: Array, upper: Array, prune: bool) -> tuple[Array, Array]:
        return oracle.errors(lower, upper, self.bits, integer_zero=self.integer_zero, prune=prune)


def _possible(estimate: Array, margin: Array) -> NDArray[np.intp]:
    return np.flatnonzero(estimate - margin <= np.min(estimate + margin))
