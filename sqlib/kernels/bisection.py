"""Where a number would stand among sorted ones, for other kernels."""

from __future__ import annotations

from sqlib.kernels._jit import jit


@jit
def first_not_below(x, t, low):  # type: ignore[no-untyped-def]
    """Number of sorted values below t, at least `low`; doubling steps, then bisection.

    O(log d) for an answer d places after `low`: cheap for thresholds that come in order.
    """
    step = 1
    high = low
    while high < x.size and x[high] < t:
        low = high + 1
        high += step
        step *= 2
    high = min(high, x.size)
    while low < high:
        middle = (low + high) // 2
        if x[middle] < t:
            low = middle + 1
        else:
            high = middle
    return low
