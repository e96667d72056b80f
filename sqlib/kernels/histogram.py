"""Histogram of a stream: adds one batch to fixed bins, in one pass and without temporary arrays."""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit


@jit
def _histogram_kernel(x, lower, upper, inverse_width, counts):  # type: ignore[no-untyped-def]
    last = counts.size - 1
    at_lower = 0
    at_upper = 0
    for i in range(x.size):
        value = np.float64(x[i])
        if value <= lower:
            at_lower += 1
            counts[0] += 1
        elif value >= upper:
            at_upper += 1
            counts[last] += 1
        else:
            # (value - lower) * inverse_width can round up to `bins` for a value just below `upper`
            counts[min(np.int64((value - lower) * inverse_width), last)] += 1
    return at_lower, at_upper


def add_histogram(x: np.ndarray, lower: float, upper: float, counts: np.ndarray) -> tuple[int, int]:
    """Add the values of `x` to `counts` (int64, equal bins over [lower, upper]); O(n).

    Values outside are counted in the end bins. `x`: float32 or float64, any shape, no NaN (a precondition:
    the caller has checked). Returns how many values are <= lower and how many are >= upper.
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    span = upper - lower
    inverse_width = counts.size / span if span > 0 else 0.0
    at_lower, at_upper = _histogram_kernel(flat, float(lower), float(upper), inverse_width, counts)
    return int(at_lower), int(at_upper)
