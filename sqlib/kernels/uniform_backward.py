r"""Gradients of the uniform fake-quantizer on the CPU, in one pass: to the values and to both bounds.

With t = (x - l)/s, top code T and the gradient g of the output,

.. math::
    \frac{\partial}{\partial x} = g\,[0 \le t \le T], \qquad
    \frac{\partial}{\partial u} = \sum g\,([t > T] + r), \qquad
    \frac{\partial}{\partial l} = \sum g\,([t < 0] - r), \qquad
    r = \frac{\operatorname{rint}(c) - c}{\max(T, 1)}, \quad c = \operatorname{clip}(t, 0, T)

(2DQuant, Eq. 2 as its appendix has it; see `sqlib.quantizers.uniform`). Products are summed in the array's
dtype over runs of 1,024 values in 32 lanes and in float64 beyond, in an order that does not depend on the
number of threads.

Cost: two reads and one write per value; no temporary arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib.kernels._jit import jit
from sqlib.kernels._threads import VALUES_PER_THREAD, run_split

RUN = 1024
"""Values that are summed in the array's own dtype."""
LANES = 32


class Grid(NamedTuple):
    """Lower end, scale (> 0) and top code (>= 0), one entry per channel, all in the dtype of the values."""

    lower: NDArray[Any]
    scale: NDArray[Any]
    top: NDArray[Any]


@jit
def _run_kernel(x, grad, lower, scale, top, out, lanes):  # type: ignore[no-untyped-def]
    """One run; returns the sums over it of g [t < 0], g [t > T] and g (rint(c) - c)."""
    zero = top - top
    lanes[:] = zero
    below, above, inner = lanes[0], lanes[1], lanes[2]
    whole = x.size // LANES * LANES
    for start in range(0, whole, LANES):
        for k in range(LANES):
            g = grad[start + k]
            t = (x[start + k] - lower) / scale
            c = zero if t < zero else t
            c = top if c > top else c
            out[start + k] = zero if (t < zero) | (t > top) else g
            below[k] += g if t < zero else zero
            above[k] += g if t > top else zero
            inner[k] += g * (np.rint(c) - c)
    for i in range(whole, x.size):
        g = grad[i]
        t = (x[i] - lower) / scale
        c = zero if t < zero else t
        c = top if c > top else c
        out[i] = zero if (t < zero) | (t > top) else g
        below[0] += g if t < zero else zero
        above[0] += g if t > top else zero
        inner[0] += g * (np.rint(c) - c)
    a, b, c = 0.0, 0.0, 0.0
    for k in range(LANES):
        a += below[k]
        b += above[k]
        c += inner[k]
    return a, b, c


@jit
def _runs_kernel(x, grad, lower, scale, top, out, first, last, sums):  # type: ignore[no-untyped-def]
    """Runs `first` to `last` of flat arrays under one grid; row r of `sums` gets the sums over run r."""
    lanes = np.empty((3, LANES), x.dtype)
    for run in range(first, last):
        a, b = run * RUN, min((run + 1) * RUN, x.size)
        sums[run, 0], sums[run, 1], sums[run, 2] = _run_kernel(
            x[a:b], grad[a:b], lower, scale, top, out[a:b], lanes
        )


@jit
def _channels_kernel(x, grad, lower, scale, top, out, sums):  # type: ignore[no-untyped-def]
    """The same for (outer, channels, inner) arrays with a grid, and a row of `sums`, per channel."""
    lanes = np.empty((3, LANES), x.dtype)
    outer, channels, inner = x.shape
    for n in range(outer):
        for c in range(channels):
            for a in range(0, inner, RUN):
                b = min(a + RUN, inner)
                found = _run_kernel(
                    x[n, c, a:b], grad[n, c, a:b], lower[c], scale[c], top[c], out[n, c, a:b], lanes
                )
                sums[c, 0] += found[0]
                sums[c, 1] += found[1]
                sums[c, 2] += found[2]


def backward(
    x: NDArray[Any],
    grad: NDArray[Any],
    grid: Grid,
    *,
    axis: int | None = None,
    out: NDArray[Any],
    threads: int = 1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients of quantizing `x`; that of `x` goes to `out`.

    Parameters
    ----------
    x, grad, out : ndarray
        C-contiguous, of one shape and dtype (float32 or float64); `grad` is the gradient of the output.
    grid : Grid
        Entries of one element, or of ``x.shape[axis]``.
    axis : int or None
        The channel axis, or None for one grid for the whole array.
    threads : int
        Upper limit on threads (one grid only; small arrays stay on one).

    Returns
    -------
    Gradients of the lower and of the upper bound, float64, one entry per channel.

    Notes
    -----
    Preconditions are not checked. NaN in `x` lets the gradient pass there, and makes those of the bounds NaN.
    """
    if axis is None:
        flat = x.reshape(-1), grad.reshape(-1), *(v.reshape(-1)[0] for v in grid), out.reshape(-1)
        runs = -(-x.size // RUN)
        parts = np.zeros((runs, 3))

        def part(first: int, last: int) -> None:
            _runs_kernel(*flat, first, last, parts)

        run_split(part, runs, min(threads, x.size // VALUES_PER_THREAD))
        sums = parts.sum(axis=0, keepdims=True)
    else:
        axis %= x.ndim
        channels = x.shape[axis]
        shape = (int(np.prod(x.shape[:axis])), channels, int(np.prod(x.shape[axis + 1 :])))
        sums = np.zeros((channels, 3))
        _channels_kernel(x.reshape(shape), grad.reshape(shape), *grid, out.reshape(shape), sums)
    rounding = sums[:, 2] / np.maximum(grid.top.reshape(-1).astype(np.float64), 1)
    return sums[:, 0] - rounding, sums[:, 1] + rounding
