r"""DOBI, 2DQuant's first stage: shrink the range of the data step by step, keep the least squared error.

.. math:: (l_i, u_i) = \left(\min x + i\,\tfrac{R}{2T},\; \max x - i\,\tfrac{R}{2T}\right), \quad
          R = \max x - \min x, \quad i = 0, \dots, T - 1

One-sided data (the map after a softmax, the output of a GELU) keeps its lower end, and only the upper one
moves, by R/(2T) a step in the paper's Algorithm 1 and by R/T in the released code (which never uses it).
The paper writes K for the number of pairs T; K is the number of levels here.

Source: 2DQuant (Liu et al., NeurIPS 2024), Algorithm 1, with its sign slip mended (the upper bound falls).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import check_steps, check_variant
from sqlib.codebook._search import Search

Array = NDArray[np.float64]


def dobi_candidates(
    lower: float, upper: float, steps: int = 100, *, one_sided: bool = False, variant: str = "release"
) -> tuple[Array, Array]:
    """The T pairs that DOBI compares.

    Parameters
    ----------
    lower, upper : float
        Range of the data.
    steps : int
        T.
    one_sided : bool
        Keep the lower end.
    variant : str
        "release" or "paper"; they differ in the one-sided step, R/T against R/(2T).

    Returns
    -------
    lower, upper: float64 (steps,), from the widest pair on.
    """
    steps = check_steps(steps)  # an int: small NumPy integers overflow
    index = np.arange(steps, dtype=np.float64)
    halves = 2 if one_sided and check_variant(variant) == "release" else 1
    step = (upper - lower) / (2 * steps)
    low = np.full(steps, lower) if one_sided else lower + index * step
    return low, upper - halves * index * step


def search_dobi(search: Search, steps: int, one_sided: bool, variant: str) -> tuple[float, float, float]:
    """DOBI's pair and its squared error; O(n + T levels log n)."""
    low, up = dobi_candidates(
        search.oracle.lower, search.oracle.upper, steps, one_sided=one_sided, variant=variant
    )
    i, error = search.best(low, up)
    return float(low[i]), float(up[i]), error
