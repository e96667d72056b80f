r"""Squared error of uniform quantizers: from prefix sums in O(levels), and directly from the data.

With G(t) = sum over x < t of (t - x), the error of the levels :math:`l, l + s, \dots, h = l + (K-1)s` over n
values is

.. math:: \sum x^2 - 2 h \sum x + n h^2 - 2 s \sum_{k=0}^{K-2} G(l + (k + \tfrac12) s)

G needs the number and the sum of the values below t: prefix sums over sorted values, or over bins. In the
bin that t falls into, the convex function max(t - x, 0) lies between its value at the bin's mean (Jensen) and
its chord, which bounds what the bins have forgotten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqlib.kernels._jit import jit
from sqlib.kernels._threads import run_split
from sqlib.kernels.bisection import first_not_below

# Errors are summed per run of this many values, so that the sum does not depend on the number of threads.
_RUN = 1 << 16
_VALUES_PER_THREAD = 1 << 18


@jit
def _clipped(low, high, x, counts, sums, squares, width):  # type: ignore[no-untyped-def]
    """What the values outside [low, high] cost; in a bin that an end falls into, nothing."""
    if width > 0:
        bins = counts.size - 1
        below = min(max(np.int64(np.floor(low / width)), 0), bins)
        above = min(max(np.int64(np.ceil(high / width)), 0), bins)
    else:
        below = first_not_below(x, low, 0)
        above = first_not_below(x, high, below)
    n = counts[-1] - counts[above]
    cost = counts[below] * low * low - 2.0 * low * sums[below] + squares[below]
    cost += n * high * high - 2.0 * high * (sums[-1] - sums[above]) + (squares[-1] - squares[above])
    return cost


@jit
def grid_errors(  # type: ignore[no-untyped-def]
    low, scale, top, x, counts, sums, squares, width, total, shift, rounding, prune, estimate, margin
):
    """Estimates of the squared errors of many grids, and how far each may be off.

    Parameters
    ----------
    low, scale, top
        float64 (m,): the grids, `low` relative to the origin of the positions.
    x
        float64 (n,): sorted positions, or empty for bins of `width` > 0 that start at position 0.
    counts, sums, squares
        float64 (n + 1,): prefix sums over the sorted values or the bins. `squares` is never above the true
        sum in any run of bins.
    total
        Sum of all squares, or an upper bound of it that all grids share.
    shift
        Largest distance between a value and the position that stands for it.
    rounding
        Largest rounding error of one estimate.
    prune
        Whether a grid may be skipped (estimate infinite) whose clipped values alone cost more than an
        earlier grid in total.
    estimate, margin
        float64 (m,), written to.

    Notes
    -----
    O(levels) per grid with bins, O(levels log n) with sorted values.
    """
    bins = counts.size - 1
    n = counts[bins]
    end = width * bins
    inverse = 1.0 / width if width > 0 else 0.0
    best = np.inf
    for c in range(low.size):
        high = low[c] + scale[c] * top[c]
        if prune and best < np.inf:
            lost = _clipped(low[c], high, x, counts, sums, squares, width)
            # the second term: positions are off by `shift`
            off = 2.0 * shift * np.sqrt(n * max(lost, 0.0)) + rounding
            if lost - off > best:
                estimate[c] = np.inf
                margin[c] = 0.0
                continue
        gain = 0.0
        lost_digits = 0.0
        gap = 0.0
        at = 0
        for k in range(np.int64(top[c])):
            t = low[c] + (k + 0.5) * scale[c]
            g = 0.0
            if width == 0:
                at = first_not_below(x, t, at)
                g = counts[at] * t - sums[at]
            elif t >= end:
                g = n * t - sums[bins]
            elif t > 0:
                b = min(np.int64(t * inverse), bins - 1)
                g = counts[b] * t - sums[b]
                here = counts[b + 1] - counts[b]
                if here > 0:
                    mean = (sums[b + 1] - sums[b]) / here
                    least = here * max(t - mean, 0.0)
                    most = here * max(t - b * width, 0.0) * max((b + 1) * width - mean, 0.0) * inverse
                    g += 0.5 * (least + most)
                    gap += 0.5 * max(most - least, 0.0)
            # compensated (Knuth's two-sum): thousands of levels must not cost digits
            new = gain + g
            added = new - gain
            lost_digits += (gain - (new - added)) + (g - added)
            gain = new
        gain += lost_digits
        error = total - 2.0 * high * sums[bins] + n * high * high - 2.0 * scale[c] * gain
        estimate[c] = error
        away = max(error, 0.0) + 2.0 * scale[c] * gap
        margin[c] = 2.0 * scale[c] * gap + 2.0 * shift * np.sqrt(n * away) + n * shift * shift + rounding
        best = min(best, error + margin[c])


@jit
def _squared_distance(x, low, inverse, scale, top):  # type: ignore[no-untyped-def]
    # The inverse rounds differently from a division only where two levels are equally near.
    v = np.float64(x) - low
    t = v * inverse
    t = 0.0 if t < 0.0 else t
    t = top if t > top else t
    d = v - np.rint(t) * scale
    return d * d


@jit
def _add_errors(x, low, inverse, scale, top, lanes):  # type: ignore[no-untyped-def]
    whole = x.size // 64 * 64
    for i in range(0, whole, 64):
        part = x[i : i + 64]
        for j in range(64):  # independent sums, which the vector units add at once
            lanes[j] += _squared_distance(part[j], low, inverse, scale, top)
    for i in range(whole, x.size):
        lanes[i - whole] += _squared_distance(x[i], low, inverse, scale, top)


@jit
def _squared_errors(x, low, scale, top, out):  # type: ignore[no-untyped-def]
    lanes = np.zeros((low.size, 64))
    for start in range(0, x.size, 4096):  # a block that stays in the nearest cache for all grids
        block = x[start : min(start + 4096, x.size)]
        for c in range(low.size):
            _add_errors(block, low[c], 1.0 / scale[c], scale[c], top[c], lanes[c])
    for c in range(low.size):
        out[c] = lanes[c].sum()


def squared_errors(
    x: NDArray[np.floating],
    low: NDArray[np.float64],
    scale: NDArray[np.float64],
    top: NDArray[np.float64],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Squared error of every grid (m,) over the data, in float64; one pass over `x`, O(n m).

    `x`: one-dimensional, contiguous, finite, float32 or float64. The result does not depend on `threads`.
    """
    point = scale < 1e-150  # its square underflows, its inverse may overflow
    scale, top = np.where(point, 1.0, scale), np.where(point, 0.0, top)
    runs = -(-x.size // _RUN)
    partial = np.zeros((runs, low.size))

    def part(start: int, stop: int) -> None:
        for r in range(start, stop):
            _squared_errors(x[r * _RUN : (r + 1) * _RUN], low, scale, top, partial[r])

    run_split(part, runs, min(threads, x.size // _VALUES_PER_THREAD))
    return np.asarray(partial.sum(axis=0))
