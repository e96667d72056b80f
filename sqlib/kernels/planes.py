"""Loops of `sqlib.kernels.normalized`, one plane after the other; nothing is validated here.

Each comes twice: by table look-up, for any codebook, and by `sqlib.kernels.vector`, for at most 16 points.
"""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit
from sqlib.kernels.vector import LANES, search

_BLOCK = 1024


@jit
def _plane_statistics(row, sums, low, high):  # type: ignore[no-untyped-def]
    """Sum, smallest and largest of a plane; 64 independent lanes keep the vector units busy."""
    for j in range(64):
        sums[j] = 0.0
        low[j] = row[0]
        high[j] = row[0]
    whole = row.size // 256 * 256
    for i in range(0, whole, 256):
        for j in range(64):  # four values per lane and visit, as a lane costs a load and a store
            a = row[i + j]
            b = row[i + j + 64]
            c = row[i + j + 128]
            d = row[i + j + 192]
            sums[j] += (np.float64(a) + np.float64(b)) + (np.float64(c) + np.float64(d))
            least = b if b < a else a
            other = d if d < c else c
            least = other if other < least else least
            low[j] = least if least < low[j] else low[j]
            most = b if b > a else a
            other = d if d > c else c
            most = other if other > most else most
            high[j] = most if most > high[j] else high[j]
    for i in range(whole, row.size):
        v = row[i]
        j = i % 64
        sums[j] += v
        low[j] = v if v < low[j] else low[j]
        high[j] = v if v > high[j] else high[j]
    total = sums[0]
    smallest = low[0]
    largest = high[0]
    for j in range(1, 64):
        total += sums[j]
        smallest = low[j] if low[j] < smallest else smallest
        largest = high[j] if high[j] > largest else largest
    return total, smallest, largest


@jit
def _measure(x, p, centre, mean, maximum, sums, low, high):  # type: ignore[no-untyped-def]
    """Fill `mean` and `maximum` at plane p; whether they are finite."""
    total, smallest, largest = _plane_statistics(x[p], sums, low, high)
    if not np.isfinite(total):
        return False
    mean[p] = total / x.shape[1] if centre else 0.0  # rounds to the dtype of x
    maximum[p] = max(largest - mean[p], mean[p] - smallest)
    return np.isfinite(maximum[p])


@jit
def statistics_kernel(x, centre, mean, maximum):  # type: ignore[no-untyped-def]
    """Fill `mean` and `maximum` per plane; number of planes that are not finite."""
    sums, low, high = np.empty(64), np.empty(64, x.dtype), np.empty(64, x.dtype)
    bad = 0
    for p in range(x.shape[0]):
        bad += not _measure(x, p, centre, mean, maximum, sums, low, high)
    return bad


@jit
def _cells(row, mean, scale, half, cells):  # type: ignore[no-untyped-def]
    for i in range(row.size):
        t = (row[i] - mean) * scale
        t = t if t < half else half
        t = t if t > -half else -half
        # unsigned: a signed index would be tested for counting from the end
        cells[i] = np.uint32(np.int32(np.ceil(t) + half))


@jit
def _look_up(cells, first, levels, out):  # type: ignore[no-untyped-def]
    for i in range(cells.size):
        out[i] = levels[first[cells[i]]]


@jit
def _compare(row, mean, scale, cells, first, thresholds, levels, out):  # type: ignore[no-untyped-def]
    """As `_look_up`, where midpoints lie inside cells."""
    for i in range(cells.size):
        t = (row[i] - mean) * scale
        code = np.uint64(first[cells[i]])
        while code < thresholds.size and t > thresholds[code]:
            code += np.uint64(1)
        out[i] = levels[code]


@jit
def _look_up_plane(  # type: ignore[no-untyped-def]
    row, mean, maximum, epsilon, half, unit, exact, first, thresholds, values, cells, levels, out
):
    spread = maximum + epsilon
    scale = half / spread
    step = spread / unit
    for k in range(levels.size):
        levels[k] = values[k] * step + mean
    for i in range(0, row.size, _BLOCK):
        block = row[i : i + _BLOCK]
        target = out[i : i + _BLOCK]
        found = cells[: block.size]
        _cells(block, mean, scale, half, found)
        if exact:
            _look_up(found, first, levels, target)
        else:
            _compare(block, mean, scale, found, first, thresholds, levels, target)


@jit
def apply_kernel(  # type: ignore[no-untyped-def]
    x, start, mean, maximum, epsilon, half, unit, exact, first, thresholds, values, out
):
    """Quantize planes with given statistics; the channel of plane p is (start + p) mod channels."""
    cells, levels = np.empty(_BLOCK, np.uint32), np.empty(values.shape[1], x.dtype)
    for p in range(x.shape[0]):
        c = (start + p) % values.shape[0]
        m, w, f, t, v = mean[p], maximum[p], first[c], thresholds[c], values[c]
        _look_up_plane(x[p], m, w, epsilon, half, unit, exact, f, t, v, cells, levels, out[p])


@jit
def fused_kernel(  # type: ignore[no-untyped-def]
    x, start, centre, mean, maximum, epsilon, half, unit, exact, first, thresholds, values, out
):
    """`statistics_kernel` and `apply_kernel` plane by plane, while the plane is in the cache."""
    sums, low, high = np.empty(64), np.empty(64, x.dtype), np.empty(64, x.dtype)
    cells, levels = np.empty(_BLOCK, np.uint32), np.empty(values.shape[1], x.dtype)
    bad = 0
    for p in range(x.shape[0]):
        if not _measure(x, p, centre, mean, maximum, sums, low, high):
            bad += 1
            continue
        c = (start + p) % values.shape[0]
        m, w, f, t, v = mean[p], maximum[p], first[c], thresholds[c], values[c]
        _look_up_plane(x[p], m, w, epsilon, half, unit, exact, f, t, v, cells, levels, out[p])
    return bad


@jit
def _search_plane(  # type: ignore[no-untyped-def]
    row, mean, maximum, epsilon, half, unit, thresholds, values, levels, spare, out
):
    spread = maximum + epsilon
    scale = half / spread
    step = spread / unit
    for k in range(LANES):
        levels[k] = values[k] * step + mean
    whole = row.size // LANES * LANES
    for i in range(0, whole, LANES):
        search(row, i, mean, scale, thresholds, levels, out)
    rest = row.size - whole
    if rest > 0:
        for j in range(rest):
            spare[0, j] = row[whole + j]
        search(spare[0], 0, mean, scale, thresholds, levels, spare[1])
        for j in range(rest):
            out[whole + j] = spare[1, j]


@jit
def apply_few_kernel(  # type: ignore[no-untyped-def]
    x, start, mean, maximum, epsilon, half, unit, thresholds, values, out
):
    """`apply_kernel` for float32 and at most 16 points, padded to 16."""
    levels, spare = np.empty(LANES, np.float32), np.zeros((2, LANES), np.float32)
    for p in range(x.shape[0]):
        c = (start + p) % values.shape[0]
        m, w, t, v = mean[p], maximum[p], thresholds[c], values[c]
        _search_plane(x[p], m, w, epsilon, half, unit, t, v, levels, spare, out[p])


@jit
def fused_few_kernel(  # type: ignore[no-untyped-def]
    x, start, centre, mean, maximum, epsilon, half, unit, thresholds, values, out
):
    """`fused_kernel` for float32 and at most 16 points."""
    sums, low, high = np.empty(64), np.empty(64, np.float32), np.empty(64, np.float32)
    levels, spare = np.empty(LANES, np.float32), np.zeros((2, LANES), np.float32)
    bad = 0
    for p in range(x.shape[0]):
        if not _measure(x, p, centre, mean, maximum, sums, low, high):
            bad += 1
            continue
        c = (start + p) % values.shape[0]
        m, w, t, v = mean[p], maximum[p], thresholds[c], values[c]
        _search_plane(x[p], m, w, epsilon, half, unit, t, v, levels, spare, out[p])
    return bad
