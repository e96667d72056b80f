"""Rounding the rows of a weight under a quadratic error, one column after the other; inner loops."""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit


@jit
def round_row(target, factor, scale, zero, top, codes, spare):  # type: ignore[no-untyped-def]
    """Round one row from its last column to its first, each column making up for the errors after it.

    Parameters
    ----------
    target
        float64 (columns,), the row to approximate.
    factor
        float64 (columns, columns), lower Cholesky factor L of the error's matrix, every column divided by its
        diagonal element; the diagonal itself holds L_kk.
    scale, zero, top
        The grid: values ``scale * (code + zero)`` with codes 0 to `top`.
    codes
        int64 (columns,), written.
    spare
        float64 (columns,), working memory.

    Returns
    -------
    The error (w_hat - w) H (w_hat - w)^T. O(columns^2) multiplications, over contiguous memory.
    """
    columns = target.size
    for k in range(columns):
        spare[k] = target[k]
    error = 0.0
    for j in range(columns - 1, -1, -1):
        code = np.rint(spare[j] / scale - zero)
        code = min(max(code, 0.0), top)
        codes[j] = int(code)
        value = scale * (code + zero)
        diagonal = factor[j, j]
        residual = (value - spare[j]) * diagonal
        error += residual * residual
        miss = value - target[j]
        if miss != 0.0:
            for k in range(j):
                spare[k] -= factor[j, k] * miss
    return error


@jit
def round_rows(targets, factor, scales, zeros, top, codes, errors):  # type: ignore[no-untyped-def]
    """`round_row` for every row of `targets` with its own grid; fills `codes` and `errors`."""
    spare = np.empty(targets.shape[1])
    for r in range(targets.shape[0]):
        errors[r] = round_row(targets[r], factor, scales[r], zeros[r], top, codes[r], spare)


@jit
def descend_rows(targets, gram, scales, zeros, top, codes, sweeps):  # type: ignore[no-untyped-def]
    """Coordinate descent on the codes: move one weight at a time to its best level, all others fixed.

    `gram` float64 (columns, columns) with a positive diagonal; the rest as in `round_rows`. Stops after
    `sweeps` passes, or the first that changes nothing. The error never grows. O(columns) per weight moved,
    after O(columns^2) for the start.
    """
    columns = targets.shape[1]
    slope = np.empty(columns)
    for r in range(targets.shape[0]):
        scale, zero = scales[r], zeros[r]
        slope[:] = 0.0
        for j in range(columns):
            miss = scale * (codes[r, j] + zero) - targets[r, j]
            for k in range(columns):
                slope[k] += gram[j, k] * miss
        for _ in range(sweeps):
            changed = False
            for j in range(columns):
                best = np.rint(codes[r, j] - slope[j] / (gram[j, j] * scale))
                best = min(max(best, 0.0), top)
                step = best - codes[r, j]
                # Only a real gain counts, so that a tie cannot move back and forth.
                gain = -step * scale * (2.0 * slope[j] + step * scale * gram[j, j])
                if step != 0.0 and gain > 1e-12 * gram[j, j] * scale * scale:
                    codes[r, j] = int(best)
                    changed = True
                    for k in range(columns):
                        slope[k] += gram[j, k] * (step * scale)
            if not changed:
                break
