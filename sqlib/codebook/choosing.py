r"""Choosing quantization points from a set of candidates: which K of them lose least on the data.

.. math:: \min_{C \subseteq U,\, |C| \le K} \; \sum_n w_n \min_{q \in C} (x_n - q)^2

"exact" solves this (`sqlib.kernels.exact_choice`); "kmeans" and "release" are DFSQ's heuristics as its paper
and its released code describe them (`sqlib.codebook.kmeans`); "exhaustive" tries every subset, as Subset
Quantization does (`sqlib.codebook.exhaustive`). All of them report their error, and the heuristics the gap to
the optimum.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._arrays import as_array
from sqlib.codebook._problem import LatticeProblem, Problem, RowsProblem, SortedProblem
from sqlib.codebook.exhaustive import choose_exhaustively
from sqlib.codebook.kmeans import PAPER, RELEASE, choose_by_kmeans
from sqlib.codebook.lattice import DENOMINATORS, LatticeHistogram, describe_outside, real_array, weight_array
from sqlib.codebook.points import Codebook
from sqlib.codebook.universal import UniversalSet
from sqlib.errors import InputError

METHODS = ("exact", "kmeans", "release", "exhaustive")
_LARGEST = 1e100


def fit_codebook(
    values: Any,
    candidates: Any,
    levels: int,
    *,
    method: str = "exact",
    sample_weight: Any = None,
    include_zero: bool = False,
    random_state: int | np.random.Generator | None = None,
) -> Codebook:
    """Choose `levels` of the `candidates` as quantization points for the data.

    Parameters
    ----------
    values
        Array (n,), one set of points; (channels, n), one set per channel; or a `LatticeHistogram`. Within
        [-1, 1] if the candidates are.
    candidates
        Numbers to choose from (repeats count once), e.g. ``universal_set(4)``, or a `UniversalSet`.
    levels : int
        K, from 1 to the number of candidates.
    method : str
        "exact": least squared error. "kmeans": k-means, 3 restarts, the best by its own error snapped to the
        candidates (DFSQ's paper). "release": k-means with a centre pinned at 0, 5 restarts, the best after
        snapping (DFSQ's code). "exhaustive": every subset is tried.
    sample_weight
        Non-negative weights, of the shape of `values` or broadcastable to it (not with a histogram, which
        holds its own).
    include_zero : bool
        Whether 0, which must be a candidate, has to be a point ("exact" and "exhaustive"; "kmeans" raises,
        "release" always has it).
    random_state : int, np.random.Generator or None
        Seed or generator for the restarts of "kmeans" and "release"; None draws fresh entropy.

    Returns
    -------
    Codebook with exactly `levels` points. Where fewer reach the same error, "exact" spreads the rest evenly
    over the unused candidates; of several subsets with equal error, which one is returned is unspecified but
    always the same ("exhaustive": the first in order). The heuristics can return duplicates.

    Raises
    ------
    InputError
        For empty data, NaN, infinity, values outside [-1, 1], bad weights, candidates or levels, and an
        exhaustive search of too many subsets.

    Notes
    -----
    On a universal set's lattice (see `LatticeHistogram`): O(n) for the histogram and about O(candidates log
    candidates) for the choice. Otherwise O(n log n + candidates^2 log n). "Exact" means optimal under
    the squared error in float64, to 1e-9 relative.
    """
    if method not in METHODS:
        raise InputError(f"fit_codebook: method={method!r}, expected one of {', '.join(METHODS)}")
    u = _check_candidates(candidates)
    k = _check_levels(levels, u.size)
    zero = _zero_position(u, include_zero)
    if isinstance(values, LatticeHistogram):
        if sample_weight is not None:
            raise InputError(
                "fit_codebook: give sample_weight to LatticeHistogram.add, not with the histogram"
            )
        problem: Problem = _from_histogram(values, u)
        single = values.channels is None
    else:
        rows, weights, single = _check_rows(values, sample_weight)
        problem = _from_rows(rows, weights, u, method)
    chosen = _choose(problem, k, zero, method, include_zero, random_state)
    error = problem.error(chosen)
    gap = np.ones_like(error)
    if method in ("kmeans", "release"):
        optimum = problem.error(problem.choose(k, -1))
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.where(optimum > 0, error / optimum, np.where(error > 0, np.inf, 1.0))
    table, denominator = problem.lattice or (None, None)
    numerators = None if table is None else table[chosen]
    points = u[chosen]
    if single:
        points, error, gap = points[0], error[0], gap[0]
        numerators = None if numerators is None else numerators[0]
    return Codebook(points, error, gap, method, numerators, denominator)


def _choose(
    problem: Problem,
    levels: int,
    zero: int,
    method: str,
    include_zero: bool,
    random_state: int | np.random.Generator | None,
) -> NDArray[np.int64]:
    if method == "exact":
        return problem.choose(levels, zero)
    if method == "exhaustive":
        return choose_exhaustively(problem, levels, zero)
    if method == "kmeans" and include_zero:
        raise InputError(
            'fit_codebook: method="kmeans" cannot force a point; include_zero needs "exact", "exhaustive" or '
            '"release"'
        )
    try:
        rng = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"random_state={random_state!r}: expected an integer of at least 0, or None"
        ) from error
    return choose_by_kmeans(problem, levels, PAPER if method == "kmeans" else RELEASE, rng)


def _check_candidates(candidates: Any) -> NDArray[np.float64]:
    if isinstance(candidates, UniversalSet):
        return candidates.values
    u = as_array(candidates, "candidates")
    if u.dtype.kind not in "fiu" or u.ndim != 1 or u.size == 0:
        raise InputError(
            f"candidates of shape {u.shape} and dtype {u.dtype}: expected a list of real numbers"
        )
    u = np.unique(u.astype(np.float64)) + 0.0  # + 0 turns -0.0 into 0.0
    if not (np.isfinite(u).all() and np.abs(u).max() <= _LARGEST):
        raise InputError(f"candidates: expected finite numbers up to {_LARGEST:g} in magnitude")
    return u


def _check_levels(levels: Any, size: int) -> int:
    try:
        k = operator.index(levels)
    except TypeError:
        k = 0
    if isinstance(levels, bool) or not 1 <= k <= size:
        raise InputError(
            f"levels={levels!r}: expected an integer from 1 to the number of distinct candidates, {size}"
        )
    return k


def _zero_position(u: NDArray[np.float64], include_zero: bool) -> int:
    if not include_zero:
        return -1
    at = int(np.searchsorted(u, 0.0))
    if at == u.size or u[at] != 0.0:
        raise InputError("include_zero: 0 is not among the candidates; add it")
    return at


def _on_lattice(u: NDArray[np.float64], denominator: int) -> NDArray[np.int64] | None:
    """Integers m with ``u == m / denominator`` to the last bit, or None."""
    if np.abs(u).max() > 1:
        return None
    numerators = np.rint(u * denominator)
    return numerators.astype(np.int64) if np.array_equal(numerators / denominator, u) else None


def _from_histogram(histogram: LatticeHistogram, u: NDArray[np.float64]) -> LatticeProblem:
    numerators = _on_lattice(u, histogram.denominator)
    if numerators is None:
        raise InputError(
            f"fit_codebook: the histogram is on the lattice of denominator {histogram.denominator}, the "
            "candidates are not; build the histogram with their denominator, or give the values themselves"
        )
    if (histogram.counts.sum(axis=1) <= 0).any():
        raise InputError("fit_codebook: the histogram (or a channel of it) is empty; add values to it")
    return LatticeProblem(histogram, u, numerators)


def _check_rows(values: Any, sample_weight: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None, bool]:
    """Values and weights as (channels, n), and whether they were (n,)."""
    x = real_array(values)
    if x.ndim not in (1, 2) or x.size == 0:
        raise InputError(
            f"fit_codebook: values of shape {x.shape}, expected (n,) or (channels, n) with at least one "
            "value; "
            "reshape first"
        )
    single = x.ndim == 1
    if sample_weight is None:
        return np.atleast_2d(x), None, single
    weights = np.atleast_2d(weight_array(sample_weight, x.shape))
    if (weights.sum(axis=1) <= 0).any():
        raise InputError("sample_weight: expected at least one weight above 0 in every channel")
    return np.atleast_2d(x), weights, single


def _from_rows(
    rows: NDArray[Any], weights: NDArray[np.float64] | None, u: NDArray[np.float64], method: str
) -> Problem:
    data = SortedProblem(rows, weights, u)
    for denominator in DENOMINATORS:
        numerators = _on_lattice(u, denominator)
        if numerators is not None:
            if method == "exact" and weights is None:
                return RowsProblem(rows, u, numerators, denominator)
            histogram = LatticeHistogram(denominator, len(rows))
            histogram.add(rows, sample_weight=weights)
            return LatticeProblem(histogram, u, numerators, data)
    limit = 1.0 if np.abs(u).max() <= 1 else _LARGEST
    if not (np.abs(rows) <= limit).all():  # False for NaN too
        raise InputError(f"fit_codebook: {describe_outside(rows)}")
    return data
