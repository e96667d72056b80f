"""Every subset in turn, with the costs of `sqlib.kernels.shortest_path` added up along the way."""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit


@jit
def try_all_subsets(start, end, between, zero, best):  # type: ignore[no-untyped-def]
    """Write the first (in lexicographic order) of the best subsets of ``best.size`` candidates to `best`.

    `start`, `end`: float64 (M,); ``between[j, i]``: cost of leaving out what lies between i and j; `zero`: a
    candidate that must be chosen, or -1. Returns the number of subsets tried; one addition for each.
    """
    size, levels = start.size, best.size
    chosen = np.full(levels, -1, np.int64)
    cost = np.empty(levels)
    lowest = np.inf
    tried = 0
    k = 0
    while k >= 0:
        chosen[k] += 1
        j = chosen[k]
        before = chosen[k - 1] if k > 0 else -1
        if j > size - levels + k or (zero >= 0 and before < zero < j):
            k -= 1
            continue
        cost[k] = start[j] if k == 0 else cost[k - 1] + between[j, before]
        if k < levels - 1:
            k += 1
            chosen[k] = j
        elif j >= zero:
            tried += 1
            total = cost[k] + end[j]
            if total < lowest:
                lowest = total
                best[:] = chosen
    return tried
