r"""Costs of leaving out candidates that lie on no lattice, from sorted data, in twice float64 precision.

The identity of `sqlib.kernels.exact_choice` with G read from prefix sums of the sorted values by binary
search. The prefix sums are far larger than the errors that remain after their subtraction, so they are kept
as unevaluated sums of two float64 (Dekker, "A floating-point technique for extending the available
precision", 1971) and only the differences are rounded: about 30 digits, so that a choice is right to the
precision of the data. """

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit
from sqlib.kernels.bisection import first_not_below


@jit
def _sum(a, b):  # type: ignore[no-untyped-def]
    """a + b, exactly, as a pair."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@jit
def _product(a, b):  # type: ignore[no-untyped-def]
    """a * b, exactly, as a pair; |a|, |b| < 1e150."""
    split = 134217729.0
    x = split * a
    y = split * b
    a1 = x - (x - a)
    b1 = y - (y - b)
    a2 = a - a1
    b2 = b - b1
    p = a * b
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


@jit
def _add(a, b):  # type: ignore[no-untyped-def]
    """Sum of two pairs."""
    s, e = _sum(a[0], b[0])
    t, f = _sum(a[1], b[1])
    s, e = _sum(s, e + t)
    return _sum(s, e + f)


@jit
def _minus(a, b):  # type: ignore[no-untyped-def]
    return _add(a, (-b[0], -b[1]))


@jit
def _times(a, b):  # type: ignore[no-untyped-def]
    """Product of two pairs."""
    p, e = _product(a[0], b[0])
    return _sum(p, e + (a[0] * b[1] + a[1] * b[0]))


@jit
def _gain(u, v, x, counts, sums, low):  # type: ignore[no-untyped-def]
    """(v - u) G((u + v)/2) as a pair, and the number of values below that midpoint."""
    total = _sum(u, v)
    middle = (0.5 * total[0], 0.5 * total[1])
    at = first_not_below(x, middle[0], low)
    below = _minus(_times(middle, (counts[at, 0], counts[at, 1])), (sums[at, 0], sums[at, 1]))
    return _times(_sum(v, -u), below), at


@jit
def sorted_costs(x, weights, u, start, end, dense):  # type: ignore[no-untyped-def]
    """Fill the costs of `sqlib.kernels.shortest_path`; O(n + M^2 log n).

    Parameters
    ----------
    x, weights
        float64 (n,): sorted values and their weights.
    u
        float64 (M,): sorted, distinct candidates.
    start, end
        float64 (M,), written to.
    dense
        float64 (M, M), written to: ``dense[j, i]`` is w(i, j) for i < j.
    """
    n, nodes = x.size, u.size
    counts = np.zeros((n + 1, 2))
    sums = np.zeros((n + 1, 2))
    for k in range(n):
        counts[k + 1, 0], counts[k + 1, 1] = _add((counts[k, 0], counts[k, 1]), (weights[k], 0.0))
        sums[k + 1, 0], sums[k + 1, 1] = _add((sums[k, 0], sums[k, 1]), _product(weights[k], x[k]))
    all_counts = (counts[n, 0], counts[n, 1])
    all_sums = (2.0 * sums[n, 0], 2.0 * sums[n, 1])
    prefix = np.zeros((nodes, 2))
    at = 0
    for k in range(1, nodes):
        gain, at = _gain(u[k - 1], u[k], x, counts, sums, at)
        prefix[k, 0], prefix[k, 1] = _add((prefix[k - 1, 0], prefix[k - 1, 1]), gain)
    top = nodes - 1
    for i in range(nodes):
        below = (prefix[i, 0], prefix[i, 1])
        start[i] = 2.0 * (below[0] + below[1])
        above = _minus((prefix[top, 0], prefix[top, 1]), below)
        pull = _minus(all_sums, _times(all_counts, _sum(u[i], u[top])))
        last = _add(_times(_sum(u[top], -u[i]), pull), (2.0 * above[0], 2.0 * above[1]))
        end[i] = last[0] + last[1]
        at = 0
        for j in range(i + 1, nodes):
            gain, at = _gain(u[i], u[j], x, counts, sums, at)
            cost = _minus(_minus((prefix[j, 0], prefix[j, 1]), below), gain)
            dense[j, i] = 2.0 * (cost[0] + cost[1])
