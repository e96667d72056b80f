r"""Histogram on the midpoint lattice: all that choosing points needs to know about the data, in one pass.

Candidates are integers c over D, so midpoints between them are integers b over 2D. In the unit t = D x, bin b
(4D + 1 of them, from -2D) holds b/2 <= t < (b + 1)/2, so no bin straddles a candidate or a midpoint. Kept per
bin: the number n of values and the sum R of residuals r = t - c to the integer c that is an edge of the bin;
per channel also the sum of r^2. The squared error of sending a bin to m/D is then

.. math:: D^2 \sum (x - m/D)^2 = n (c - m)^2 + 2 (c - m) R + \sum r^2

whose first term is exact in float64, so nothing cancels where the data lies close to the points.

The pass works on blocks that stay in the cache: first arithmetic, which the compiler vectorizes, then one
integer addition per value. A value becomes v = (x + 1) 2D 2^34; its high part is the bin, its low 34 bits the
offset in the bin. Count and sum of offsets share one 64-bit integer per bin, emptied into the float64
histogram before either can overflow. Two such tables take turns, because equal values in a row would wait
for each other. Offsets are rounded to 2^-35 of a candidate step, which changes a comparison of two point
sets by less than 3e-10 of their error.
"""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit

TOLERANCE = 4 * float(np.finfo(np.float32).eps)  # values this far outside [-1, 1] are clamped
_LIMIT = 1.0 + TOLERANCE
_BLOCK = 1024
_FLUSH = 2 * ((1 << 15) - 1) - _BLOCK  # two tables with 15 bits of count each
_MASK = (1 << 34) - 1
_ONE = 1 << 49
_OFFSET = 2.0**-35


@jit
def _fixed_point(x, denominator, fixed, squares):  # type: ignore[no-untyped-def]
    """Fixed-point numbers of a block; adds to its `squares`; how many values are outside [-1, 1]."""
    scale = 2.0 * denominator * (1 << 34)
    shift = scale + 0.5
    outside = 0
    for i in range(x.size):
        value = np.float64(x[i])
        outside += np.int64(not (abs(value) <= 1.0))  # type: ignore[assignment]  # true for NaN too
        t = value * denominator
        r = t - np.rint(t)
        squares[i] += r * r
        fixed[i] = np.int64(value * scale + shift)
    return outside


@jit
def _scatter(fixed, size, even, odd):  # type: ignore[no-untyped-def]
    for i in range(0, size - 1, 2):
        v = fixed[i]
        w = fixed[i + 1]
        even[np.uint64(v) >> np.uint64(34)] += (v & _MASK) | _ONE
        odd[np.uint64(w) >> np.uint64(34)] += (w & _MASK) | _ONE
    if size % 2:
        v = fixed[size - 1]
        even[np.uint64(v) >> np.uint64(34)] += (v & _MASK) | _ONE


@jit
def _flush(even, odd, counts, sums):  # type: ignore[no-untyped-def]
    for b in range(counts.size):
        n = np.float64((even[b] >> 49) + (odd[b] >> 49))
        offset = np.float64((even[b] & (_ONE - 1)) + (odd[b] & (_ONE - 1))) * _OFFSET
        counts[b] += n
        sums[b] += offset - 0.5 * n * (b & 1)  # bins start at -2D, an even number: odd ones end at their c
        even[b] = 0
        odd[b] = 0


@jit
def _histogram_kernel(x, denominator, counts, sums, squares):  # type: ignore[no-untyped-def]
    outer, channels, inner = x.shape
    fixed = np.empty(_BLOCK, np.int64)
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
                if _fixed_point(block, denominator, fixed, lanes) > 0:
                    return False
                if waiting + size > _FLUSH:
                    _flush(even, odd, counts[c], sums[c])
                    waiting = 0
                _scatter(fixed, size, even, odd)
                waiting += size
        _flush(even, odd, counts[c], sums[c])
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
        if _histogram_kernel(x, denominator, counts, sums, squares):
            return True
        for array in (counts, sums, squares):  # values that want clamping take the slow path, from the start
            array[...] = 0.0
        weights = np.broadcast_to(np.ones(1), x.shape)
    return bool(_weighted_kernel(x, weights, denominator, counts, sums, squares))


@jit
def _error_kernel(counts, sums, squares, numerators, half, errors):  # type: ignore[no-untyped-def]
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
    _error_kernel(counts, sums, squares, numerators, 2 * denominator, errors)
    return errors / denominator**2
