r"""Least squares bounds: both ends searched together, which is what DOBI's one-dimensional path leaves out.

The grid holds every pair

.. math:: (l_i, u_j) = \left(\min x + i\,\tfrac{R}{2T},\; \max x - j\,\tfrac{R}{2T}\right), \quad
          i, j \ge 0, \quad i + j \le 2T - 1

(20,100 for T = 100): all of DOBI's candidates, two-sided and one-sided, release and paper, lie on it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._search import Search

Array = NDArray[np.float64]

HALVINGS = 6
"""The local refinement ends with moves of 1/2^HALVINGS of a grid step."""

_MOST_MOVES = 32
_MOVES = np.array([(i, j) for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0) if (i, j) != (0, 0)])


@lru_cache(maxsize=8)
def _pairs(steps: int) -> tuple[Array, Array]:
    """i and j of the grid; DOBI's two-sided path first, as its best pair rules out most of the others."""
    i, j = (v.ravel() for v in np.indices((2 * steps, 2 * steps)))
    inside = i + j <= 2 * steps - 1
    i, j = i[inside], j[inside]
    order = np.lexsort((i + j, np.abs(i - j)))
    return i[order].astype(np.float64), j[order].astype(np.float64)


def mse_candidates(lower: float, upper: float, steps: int = 100) -> tuple[Array, Array]:
    """The grid of pairs for data in [lower, upper]: two float64 arrays (T (2T + 1),)."""
    i, j = _pairs(steps)
    step = (upper - lower) / (2 * steps)
    # the same expressions as DOBI's, so that its candidates are met to the last bit
    return lower + i * step, upper - j * step


def search_mse(search: Search, steps: int) -> tuple[float, float, float]:
    """The grid's best pair, refined, and its squared error recomputed from the data.

    Refinement compares the eight neighbours at half a grid step, moves while that helps, and halves the
    step `HALVINGS` times in all. The grid optimum is certain (on a `Histogram`: as far as it knows); the
    refined pair is a local optimum near it and never worse.
    """
    first, last = search.oracle.lower, search.oracle.upper
    low, up = mse_candidates(first, last, steps)
    winner, error = search.best(low, up, prune=True)
    here = np.array([low[winner], up[winner]])
    value = float(search.estimates(here[:1], here[1:])[0])
    step = (last - first) / (2 * steps)
    for _ in range(HALVINGS):
        step /= 2
        for _ in range(_MOST_MOVES):
            near = here + step * _MOVES
            near[:, 0] = np.maximum(near[:, 0], first)
            near[:, 1] = np.minimum(near[:, 1], last)
            near = near[near[:, 0] < near[:, 1]]
            estimate = search.estimates(near[:, 0], near[:, 1])
            k = int(np.argmin(estimate)) if len(near) else 0
            # a gain that rounding could feign is none
            if not len(near) or float(estimate[k]) >= value - 1e-9 * abs(value):
                break
            here, value = near[k], float(estimate[k])
    refined = float(search.recomputed(here[:1], here[1:])[0])
    if refined < error:
        return float(here[0]), float(here[1]), refined
    return float(low[winner]), float(up[winner]), error
