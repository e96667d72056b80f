r"""Fused uniform fake-quantization on the CPU: subtract, divide, clip, round and restore in one pass.

.. math:: c = \operatorname{rint}(\operatorname{clip}((x - l)/s, 0, t)), \qquad \hat{x} = c s + l

with lower bound :math:`l`, scale :math:`s` and top code :math:`t` (levels - 1; 0 for a range that is a single
point, which then maps everything to :math:`l`). NaN stays NaN. Ties go to the even code, as in
`numpy.rint` and `torch.round`, and no operation is fused or reordered, so the result equals the same
formula evaluated step by step, bit for bit.

Cost: one read and one write per value; no temporary arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sqlib.errors import InputError
from sqlib.kernels._jit import jit
from sqlib.kernels._threads import VALUES_PER_THREAD, run_split


@jit
def _tensor_kernel(x, lower, scale, top, out):  # type: ignore[no-untyped-def]
    zero = top - top  # a zero of the array's own type: a literal 0.0 would promote float32 to float64
    for i in range(x.size):
        t = (x[i] - lower) / scale
        t = zero if t < zero else t  # two comparisons that are false for NaN, which therefore passes
        t = top if t > top else t
        out[i] = np.rint(t) * scale + lower


@jit
def _channel_kernel(x, lower, scale, top, out):  # type: ignore[no-untyped-def]
    outer, channels, inner = x.shape
    for n in range(outer):
        for c in range(channels):
            low = lower[c]
            step = scale[c]
            last = top[c]
            zero = last - last
            for i in range(inner):
                t = (x[n, c, i] - low) / step
                t = zero if t < zero else t
                t = last if t > last else t
                out[n, c, i] = np.rint(t) * step + low


def fake_quantize(
    x: np.ndarray,
    lower: Any,
    scale: Any,
    top: Any,
    *,
    axis: int | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Quantize and restore `x` in one pass.

    Parameters
    ----------
    x : ndarray
        float32 or float64, any shape, also empty or read-only. Read in place when C-contiguous, otherwise
        a contiguous copy is made first.
    lower, scale, top
        The grid: numbers when `axis` is None, otherwise one-dimensional with ``x.shape[axis]`` entries.
        ``scale > 0`` and ``top >= 0`` are preconditions; see `sqlib.codebook.Bounds.grid`.
    axis : int or None
        The channel axis, or None for one grid for the whole array.
    out : ndarray or None
        C-contiguous array of x's shape and dtype to write to; may be `x` itself.
    threads : int
        Upper limit on threads (per-tensor grids only; small arrays stay on one).

    Returns
    -------
    ndarray of x's shape and dtype (`out` if given).

    Raises
    ------
    InputError
        For another dtype, an `out` that does not fit, or a grid of the wrong length.
    """
    if x.dtype not in (np.float32, np.float64):
        raise InputError(
            f"fake_quantize: dtype {x.dtype}, expected float32 or float64; convert the array first"
        )
    source = x if x.flags.c_contiguous else np.ascontiguousarray(x)
    if out is None:
        out = np.empty(x.shape, x.dtype)
    elif (
        out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous or not out.flags.writeable
    ):
        raise InputError(
            f"fake_quantize: out has shape {out.shape} and dtype {out.dtype}, expected a writable "
            "C-contiguous "
            f"array of shape {x.shape} and dtype {x.dtype}"
        )
    kind = x.dtype.type
    if axis is None:
        grid = kind(lower), kind(scale), kind(top)
        flat, target = source.reshape(-1), out.reshape(-1)

        def part(start: int, stop: int) -> None:
            _tensor_kernel(flat[start:stop], *grid, target[start:stop])

        run_split(part, source.size, min(threads, source.size // VALUES_PER_THREAD))
        return out
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"fake_quantize: axis={axis} for an array of shape {x.shape}")
    axis %= x.ndim
    channels = x.shape[axis]
    arrays = [np.ascontiguousarray(v, dtype=kind) for v in (lower, scale, top)]
    if any(a.shape != (channels,) for a in arrays):
        raise InputError(
            f"fake_quantize: lower, scale and top have shapes {[a.shape for a in arrays]}, expected "
            f"({channels},) "
            f"for axis {axis} of an array of shape {x.shape}"
        )
    shape = (int(np.prod(x.shape[:axis])), channels, int(np.prod(x.shape[axis + 1 :])))
    _channel_kernel(source.reshape(shape), *arrays, out.reshape(shape))
    return out
