r"""Exact choice of points from a lattice histogram: integrated distribution function, then shortest path.

With G(t) = sum over x < t of (t - x), sorted points q_1 < ... < q_K have the squared error

.. math:: \sum x^2 + n q_K^2 - 2 q_K \sum x - 2 \sum_{i<K} (q_{i+1} - q_i) G((q_i + q_{i+1})/2)

so leaving out the candidates between q_i and q_j costs the difference of two such sums, one look-up of G at a
midpoint, which is a lattice position. In the units of `sqlib.kernels.lattice` the table holds
2 G = sum of (b - 2t) over t < b/2 for every b, split in two columns: integers (exact in float64: counts times
lattice distances), and what residuals and fractional weights add. Their differences are formed separately, so
large numbers cancel exactly before the small ones are added.
"""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit
from sqlib.kernels.lattice import error_kernel, fixed_point, histogram_kernel
from sqlib.kernels.shortest_path import shortest_path

_CELLS = 32  # intervals in which the density is taken


@jit
def _integrate(counts, sums, half, quantum, table):  # type: ignore[no-untyped-def]
    """Fill `table` with 2 G in two columns; the totals of count and t, each whole and rest."""
    n_whole = n_rest = g_whole = g_rest = 0.0
    per_quantum = 1.0 / quantum  # exact: a power of two
    for even in range(0, counts.size, 2):
        # An even bin's integer c is its left edge: its values already count for the step to the next bin.
        table[even, 0] = g_whole
        table[even, 1] = g_rest
        whole = np.rint(counts[even] * per_quantum) * quantum
        n_whole += whole
        n_rest += counts[even] - whole
        g_whole += n_whole
        g_rest += n_rest - 2.0 * sums[even]
        odd = even + 1
        if odd < counts.size:
            table[odd, 0] = g_whole
            table[odd, 1] = g_rest
            g_whole += n_whole
            g_rest += n_rest - 2.0 * sums[odd]
            whole = np.rint(counts[odd] * per_quantum) * quantum
            n_whole += whole
            n_rest += counts[odd] - whole
    end = np.float64(counts.size - half)  # at the end 2 G is n end - 2 sum t
    return n_whole, n_rest, 0.5 * (n_whole * end - g_whole), 0.5 * (n_rest * end - g_rest)


@jit
def _breadth(table):  # type: ignore[no-untyped-def]
    r"""About :math:`(\int \sqrt[3]{f})^3` for the data's density f, by which the error of points goes.

    K points that suit f lose a twelfth of it over K^2, so one more is worth a sixth of it over K^3.

    P. F. Panter and W. Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of
    levels", Proceedings of the IRE 39 (1951), 44-48.
    """
    width = (table.shape[0] - 1) // _CELLS
    total = below = 0.0
    for b in range(width, table.shape[0], width):
        upto = table[b, 0] - table[b - 1, 0]  # G's slope: how many values lie below
        total += max(upto - below, 0.0) ** (1.0 / 3.0)
        below = upto
    return total**3 * (0.5 * width) ** 2


@jit
def _used_range(counts, numerators, half, zero):  # type: ignore[no-untyped-def]
    """Candidates worth looking at: those within the data and one beyond at each side, and `zero`."""
    first = 0
    while counts[first] == 0.0:
        first += 1
    last = counts.size - 1
    while counts[last] == 0.0:
        last -= 1
    low = 0
    while low + 1 < numerators.size and 2 * numerators[low + 1] <= first - half:
        low += 1
    high = numerators.size - 1
    while high > low and 2 * numerators[high - 1] >= last + 1 - half:
        high -= 1
    if zero >= 0:
        low, high = min(low, zero), max(high, zero)
    return low, high


@jit
def fill_up(count, size, path, levels):  # type: ignore[no-untyped-def]
    """Bring `count` chosen of `size` candidates to `levels`, evenly from those not chosen, in order."""
    taken = np.zeros(size, np.bool_)
    for k in range(count):
        taken[path[k]] = True
    free = size - count
    wanted = levels - count
    seen = 0
    added = 0
    for i in range(size):
        if not taken[i]:
            # the k-th of `wanted` is number (k + 1/2) free / wanted of the free ones
            if added < wanted and seen == ((2 * added + 1) * free) // (2 * wanted):
                taken[i] = True
                added += 1
            seen += 1
    k = 0
    for i in range(size):
        if taken[i]:
            path[k] = i
            k += 1


@jit
def choose_on_lattice(counts, sums, numerators, half, zero, quanta, chosen, guess=0.0):  # type: ignore[no-untyped-def]
    """The exact subset per channel, written to `chosen`.

    Parameters
    ----------
    counts, sums
        float64 (channels, 4D + 1), see `sqlib.kernels.lattice`; every channel has a value.
    numerators
        int64 (M,), sorted and distinct.
    half
        2D, the bin of 0.
    zero
        Position in `numerators` that must be chosen, or -1.
    quanta
        float64 (channels,): powers of two; counts are split into a multiple of it and a rest.
    chosen
        int64 (channels, K) with K <= M: positions in `numerators`, ascending.
    guess
        What a call for data of this kind returned (it saves time), or 0.

    Returns
    -------
    Price of a point over the breadth of the data, in the last channel.
    """
    channels, levels = chosen.shape
    size = numerators.size
    table = np.empty((counts.shape[1], 2))
    path = np.empty(size + 1, np.int64)
    nothing = np.empty((0, 0))
    ratio = guess if guess > 0.0 else 1.0 / (6.0 * levels**3)
    for c in range(channels):
        n_whole, n_rest, t_whole, t_rest = _integrate(counts[c], sums[c], half, quanta[c], table)
        low, high = _used_range(counts[c], numerators, half, zero)
        m = numerators[low : high + 1]
        nodes = m.size
        count = nodes
        if nodes > levels:
            whole = np.zeros(nodes)
            rest = np.zeros(nodes)
            for k in range(1, nodes):
                b = m[k - 1] + m[k] + half
                gap = np.float64(m[k] - m[k - 1])
                whole[k] = whole[k - 1] + gap * table[b, 0]
                rest[k] = rest[k - 1] + gap * table[b, 1]
            start = whole + rest
            end = np.empty(nodes)
            top = nodes - 1
            for k in range(nodes):
                gap = np.float64(m[top] - m[k])
                both = np.float64(m[top] + m[k])
                end[k] = (gap * (2.0 * t_whole - both * n_whole) + (whole[top] - whole[k])) + (
                    gap * (2.0 * t_rest - both * n_rest) + (rest[top] - rest[k])
                )
            costs = (nothing, m, whole, rest, table, half)
            breadth = _breadth(table)
            price = ratio * breadth if breadth > 0.0 else 1.0
            count, final = shortest_path(
                levels, zero - low if zero >= 0 else -1, price, start, end, costs, path
            )
            if breadth > 0.0 and final > 0.0:
                ratio = final / breadth  # channels of a layer are alike: a good guess for the next
        else:
            for k in range(nodes):
                path[k] = k
        for k in range(count):
            path[k] += low
        if count < levels:
            fill_up(count, size, path, levels)
        chosen[c, :] = path[:levels]
    return ratio


@jit
def _rows_kernel(x, fixed, numerators, half, zero, quantum, chosen, errors):  # type: ignore[no-untyped-def]
    denominator, scale, distances, residuals = fixed
    counts = np.empty((1, 2 * half + 1))
    sums = np.empty((1, 2 * half + 1))
    squares = np.empty(1)
    quanta = np.full(1, quantum)
    ratio = 0.0
    points = np.empty((1, chosen.shape[1]), np.int64)
    for c in range(x.shape[0]):
        counts[:] = 0.0
        sums[:] = 0.0
        squares[:] = 0.0
        row = x[c : c + 1].reshape((1, 1, x.shape[1]))
        if not histogram_kernel(row, denominator, scale, distances, residuals, counts, sums, squares):
            return False
        ratio = choose_on_lattice(counts, sums, numerators, half, zero, quanta, chosen[c : c + 1], ratio)
        for k in range(points.shape[1]):
            points[0, k] = numerators[chosen[c, k]]
        error_kernel(counts, sums, squares, points, half, errors[c : c + 1])
    return True


def choose_from_rows(
    x: np.ndarray, denominator: int, numerators: np.ndarray, zero: int, quantum: float, levels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Exact subsets and their errors from the values themselves, one channel at a time in 100 KB.

    `x`: float32 or float64, C-contiguous (channels, n); the rest as in `choose_on_lattice`. Returns positions
    (channels, levels) and squared errors (channels,), or None if a value is outside [-1, 1] or NaN.
    """
    values, fixed = fixed_point(x, denominator)
    chosen, errors = np.empty((len(x), levels), np.int64), np.empty(len(x))
    if not _rows_kernel(values, fixed, numerators, 2 * denominator, zero, quantum, chosen, errors):
        return None
    return chosen, errors / denominator**2


@jit
def choose_from_costs(start, end, dense, zero, chosen):  # type: ignore[no-untyped-def]
    """The exact subset of one channel from the costs of `sqlib.kernels.sorted_costs`."""
    levels = chosen.size
    size = start.size
    path = np.empty(size + 1, np.int64)
    count = size
    if size > levels:
        nothing = np.empty(0, np.int64)
        empty = np.empty(0)
        costs = (dense, nothing, empty, empty, np.empty((0, 2)), 0)
        scale = start.max() + end.max()
        price = scale / np.float64(levels) ** 3 if scale > 0.0 else 1.0
        count, _ = shortest_path(levels, zero, price, start, end, costs, path)
    else:
        for k in range(size):
            path[k] = k
    if count < levels:
        fill_up(count, size, path, levels)
    chosen[:] = path[:levels]
