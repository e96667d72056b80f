"""Lloyd's algorithm in one dimension on sorted data: cells are intervals, their means differences of sums."""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit


@jit
def _count_up_to(x, t, low):  # type: ignore[no-untyped-def]
    """Number of sorted values <= t, at least `low`."""
    high = x.size
    while low < high:
        middle = (low + high) // 2
        if x[middle] <= t:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def lloyd(x, counts, sums, centres, pinned, tolerance, iterations, spare):  # type: ignore[no-untyped-def]
    """Move sorted `centres`, in place, until the largest move is at most `tolerance`; iterations done.

    Parameters
    ----------
    x
        float64 (n,), sorted.
    counts, sums
        float64 (n + 1,): sums of the first k weights, and of weight times value.
    centres
        float64 (K,), sorted; written to.
    pinned
        Whether one centre is at 0 and stays there.
    tolerance, iterations
        When to stop.
    spare
        Uniform random numbers in [0, 1): a centre with an empty cell moves to the value at that share of the
        total weight. Used in turn, again from the start when they run out.

    Notes
    -----
    O(K log n) an iteration. A value halfway between two centres belongs to the lower one.
    """
    n, levels = x.size, centres.size
    moved = np.empty(levels)
    used = 0
    for iteration in range(iterations):
        zero = np.searchsorted(centres, 0.0) if pinned else -1
        first = 0
        shift = 0.0
        for k in range(levels):
            if k < levels - 1:
                last = _count_up_to(x, 0.5 * (centres[k] + centres[k + 1]), first)
            else:
                last = n
            weight = counts[last] - counts[first]
            if k == zero:
                moved[k] = 0.0
            elif weight > 0.0:
                moved[k] = (sums[last] - sums[first]) / weight
            else:
                share = spare[used % spare.size] * counts[n]
                used += 1
                moved[k] = x[min(_count_up_to(counts[1:], share, 0), n - 1)]
            shift = max(shift, abs(moved[k] - centres[k]))
            first = last
        centres[:] = np.sort(moved)
        if shift <= tolerance:
            return iteration + 1
    return iterations


@jit
def spread_start(x, weights, uniform):  # type: ignore[no-untyped-def]
    """k-means++: each next start is a value drawn in proportion to weight times squared distance to the
    starts.

    `x`, `weights`: float64 (n,); `uniform`: float64 (K,) in [0, 1), one draw per start. Returns float64 (K,),
    in the order of the draws; repeats once every value is a start. O(n K).
    """
    n, levels = x.size, uniform.size
    starts = np.empty(levels)
    share = weights.copy()  # of being drawn; the first start in proportion to weight alone
    nearest = np.full(n, np.inf)
    for k in range(levels):
        total = share.sum()
        goal = uniform[k] * total
        reached = 0.0
        chosen = -1
        for i in range(n):
            if share[i] > 0.0:
                chosen = i
                reached += share[i]
                if reached > goal:
                    break
        starts[k] = x[chosen] if chosen >= 0 else starts[k - 1]
        for i in range(n):
            distance = x[i] - starts[k]
            nearest[i] = min(nearest[i], distance * distance)
            share[i] = weights[i] * nearest[i]
    return starts


@jit
def squared_error(x, weights, points):  # type: ignore[no-untyped-def]
    """Weighted squared error of sorted values to the nearest of sorted points; O(n + K)."""
    total = 0.0
    k = 0
    for i in range(x.size):
        while k < points.size - 1 and x[i] > 0.5 * (points[k] + points[k + 1]):
            k += 1
        distance = x[i] - points[k]
        total += weights[i] * distance * distance
    return total
