r"""Histogram on the midpoint lattice: all that choosing points needs to know about the data, in one pass.

Candidates are integers c over D, so midpoints between them are integers over 2D. In the unit t = D x, bins 2c
and 2c - 1 (counted from -2D, 4D + 1 in all) hold the values nearest to c, right and left of it, so no bin
straddles a candidate or a midpoint. (A value on a midpoint may be in either bin beside it.) Kept per bin: the
number n of values and the sum R of residuals r = t - c; per channel also the sum of r^2. The squared error of
sending a bin to m/D is then

.. math:: D^2 \sum (x - m/D)^2 = n (c - m)^2 + 2 (c - m) R + \sum r^2

whose first term is exact in float64, so nothing cancels where the data lies close to the points.

The pass works on blocks that stay in the cache: first arithmetic, which the compiler vectorizes, then one
integer addition per value, since count and sum of |r| share one 64-bit integer per bin (16 bits and 48; the
bin tells the sign of r), emptied into the float64 histogram before either can overflow. Two such tables take
turns, because equal values in a row would wait for each other. Residuals are rounded to 2^-33 (float64) or
2^-31 (float32, exact for |t| >= 2^-7) of a candidate step, which changes a comparison of two point sets by
less than 1e-9 of their error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sqlib.kernels._jit import jit

TOLERANCE = 4 * float(np.finfo(np.float32).eps)  # values this far outside [-1, 1] are clamped
_LIMIT = 1.0 + TOLERANCE
_BLOCK = 1024
_SHIFT = np.uint64(48)
_ONE = np.int64(1 << 48)  # one value in a packed bin: count above, sum of residuals below
_MOST = 2 * ((1 << 16) - 1)  # values until the counts of two tables may be full


@jit
def _arithmetic(x, denominator, scale, bins, distances, residuals):  # type: ignore[no-untyped-def]
    """Bins and distances from the candidate of a block; the distances also in fixed point, without sign.

    `denominator` and `scale` have the type of `x`. No variable is wider than that, which would halve the
    number of values that the processor takes at a time. Returns how many values are outside [-1, 1].
    """
    half = np.int32(2) * np.int32(denominator)
    outside = np.int32(0)
    for i in range(x.size):
        value = x[i]
        outside = np.int32(outside + np.int32(not (abs(value) <= 1)))  # true for NaN too
        t = value * denominator
        c = np.rint(t)
        r = t - c
        distances[i] = r
        bins[i] = np.int32(2) * np.int32(c) + half - np.int32(r < 0)
        residuals[i] = np.rint(abs(r) * scale)
    return outside


@jit(fastmath={"reassoc"})  # without leave to reorder the sum, one addition waits for the other
def _sum_squares(distances):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(distances.size):
        wide = np.float64(distances[i])
        total += wide * wide
    return total


@jit
def _scatter(bins, residuals, size, even, odd):  # type: ignore[no-untyped-def]
    for pair in range(size // 2):
        i = 2 * pair
        first, second = np.uint32(bins[i]), np.uint32(bins[i + 1])
        even[first] += _ONE + residuals[i]
        odd[second] += _ONE + residuals[i + 1]
    if size % 2:
        even[np.uint32(bins[size - 1])] += _ONE + residuals[size - 1]


@jit
def _flush(even, odd, unit, counts, sums):  # type: ignore[no-untyped-def]
    for b in range(counts.size):
        n = np.int64(np.uint64(even[b]) >> _SHIFT) + np.int64(np.uint64(odd[b]) >> _SHIFT)
        total = (even[b] & (_ONE - 1)) + (odd[b] & (_ONE - 1))
        sign = 1 - 2 * (b & 1)  # values in odd bins lie left of their candidate
        counts[b] += np.float64(n)
        sums[b] += np.float64(total * sign) * unit
        even[b] = 0
        odd[b] = 0


def fixed_point(x: np.ndarray, denominator: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """`x` in the type to compute in, and the constants and scratch of `histogram_kernel` that go with it.

    float32 arithmetic is exact where D is a power of two; x D needs more than 24 bits otherwise.
    """
    narrow = x.dtype == np.float32 and denominator & (denominator - 1) == 0
    values = x if narrow else x.astype(np.float64, copy=False)
    kind = values.dtype.type
    distances = np.empty(_BLOCK, kind)
    residuals = np.empty(_BLOCK, np.int32 if narrow else np.int64)
    return values, (kind(denominator), kind(1 << 31 if narrow else 1 << 33), distances, residuals)


@jit
def histogram_kernel(x, denominator, scale, distances, residuals, counts, sums, squares):  # type: ignore[no-untyped-def]
    """Add x (outer, channels, inner) to the histogram; False, part of it added, for a value out of range."""
    outer, channels, inner = x.shape
    unit = 1.0 / scale
    bins = np.empty(_BLOCK, np.int32)
    even = np.zeros(counts.shape[1], np.int64)
    odd = np.zeros(counts.shape[1], np.int64)
    for c in range(channels):
        waiting = 0
        for n in range(outer):
            for start in range(0, inner, _BLOCK):
                size = min(_BLOCK, inner - start)
                block = x[n, c, start : start + size]
                if _arithmetic(block, denominator, scale, bins, distances, residuals) > 0:
                    return False
                squares[c] += _sum_squares(distances[:size])
                if waiting + size >= _MOST:
                    _flush(even, odd, unit, counts[c], sums[c])
                    waiting = 0
                _scatter(bins, residuals, size, even, odd)
                waiting += size + size % 2  # as if both tables had got as many as the first
        _flush(even, odd, unit, counts[c], sums[c])
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
    x : ndarray
        float32 or float64, C-contiguous, shape (outer, channels, inner).
    weights : ndarray or None
        float64 of the same shape (any strides), or None.
    denominator : int
        D.
    counts, sums, squares : ndarray
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


@jit(fastmath={"reassoc"})
def _channel_error(counts, sums, numerators, half):  # type: ignore[no-untyped-def]
    """Squared error of one channel without its sum of r^2."""
    total = 0.0
    first = 0
    for k in range(numerators.size):
        stop = counts.size
        if k + 1 < numerators.size:  # the bin right of the midpoint to the next point
            stop = min(max(numerators[k] + numerators[k + 1] + half, first), stop)
        centre = np.float64(numerators[k] + half // 2)
        for b in range(np.uint64(first), np.uint64(stop)):  # unsigned: no test for indices from the end
            distance = np.float64((b + np.uint64(1)) >> np.uint64(1)) - centre
            total += distance * (counts[b] * distance + 2.0 * sums[b])
        first = stop
    return total


@jit
def error_kernel(counts, sums, squares, numerators, half, errors):  # type: ignore[no-untyped-def]
    for c in range(counts.shape[0]):
        errors[c] = max(_channel_error(counts[c], sums[c], numerators[c], half) + squares[c], 0.0)


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
