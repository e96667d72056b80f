"""Subset Quantization's way of choosing points: try every subset (Oh et al., ECCV 2022).

SQ searches magnitudes, stores the sign apart and refits a scale for every subset; here the candidates carry
their signs and the scale is that of the data, as in DFSQ, so the answer is the one "exact" gives.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._problem import Problem
from sqlib.errors import InputError

MOST_SUBSETS = 100_000_000


def count_subsets(candidates: int, levels: int, *, include_zero: bool = False) -> int:
    """Number of subsets of `levels` candidates (with 0 among them): 377 over 16 is 6.0e27."""
    return comb(candidates - 1, levels - 1) if include_zero else comb(candidates, levels)


def choose_exhaustively(problem: Problem, levels: int, zero: int) -> NDArray[np.int64]:
    """Positions of the best subset per channel, int64 (channels, levels).

    Raises
    ------
    InputError
        Above `MOST_SUBSETS` subsets (about a second per channel), before anything is tried.
    """
    from sqlib.kernels.every_subset import try_all_subsets

    count = count_subsets(problem.candidates.size, levels, include_zero=zero >= 0)
    if count > MOST_SUBSETS:
        raise InputError(
            f"an exhaustive search would try {count:,} subsets of {levels} among {problem.candidates.size} "
            f"candidates ({count:.1e}), expected at most {MOST_SUBSETS:,}; the method 'exact' finds the same "
            "points at once"
        )
    chosen = np.empty((problem.channels, levels), np.int64)
    for channel in range(problem.channels):
        try_all_subsets(*problem.costs(channel), zero, chosen[channel])
    return chosen
