"""DFSQ's way of choosing points: k-means, then the candidate nearest to every centre.

Paper (section 3.2.3): K free centres, 3 restarts, the one whose centres have the least error is snapped.
Released code: K - 1 free centres and one pinned at 0, 5 restarts, the one whose snapped points have the
least error; stops when no centre moves by more than 1e-3, or after 100 iterations. In both, centres that
snap to the same candidate stay duplicates. The paper is silent on start, stop and empty cells. Its variant
starts by k-means++ (Arthur and Vassilvitskii, 2007), what "k-means" means to most libraries, and stops when
no centre moves, or after 300 iterations; the release starts at distinct random values. In both an empty
cell's centre moves to a random value. Unlike the release, the random numbers are seeded.

The release visits every value in Python; this one keeps its steps but reads sums of intervals of the sorted
values (`sqlib.kernels.lloyd`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._problem import Atoms, Problem


class Settings(NamedTuple):
    """What distinguishes the two variants."""

    restarts: int
    spread: bool
    pinned: bool
    tolerance: float
    iterations: int
    judge_snapped: bool


PAPER = Settings(restarts=3, spread=True, pinned=False, tolerance=0.0, iterations=300, judge_snapped=False)
RELEASE = Settings(restarts=5, spread=False, pinned=True, tolerance=1e-3, iterations=100, judge_snapped=True)


def choose_by_kmeans(
    problem: Problem, levels: int, settings: Settings, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of the chosen candidates, ascending, duplicates kept; int64 (channels, levels)."""
    chosen = np.empty((settings.restarts, problem.channels, levels), np.int64)
    errors = np.empty((settings.restarts, problem.channels))
    for channel in range(problem.channels):
        atoms = problem.atoms(channel)
        for restart, centres in enumerate(_restarts(atoms, levels, settings, rng)):
            chosen[restart, channel] = snap(centres, problem.candidates)
            errors[restart, channel] = _error(atoms, centres)
    if settings.judge_snapped:
        errors = np.array([problem.error(one) for one in chosen])
    return chosen[np.argmin(errors, axis=0), np.arange(problem.channels)]


def snap(centres: NDArray[np.float64], candidates: NDArray[np.float64]) -> NDArray[np.int64]:
    """Position of the candidate nearest to every centre; a tie goes to the lower one."""
    return np.searchsorted((candidates[:-1] + candidates[1:]) / 2, centres, side="left").astype(np.int64)


def _error(atoms: Atoms, points: NDArray[np.float64]) -> float:
    from sqlib.kernels.lloyd import squared_error

    return float(squared_error(atoms.values, atoms.weights, points))


def _restarts(
    atoms: Atoms, levels: int, settings: Settings, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Sorted centres of every restart."""
    from sqlib.kernels.lloyd import lloyd, spread_start

    values, weights = atoms
    counts = np.concatenate([[0.0], np.cumsum(weights)])
    sums = np.concatenate([[0.0], np.cumsum(weights * values)])
    free = levels - settings.pinned
    usable = np.flatnonzero(weights)
    share = weights[usable] / weights.sum() if np.ptp(weights) > 0 else None
    found = []
    for _ in range(settings.restarts):
        if settings.spread:
            start = spread_start(values, weights, rng.random(free))
        else:
            start = values[rng.choice(usable, free, replace=usable.size < free, p=share)]
        centres = np.sort(np.append(start, 0.0) if settings.pinned else start)
        lloyd(
            values,
            counts,
            sums,
            centres,
            settings.pinned,
            settings.tolerance,
            settings.iterations,
            rng.random(8 * levels),
        )
        found.append(centres)
    return found
