r"""Fused normalized fake-quantization on the CPU: statistics, nearest point, de-normalization in one visit.

A *plane* is the run of values that share statistics, in DFSQ one channel of one sample. For each:

.. math::
    \mu = \mathrm{mean}(x), \quad M = \max |x - \mu|, \quad
    \hat{x} = Q\!\left(\frac{x - \mu}{M + \epsilon}\right) (M + \epsilon) + \mu

with Q the nearest point of the plane's channel and :math:`\epsilon` = 1e-8 (DFSQ's released code). A layer
that is not centred has :math:`\mu = 0`.

Arithmetic, which every other path repeats step by step (all in the dtype of x unless said):

- the mean: in float64, 64 running sums, value i in sum i mod 64; of every whole 256 values, the four that go
  to one sum are first added in pairs, (0 + 1) + (2 + 3); the sums in order, over n, rounded once;
- M = max(max(x) - mean, mean - min(x)), which equals max |x - mean| because rounding is monotone;
- s = M + epsilon; t = (x - mean) * (half / s); the code is the number of thresholds below t (`NearestTable`);
- the result: value * (s / unit) + mean, two rounded operations, computed once per plane and level.

So the result is a function of x, mean and M, bit for bit; only the mean depends on an order of summation.
A plane with NaN or infinity has no finite mean, which is how it is found; nothing is stored for it.

Cost: one read from memory, a second one from the cache (a plane is at most a few hundred KB), one write. All
of it is vector instructions for up to 16 points with AVX-512; otherwise the look-ups, two loads and one store
a value, are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError
from sqlib.kernels import _threads
from sqlib.kernels.nearest import NearestTable
from sqlib.kernels.planes import (
    apply_few_kernel,
    apply_kernel,
    fused_few_kernel,
    fused_kernel,
    statistics_kernel,
)

EPSILON = 1e-8


class Statistics(NamedTuple):
    """Mean and largest magnitude after centring, per plane: arrays (samples, channels) or (samples, 1)."""

    mean: NDArray[Any]
    maximum: NDArray[Any]


def plane_statistics(
    x: NDArray[Any], *, centre: bool = True, channelwise: bool = True, threads: int = 1
) -> Statistics:
    """Mean and largest magnitude per plane.

    Parameters
    ----------
    x : ndarray
        float32 or float64 (samples, channels, values).
    centre : bool
        Whether to remove the mean; without, it is 0.
    channelwise : bool
        A plane is one channel of one sample; else a sample.
    threads : int
        Upper limit on threads.

    Returns
    -------
    `Statistics` of x's dtype, shape (samples, channels), or (samples, 1).

    Raises
    ------
    InputError
        For NaN or infinity, values so large that their sum or range overflows, and another dtype or shape.
    """
    source = _checked(x)
    planes = _planes(source, channelwise)
    mean, maximum = np.zeros(len(planes), x.dtype), np.zeros(len(planes), x.dtype)
    if x.size:
        bad: list[int] = []

        def part(a: int, b: int) -> None:
            bad.append(statistics_kernel(planes[a:b], centre, mean[a:b], maximum[a:b]))

        _threads.run_split(part, len(planes), _useful(threads, x.size))
        _raise_if(sum(bad), source)
    shape = (x.shape[0], x.shape[1] if channelwise else 1)
    return Statistics(mean.reshape(shape), maximum.reshape(shape))


def fake_quantize_normalized(
    x: NDArray[Any],
    table: NearestTable,
    *,
    centre: bool = True,
    channelwise: bool = True,
    statistics: Statistics | None = None,
    epsilon: float = EPSILON,
    out: NDArray[Any] | None = None,
    threads: int = 1,
) -> tuple[NDArray[Any], Statistics]:
    """Normalize, move every value to its nearest point, and de-normalize.

    Parameters
    ----------
    x : ndarray
        float32 or float64 (samples, channels, values), also empty; read in place when C-contiguous and
        writable, otherwise a copy is made first.
    table : NearestTable
        From `sqlib.codebook.nearest.nearest_table`, in x's dtype, with a row per channel or one for all.
    centre, channelwise : bool
        See `plane_statistics`.
    statistics : Statistics or None
        Use these instead of x's own, broadcastable to (samples, channels); values beyond their range are
        clipped.
    epsilon : float
        Added to the largest magnitude.
    out : ndarray or None
        C-contiguous array of x's shape and dtype to write to; may be `x` itself. On an error its content is
        undefined.
    threads : int
        Upper limit on threads; the result does not depend on it.

    Returns
    -------
    The result (`out` if given), and the statistics used.

    Raises
    ------
    InputError
        For NaN or infinity (also with given statistics), a wrong number of channels, dtype or shape.
    """
    source = _checked(x)
    samples, channels, values = x.shape
    rows = len(table.values)
    if rows not in (1, channels):
        raise InputError(f"the points are for {rows} channels, the array of shape {x.shape} has {channels}")
    if table.values.dtype != x.dtype:
        raise InputError(f"the table is for {table.values.dtype}, the array is {x.dtype}; make one for it")
    if out is None:
        out = np.empty(x.shape, x.dtype)
    elif (
        out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous or not out.flags.writeable
    ):
        raise InputError(
            f"out has shape {out.shape} and dtype {out.dtype}, expected a writable C-contiguous array of "
            f"shape {x.shape} and dtype {x.dtype}"
        )
    kind = x.dtype.type
    constants = kind(epsilon), kind(table.half), kind(table.unit)
    apply_to, fuse = apply_kernel, fused_kernel
    arrays: tuple[Any, ...] = table.exact, table.first, table.thresholds, table.values
    if table.few is not None:
        apply_to, fuse, arrays = apply_few_kernel, fused_few_kernel, table.few
    threads = _useful(threads, x.size)
    if statistics is not None or not (channelwise or rows == 1):
        own = plane_statistics(source, centre=centre, channelwise=channelwise, threads=threads)
        used = own if statistics is None else _given(statistics, x)
        if x.size:
            mean, maximum = (np.broadcast_to(v, (samples, channels)).reshape(-1).copy() for v in used)
            planes, target = source.reshape(-1, values), out.reshape(-1, values)

            def apply(a: int, b: int) -> None:
                apply_to(planes[a:b], a, mean[a:b], maximum[a:b], *constants, *arrays, target[a:b])

            _threads.run_split(apply, len(planes), threads)
        return out, used
    planes = _planes(source, channelwise)
    mean, maximum = np.zeros(len(planes), x.dtype), np.zeros(len(planes), x.dtype)
    if x.size:
        target = _planes(out, channelwise)
        bad: list[int] = []

        def fused(a: int, b: int) -> None:
            part = planes[a:b], a, centre, mean[a:b], maximum[a:b]
            bad.append(fuse(*part, *constants, *arrays, target[a:b]))

        _threads.run_split(fused, len(planes), threads)
        _raise_if(sum(bad), source)
    shape = (samples, channels if channelwise else 1)
    return out, Statistics(mean.reshape(shape), maximum.reshape(shape))


def _checked(x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype not in (np.float32, np.float64) or x.ndim != 3:
        raise InputError(
            f"array of shape {x.shape} and dtype {x.dtype}, expected float32 or float64 of shape (samples, "
            "channels, values); convert or reshape it first"
        )
    # Numba would compile every kernel anew for read-only memory, which takes longer than any copy.
    return np.ascontiguousarray(x) if x.flags.writeable else x.copy()


def _planes(x: NDArray[Any], channelwise: bool) -> NDArray[Any]:
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2]) if channelwise else x.reshape(x.shape[0], -1)


def _useful(threads: int, size: int) -> int:
    return max(1, min(threads, size // _threads.VALUES_PER_THREAD))


def _given(statistics: Statistics, x: NDArray[Any]) -> Statistics:
    mean, maximum = (np.asarray(v, dtype=x.dtype) for v in statistics)
    if not (np.isfinite(mean).all() and np.isfinite(maximum).all() and (maximum >= 0).all()):
        raise InputError("statistics: expected finite means and finite, non-negative maxima")
    try:
        np.broadcast_to(mean, x.shape[:2]), np.broadcast_to(maximum, x.shape[:2])
    except ValueError:
        raise InputError(
            f"statistics of shapes {mean.shape} and {maximum.shape}, expected (samples, channels) = "
            f"{x.shape[:2]} or broadcastable to it"
        ) from None
    return Statistics(mean, maximum)


def _raise_if(bad: int, x: NDArray[Any]) -> None:
    if not bad:
        return
    wrong = int(x.size - np.isfinite(x).sum())
    if wrong:
        raise InputError(f"{wrong} of {x.size} values are NaN or infinite, which cannot be normalized")
    raise InputError(f"values up to {np.abs(x).max():g}: their sum or range overflows {x.dtype}; scale them")
