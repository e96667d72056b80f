r"""Weights rounded with error compensation: the codes that keep a layer's outputs, not its weights.

For one output channel with weights w (a row of columns) and inputs X the squared error at the output is

.. math:: \|\hat w X - w X\|^2 = (\hat w - w) H (\hat w - w)^T, \qquad H = X X^T

so rounding a weight up is cheap where another, correlated one can be rounded down. With H = L L^T the error
is a sum over columns,

.. math:: \sum_j L_{jj}^2 \Bigl(\hat w_j - w_j + \sum_{k > j} \tfrac{L_{kj}}{L_{jj}} (\hat w_k - w_k)\Bigr)^2

and going from the last column to the first, each term is made as small as the grid allows given the columns
already rounded. This is optimal brain quantization with a fixed order of the columns (OBQ, Frantar & Alistarh
2022; GPTQ, Frantar et al. 2023), written with the factor of H in place of that of its inverse, which is
Babai's nearest-plane algorithm. Afterwards coordinate descent on the codes and least-squares scales lower
the same error further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import check_bits
from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError

# Ranges tried, as a share of the row's own; the best depends on the bit-width and is found per row.
_SHARES = np.array([1.0, 0.95, 0.9, 0.85, 0.8, 0.74, 0.68, 0.62, 0.56, 0.5, 0.44, 0.38, 0.32, 0.26])
_ZERO_STEPS = (-1.0, 1.0)
_SCALE_STEPS = (0.97, 1.03)


def retarget(
    weight: NDArray[Any], gram: NDArray[Any], cross: NDArray[Any], *, ridge: float = 0.01
) -> NDArray[np.float64]:
    r"""The weights that best give the target outputs from the inputs there are.

    .. math:: \min_V \|V \hat X - Y\|^2 + \lambda \|V - W\|^2, \qquad
              V = W + (Y \hat X^T - W \hat X \hat X^T)(\hat X \hat X^T + \lambda I)^{-1}

    Parameters
    ----------
    weight : ndarray
        W (rows, columns).
    gram : ndarray
        X X^T (columns, columns) of the inputs.
    cross : ndarray
        Y X^T (rows, columns) of target outputs and inputs.
    ridge : float
        lambda in units of the mean diagonal element of `gram`; it keeps the weights of dead inputs.

    Returns
    -------
    float64 (rows, columns).
    """
    w, h = _check(weight, gram)
    c = np.asarray(cross, dtype=np.float64)
    if c.shape != w.shape:
        raise InputError(f"retarget: cross of shape {c.shape}, expected that of the weight, {w.shape}")
    change = np.linalg.solve(damped(h, ridge), (c - w @ h).T).T
    return np.asarray(w + change)


def damped(gram: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """``gram + ridge * mean(diagonal) * I``; the identity where the matrix is zero. Positive definite."""
    mean = float(np.mean(np.diagonal(gram)))
    return gram + np.eye(len(gram)) * (ridge * mean if mean > 0 else 1.0)


def fit_compensated(
    weight: NDArray[Any],
    gram: NDArray[Any],
    bits: int,
    *,
    damping: float = 0.01,
    sweeps: int = 20,
    refits: int = 4,
) -> tuple[Bounds, NDArray[np.int64]]:
    """Codes and grid, one per row, that keep the outputs of a layer.

    Parameters
    ----------
    weight : ndarray
        (rows, columns): a row per output channel.
    gram : ndarray
        (columns, columns), symmetric and positive semi-definite: X X^T of the layer's inputs; singular or
        zero (dead inputs) is fine.
    bits : int
        1 to 16.
    damping : float
        Added to the diagonal, in units of its mean; makes dead inputs round to the nearest level.
    sweeps, refits : int
        Limits on coordinate descent, and on alternating it with least-squares scales; ``refits=0`` leaves
        both out. With both, no row ends with a larger error than `fit_nearest` with as many refits gives it.

    Returns
    -------
    Bounds with ``axis=0`` and an integer zero point, whose `error` is the squared error at the output per
    row (damping included), and int64 codes (rows, columns): ``scale * code + lower``.

    Raises
    ------
    InputError
        For shapes that do not fit, NaN or infinite values, a matrix that is not positive semi-definite.

    Notes
    -----
    O(columns^3 + candidates * rows * columns^2) with about 20 ranges tried per row; 64 rows of 576 columns
    take 0.2 s.
    """
    from sqlib.kernels.compensation import descend_rows, round_rows

    bits = check_bits(bits)
    w, h = _check(weight, gram)
    h = damped(h, damping)
    top = float((1 << bits) - 1)
    # The last column is rounded first, while all others can still make up for it: let it be the weightiest.
    order = np.argsort(np.diagonal(h), kind="stable")
    w, h = np.ascontiguousarray(w[:, order]), np.ascontiguousarray(h[np.ix_(order, order)])
    factor = _scaled_factor(h)

    def compensated(scales: NDArray[np.float64], zeros: NDArray[np.float64]) -> tuple[Any, Any]:
        codes, errors = np.empty(w.shape, np.int64), np.empty(len(w))
        round_rows(w, factor, scales, zeros, top, codes, errors)
        return codes, errors

    scales, zeros, codes, errors = _best_ranges(w, top, compensated)
    if refits:  # descent may as well start from the nearest levels, which win now and then on few columns
        plain_scales, plain_zeros, plain_codes, _ = _nearest(w, top, refits)
        plain = row_errors(w, h, plain_scales[:, None] * (plain_codes + plain_zeros[:, None]))
        better = plain < errors
        scales, zeros = np.where(better, plain_scales, scales), np.where(better, plain_zeros, zeros)
        codes = np.where(better[:, None], plain_codes, codes)
    for _ in range(refits):
        descend_rows(w, h, scales, zeros, top, codes, sweeps)
        scales = _refit_scales(w, h, codes + zeros[:, None], scales)
    if refits:
        descend_rows(w, h, scales, zeros, top, codes, sweeps)
    errors = row_errors(w, h, scales[:, None] * (codes + zeros[:, None]))
    lower = scales * zeros
    restored = np.empty_like(codes)
    restored[:, order] = codes
    return Bounds(lower, lower + scales * top, bits, errors, "compensated", axis=0), restored


def fit_nearest(weight: NDArray[Any], bits: int, *, refits: int = 4) -> tuple[Bounds, NDArray[np.int64]]:
    """As `fit_compensated` for inputs without correlation: the grid of least squared weight error per row.

    Codes are the nearest levels. O(candidates * rows * columns).
    """
    bits = check_bits(bits)
    w, _ = _check(weight, np.eye(np.shape(weight)[-1]))
    top = float((1 << bits) - 1)
    scales, zeros, codes, errors = _nearest(w, top, refits)
    lower = scales * zeros
    return Bounds(lower, lower + scales * top, bits, errors, "mse", axis=0), codes


def _nearest(w: NDArray[np.float64], top: float, refits: int) -> tuple[Any, Any, Any, Any]:
    """Scales, zeros, codes and errors of `fit_nearest`."""

    def nearest(scales: NDArray[np.float64], zeros: NDArray[np.float64]) -> tuple[Any, Any]:
        codes = np.clip(np.rint(w / scales[:, None] - zeros[:, None]), 0, top)
        miss = (codes + zeros[:, None]) * scales[:, None] - w
        return codes.astype(np.int64), np.square(miss).sum(axis=1)

    scales, zeros, codes, errors = _best_ranges(w, top, nearest)
    for _ in range(refits):
        integers = codes + zeros[:, None]
        own = np.square(integers).sum(axis=1)
        fitted = (integers * w).sum(axis=1) / np.where(own > 0, own, 1.0)
        scales = np.where((own > 0) & (fitted > 0), fitted, scales)
        codes, errors = nearest(scales, zeros)
    return scales, zeros, codes, errors


def row_errors(
    weight: NDArray[np.float64], gram: NDArray[np.float64], quantized: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(w_hat - w) H (w_hat - w)^T per row, float64 (rows,)."""
    miss = quantized - weight
    return np.asarray(np.maximum(np.einsum("rc,rc->r", miss @ gram, miss), 0.0))


def _scaled_factor(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower Cholesky factor, columns divided by their diagonal elements, which stay in their place."""
    try:
        factor = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        raise InputError(
            "fit_compensated: the matrix is not positive semi-definite; build it as X @ X.T from finite data"
        ) from None
    diagonal = np.diagonal(factor).copy()
    factor = factor / diagonal
    np.fill_diagonal(factor, diagonal)
    return np.ascontiguousarray(factor)


def _best_ranges(
    w: NDArray[np.float64], top: float, round_to: Callable[[Any, Any], tuple[Any, Any]]
) -> tuple[Any, Any, Any, Any]:
    """The range per row that rounds with the least error: (scales, zeros, codes, errors).

    `round_to` rounds all rows on given scales and zeros and returns codes and errors.
    """
    rows = len(w)
    centre = np.clip(0.0, w.min(axis=1), w.max(axis=1))
    below, above = centre - w.min(axis=1), w.max(axis=1) - centre
    best_codes = np.zeros(w.shape, np.int64)
    best_scales, best_zeros, best_errors = np.ones(rows), np.zeros(rows), np.full(rows, np.inf)

    def attempt(scales: NDArray[np.float64], zeros: NDArray[np.float64]) -> None:
        codes, errors = round_to(scales, zeros)
        better = errors < best_errors
        best_codes[better] = codes[better]
        for best, new in ((best_scales, scales), (best_zeros, zeros), (best_errors, errors)):
            best[better] = new[better]

    for share in _SHARES:
        scales = (below + above) * share / top
        # A constant row is one level: any scale that reaches it exactly will do.
        flat = scales < np.finfo(np.float64).tiny * 2.0**60
        scales = np.where(flat, np.where(centre != 0, np.abs(centre), 1.0), scales)
        attempt(
            scales,
            np.where(flat, np.minimum(np.sign(centre), 0.0), np.rint((centre - below * share) / scales)),
        )
    for _ in range(2):
        for step in _ZERO_STEPS:
            attempt(best_scales.copy(), best_zeros + step)
        for step in _SCALE_STEPS:
            attempt(best_scales * step, best_zeros.copy())
    return best_scales, best_zeros, best_codes, best_errors


def _refit_scales(
    w: NDArray[np.float64], gram: NDArray[np.float64], integers: NDArray[Any], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least-squares scale per row for fixed integers, where one is defined and positive."""
    weighted = integers @ gram
    own = np.einsum("rc,rc->r", weighted, integers)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = np.einsum("rc,rc->r", weighted, w) / own
    return np.where((own > 0) & np.isfinite(fitted) & (fitted > 0), fitted, scales)


def _check(weight: NDArray[Any], gram: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    w, h = np.asarray(weight, dtype=np.float64), np.asarray(gram, dtype=np.float64)
    if w.ndim != 2 or w.size == 0 or h.shape != (w.shape[1], w.shape[1]):
        raise InputError(
            f"compensation: weight of shape {w.shape} and matrix of shape {h.shape}, expected (rows, "
            "columns) "
            "and (columns, columns)"
        )
    if not (np.isfinite(w).all() and np.isfinite(h).all()):
        raise InputError("compensation: the weights or the matrix contain NaN or infinity")
    return w, h
