r"""The best K of M candidates as a path through them: exact, for edge costs with the Monge property.

Node i is a candidate, the edge i -> j says that i and j are chosen and nothing between them, and its cost
w(i, j) is what leaving out the candidates in between adds to the squared error. Leaving out those below the
first node costs ``start``, above the last ``end``. These costs satisfy the quadrangle inequality

.. math:: w(a, c) + w(b, d) \le w(a, d) + w(b, c), \qquad a < b < c < d

(a pair of points that share an interval lose least together), from which three facts follow:

1. Without a limit on the nodes but with a price p per node, the best predecessor of j never moves left as j
   grows, nor as p falls. A scan from the last predecessor is short.
2. The best error as a function of K is convex, so some price gives K nodes or steps over K.
3. Of a best path with K1 < K nodes and one with K2 > K nodes, some best path with K nodes runs between them:
   node i lies in [max(P2[i], P1[i - (K - K1)]), min(P2[i + (K2 - K)], P1[i])].

So a few priced searches, each confined between the predecessors of the last two, either hit K or leave
windows a few candidates wide, and a dynamic program over the windows finishes. About 10 to 30 evaluations of
w per candidate on real activations, hardly depending on K.

Facts 1 and 2: Aggarwal, Schieber and Tokuyama, "Finding a minimum-weight k-link path in graphs with the
concave Monge property", Discrete & Computational Geometry 12 (1994), 263-280.
"""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit

_ONE_SIDED = 6  # guesses to one side before an extreme price settles it
_CLOSE = 2  # how far K2 - K1 may be for the dynamic program to take over


@jit
def _edge(i, j, dense, numerators, whole, rest, table, half):  # type: ignore[no-untyped-def]
    """w(i, j): from the matrix where there is one, else by the identity from the table of G."""
    if dense.size > 0:
        return dense[j, i]
    gap = np.float64(numerators[j] - numerators[i])
    b = np.uint64(numerators[i] + numerators[j] + half)
    return (whole[j] - whole[i] - gap * table[b, 0]) + (rest[j] - rest[i] - gap * table[b, 1])


@jit
def _priced(price, zero, start, end, costs, low, high, best, before):  # type: ignore[no-untyped-def]
    """Cheapest path with a price per node; predecessors in `before` (-1: first node). The last node.

    `best`, the cost of the cheapest path to a node, never falls from one node to the next (that path with its
    last node replaced leaves out no more), which ends the look at predecessors once it exceeds what is found.
    """
    dense, numerators, whole, rest, table, half = costs
    nodes = start.size
    previous = np.int64(-1)
    for j in range(nodes):
        left = max(previous, low[j])
        right = min(j - 1, max(high[j], left))
        if j > zero >= 0:
            left = max(left, zero)
        value = start[j] if left == -1 else np.inf
        before[j] = -1
        for i in range(np.uint64(max(left, 0)), np.uint64(right + 1)):
            if best[i] >= value:
                break
            candidate = best[i] + _edge(i, j, dense, numerators, whole, rest, table, half)
            if candidate < value:
                value = candidate
                # Stored at once so that the compiler keeps the branch: a predicted one lets the next node
                # begin, a conditional move has it wait for this comparison.
                before[j] = i
                previous = np.int64(i)
        best[j] = value + price
    last = max(zero, 0)
    for j in range(last, nodes):
        if best[j] + end[j] < best[last] + end[last]:
            last = j
    return last


@jit
def _trace(last, before, path):  # type: ignore[no-untyped-def]
    """Nodes of a path, in order, in `path`; how many."""
    count = 0
    j = last
    while j >= 0:
        count += 1
        j = before[j]
    j = last
    for k in range(count - 1, -1, -1):
        path[k] = j
        j = before[j]
    return count


@jit
def _between(levels, zero, start, end, costs, few, n_few, many, n_many, path):  # type: ignore[no-untyped-def]
    """Best path of exactly `levels` nodes between one with fewer and one with more; see fact 3."""
    dense, numerators, whole, rest, table, half = costs
    nodes = start.size
    lower = np.empty(levels, np.int64)
    upper = np.empty(levels, np.int64)
    for k in range(levels):
        lower[k] = many[k]
        upper[k] = many[k + n_many - levels]
        if k >= levels - n_few:
            lower[k] = max(lower[k], few[k - (levels - n_few)])
        if k < n_few:
            upper[k] = min(upper[k], few[k])
    best = np.full(nodes, np.inf)
    now = np.full(nodes, np.inf)
    width = 1
    for k in range(levels):
        width = max(width, upper[k] - lower[k] + 1)
    before = np.full((levels, width), -1, np.int64)
    for j in range(lower[0], upper[0] + 1):
        best[j] = start[j] if zero < 0 or j <= zero else np.inf
    for k in range(1, levels):
        top = upper[k - 1]
        for j in range(upper[k], lower[k] - 1, -1):
            value = np.inf
            bottom = lower[k - 1]
            if j > zero >= 0:
                bottom = max(bottom, zero)
            for i in range(np.uint64(bottom), np.uint64(min(top, j - 1) + 1)):
                candidate = best[i] + _edge(i, j, dense, numerators, whole, rest, table, half)
                if candidate < value:
                    value = candidate
                    before[k, j - lower[k]] = i  # at once: see _priced
                    top = np.int64(i)
            now[j] = value
        for i in range(lower[k - 1], upper[k - 1] + 1):
            best[i] = np.inf
        for j in range(lower[k], upper[k] + 1):
            best[j] = now[j]
    last = -1
    value = np.inf
    for j in range(max(lower[levels - 1], zero), upper[levels - 1] + 1):
        if best[j] + end[j] < value:
            value = best[j] + end[j]
            last = j
    for k in range(levels - 1, -1, -1):
        path[k] = last
        last = before[k, last - lower[k]]


@jit
def shortest_path(levels, zero, price, start, end, costs, path):  # type: ignore[no-untyped-def]
    """Write the nodes of a best path of at most `levels` nodes to `path`.

    Parameters
    ----------
    levels
        K, from 1 to the number of nodes M.
    zero
        A node that must be on the path, or -1.
    price
        First guess of the price per node (above 0).
    start, end
        float64 (M,).
    costs
        Tuple (dense, numerators, whole, rest, table, half) of `_edge`; either ``dense[j, i]`` is w(i, j), or
        it is empty and the others give w by the identity.
    path
        int64 (M + 1,), written to.

    Returns
    -------
    The number of nodes (below `levels` only where more nodes gain nothing), and the last price.
    """
    nodes = start.size
    low = np.full(nodes, -1, np.int64)
    high = np.full(nodes, nodes, np.int64)
    best = np.empty(nodes)
    before = np.empty(nodes, np.int64)
    few = np.empty(nodes + 1, np.int64)
    many = np.empty(nodes + 1, np.int64)
    n_few = n_many = 0
    cheap, dear = 0.0, np.inf
    guesses = 0
    # The error falls about as K^-2, so the price about as K^-3, and to nothing where all are chosen.
    power = 3.0 / (1.0 - levels / (nodes + 1.0))
    while True:
        guesses += 1
        last = _priced(price, zero, start, end, costs, low, high, best, before)
        count = _trace(last, before, path)
        if count == levels or (count < levels and price == 0.0):
            return count, price
        if count > levels:
            n_many, cheap = count, price
            many[:count] = path[:count]
            high[:] = before
        else:
            n_few, dear = count, price
            few[:count] = path[:count]
            low[:] = before
        if n_few > 0 and n_many > 0:
            if n_many - n_few <= _CLOSE or dear - cheap <= 1e-13 * dear:
                break
            # a power law between the two
            share = np.log(levels / n_many) / np.log(n_few / n_many)
            share = min(max(share, 0.1), 0.9)
            price = cheap * (dear / cheap) ** share if cheap > 0.0 else dear * 1e-3
        elif n_few > 0:
            price = price * (n_few / levels) ** (power * guesses) if guesses < _ONE_SIDED else 0.0
        elif guesses < _ONE_SIDED:
            price *= (n_many / levels) ** (power * guesses)
        else:
            price = 2.0 * (start.max() + end.max()) + 1.0
    _between(levels, zero, start, end, costs, few, n_few, many, n_many, path)
    return levels, price
