r"""Histogram on the midpoint lattice: all that choosing points needs to know about the data, in one pass.

Candidates are integers c over D, so midpoints between them are integers over 2D. In the unit t = D x, bins 2c
and 2c - 1 (counted from -2D, 4D + 1 in all) hold the values nearest to c, right and left of it, so no bin
straddles a candidate or a midpoint. (A value on a midpoint may be in either bin beside it.) Kept per bin: the
number n of values and the sum R of residuals r = t - c; per channel also the sum of r^2. The squared error of
sending a bin to m/D is then

.. math:: D^2 \sum (x - m/D)^2 = n (c - m)^2 + 2 (c - m) R + \sum r^2

whose first term is exact in float64, so nothing cancels where the data lies close to the points.

The pass works on blocks that stay in the cache: first arithmetic, which the compiler vectorizes, then one
integer addition per value, since count and sum of residuals share one 64-bit integer per bin (15 bits and
49), emptied into the float64 histogram before either can overflow. Two such tables take turns, because equal
values in a row would wait for each other. Residuals are rounded to 2^-34 (float64) or 2^-31 (float32, exact
for |t| >= 2^-7) of a candidate step, which changes a comparison of two point sets by less than 1e-9 of their
error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sqlib.kernels._jit import jit

TOLERANCE = 4 * float(np.finfo(np.float32).eps)  # values this far outside [-1, 1] are clamped
_LIMIT = 1.0 + TOLERANCE
_BLOCK = 1024
_FLUSH = 2 * ((1 << 15) - 1) - _BLOCK  # two tables with 15 bits of count each
_ONE = 1 << 49


@jit
def _arithmetic(x, denominator, scale, bins, residuals, squares):  # type: ignore[no-untyped-def]
    """Bins and fixed-point residuals of a block; adds to `squares`; how many values are outside [-1, 1].

    `denominator` and `scale` have the type of `x`: all is computed in it but the squares.
    """
    half = np.int32(2) * np.int32(denominator)
    outside = np.int64(0)
    for i in range(x.size):
        value = x[i]
        outside += np.int64(not (abs(value) <= 1))  # true for NaN too
        t = value * denominator
        c = np.rint(t)
        r = t - c
        wide = np.float64(r)
        squares[i] += wide * wide
        bins[i] = np.int32(2) * np.int32(c) + half - np.int32(r < 0)
        residuals[i] = np.rint(r * scale)
    return outside


@jit
def _scatter(bins, residuals, size, offset, even, odd):  # type: ignore[no-untyped-def]
    one = np.int64(_ONE) + offset
    for i in range(0, size - 1, 2):
        even[np.uint32(bins[i])] += one + residuals[i]
        odd[np.uint32(bins[i + 1])] += one + residuals[i + 1]
    if size % 2:
        even[np.uint32(bins[size - 1])] += one + residuals[size - 1]


@jit
def _flush(even, odd, offset, counts, sums):  # type: ignore[no-untyped-def]
    unit = 0.5 / offset
    for b in range(counts.size):
        n = np.int64(np.uint64(even[b]) >> np.uint64(49)) + np.int64(np.uint64(odd[b]) >> np.uint64(49))
        total = (even[b] & (_ONE - 1)) + (odd[b] & (_ONE - 1)) - n * offset
        counts[b] += np.float64(n)
        sums[b] += np.float64(total) * unit
        even[b] = 0
        odd[b] = 0


def fixed_point(x: np.ndarray, denominator: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """`x` in the type to compute in, and the constants and scratch of `histogram_kernel` that go with it.

    float32 arithmetic is exact where D is a power of two; x D needs more than 24 bits otherwise.
    """
    narrow = x.dtype == np.float32 and denominator & (denominator - 1) == 0
    values = x if narrow else x.astype(np.float64, copy=False)
    kind = values.dtype.type
    offset = np.int64(1 << 30 if narrow else 1 << 33)
    residuals = np.empty(_BLOCK, np.int32 if narrow else np.int64)
    return values, (kind(denominator), kind(2 * offset), offset, residuals)


@jit
def histogram_kernel(x, denominator, scale, offset, residuals, counts, sums, squares):  # type: ignore[no-untyped-def]
    """Add x (outer, channels, inner) to the histogram; False, part of it added, for a value out of range.

    `offset` is half a candidate step in fixed point, made part of every residual so that none is negative.
    """
    outer, channels, inner = x.shape
    bins = np.empty(_BLOCK, np.int32)
    lanes = np.empty(_BLOCK)
    even = np.zeros(counts.shape[1], np.int64)
    odd = np.zeros(counts.shape[1], np.int64)
    for c in range(channels):
        lanes[:] = 0.0
        waiting = 0
        for n in range(outer):
            for start in range(0, inner, _BLOCK):
                size = min(_BLOCK, inner - start)
                block = x[n, c, start : start + size]
                if _arithmetic(block, denominator, scale, bins, residuals, lanes) > 0:
                    return False
                if waiting + size > _FLUSH:
                    _flush(even, odd, offset, counts[c], sums[c])
                    waiting = 0
                _scatter(bins, residuals, size, offset, even, odd)
                waiting += size
        _flush(even, odd, offset, counts[c], sums[c])
        squares[c] += lanes.sum()
    return True


@jit
def _weighted_kernel(x, weights, denominator, counts, sums, squares):  # type: ignore[no-untyped-def]
    """The same sums with weights, value by value; also for values that need clamping (weights of 1)."""
    outer, channels, inner = x.shape
    for c in range(channels):
        for n in range(outer):
            for i in range(inner):
                value = np.float64(x[n, c, i])
                if not abs(value) <= _LIMIT:
                    return False
                t = min(max(value, -1.0), 1.0) * denominator
                nearest = np.rint(t)
                r = t - nearest
                b = 2 * np.int64(nearest) + 2 * denominator - (1 if r < 0 else 0)
                w = weights[n, c, i]
                counts[c, b] += w
                sums[c, b] += w * r
                squares[c] += w * r * r
    return True


def add_lattice(
    x: np.ndarray,
    weights: np.ndarray | None,
    denominator: int,
    counts: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
) -> bool:
    """Add the values of `x` to a lattice histogram; O(n).

    Parameters
    ----------
    x
        float32 or float64, C-contiguous, shape (outer, channels, inner).
    weights
        float64 of the same shape (any strides), or None.
    denominator
        D.
    counts, sums, squares
        float64, shapes (channels, 4D + 1), the same and (channels,). Must start at zero or be discarded when
        the answer is False: they are then partly filled.

    Returns
    -------
    Whether all values were finite and within [-1, 1], give or take `TOLERANCE`.
    """
    if weights is None:
        values, fixed = fixed_point(x, denominator)
        if histogram_kernel(values, *fixed, counts, sums, squares):
            return True
        for array in (counts, sums, squares):  # values that want clamping take the slow path, from the start
            array[...] = 0.0
        weights = np.broadcast_to(np.ones(1), x.shape)
    return bool(_weighted_kernel(x, weights, denominator, counts, sums, squares))


@jit
def error_kernel(counts, sums, squares, numerators, half, errors):  # type: ignore[no-untyped-def]
    levels = numerators.shape[1]
    for c in range(counts.shape[0]):
        k = 0
        total = 0.0
        for b in range(counts.shape[1]):
            n = counts[c, b]
            if n == 0.0:
                continue
            position = b - half
            while k < levels - 1 and position >= numerators[c, k] + numerators[c, k + 1]:
                k += 1
            distance = np.float64((position + (position & 1)) // 2 - numerators[c, k])
            total += distance * (n * distance + 2.0 * sums[c, b])
        errors[c] = max(total + squares[c], 0.0)


def lattice_error(
    counts: np.ndarray, sums: np.ndarray, squares: np.ndarray, denominator: int, numerators: np.ndarray
) -> np.ndarray:
    """Squared error of sorted points ``numerators / denominator`` on histogrammed data, per channel; O(bins).

    `numerators`: int64 (channels, levels). The other arrays as in `add_lattice`. float64 (channels,), in the
    unit of the data squared.
    """
    errors = np.empty(len(counts))
    error_kernel(counts, sums, squares, numerators, 2 * denominator, errors)
    return errors / denominator**2
