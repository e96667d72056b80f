"""The uniform quantizer in NumPy: integer codes and back, the reference that every fast path must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib.codebook._arrays import as_array
from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError


def _shaped_grid(q: Bounds, ndim: int, kind: np.dtype[Any]) -> list[NDArray[Any]]:
    grid = q.grid(kind)
    if q.axis is None:
        return list(grid)
    if not -ndim <= q.axis < ndim:
        raise InputError(f"bounds are per channel of axis {q.axis}, the array has {ndim} dimensions")
    shape = [1] * ndim
    shape[q.axis] = -1
    return [g.reshape(shape) for g in grid]


def _check_channels(x: NDArray[Any], q: Bounds) -> None:
    if q.axis is not None and x.shape[q.axis] != q.lower.size:
        raise InputError(f"bounds have {q.lower.size} channels, axis {q.axis} of the array {x.shape[q.axis]}")


def compute_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype the quantizer computes in: float64 for float64, float32 for everything narrower."""
    given = np.dtype(dtype)
    if given.kind != "f":
        raise InputError(f"dtype {given}: expected floating-point values; convert the array first")
    return np.dtype(np.float64) if given.itemsize >= 8 else np.dtype(np.float32)


def quantize(x: NDArray[Any], q: Bounds) -> NDArray[Any]:
    """Integer codes of `x`: ``rint(clip((x - lower)/scale, 0, levels - 1))``.

    Parameters
    ----------
    x : ndarray
        Floating-point array of any shape; float16 is computed in float32. Infinities are clipped.
    q : Bounds
        The fitted bounds.

    Returns
    -------
    uint8 array of x's shape (uint16 above 8 bits).

    Raises
    ------
    InputError
        For NaN (no code stands for it) and for a channel axis that does not fit.
    """
    x = as_array(x, "quantize")
    kind = compute_dtype(x.dtype)
    lower, scale, top = _shaped_grid(q, x.ndim, kind)
    _check_channels(x, q)
    if np.isnan(x).any():
        raise InputError(f"quantize: {int(np.isnan(x).sum())} of {x.size} values are NaN, which has no code")
    with np.errstate(over="ignore"):
        codes = np.rint(np.clip((x.astype(kind) - lower) / scale, kind.type(0), top))
    return codes.astype(np.uint8 if q.bits <= 8 else np.uint16)


def dequantize(codes: NDArray[Any], q: Bounds, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Values of integer codes: ``codes * scale + lower``, as an array of `dtype`.

    Raises
    ------
    InputError
        For codes that are no integers or outside 0 .. levels - 1.
    """
    codes = as_array(codes, "dequantize")
    if codes.dtype.kind not in "iu":
        raise InputError(f"dequantize: codes of dtype {codes.dtype}, expected integers")
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= q.levels):
        raise InputError(
            f"dequantize: codes from {codes.min()} to {codes.max()}, expected 0 to {q.levels - 1}"
        )
    kind = compute_dtype(dtype)
    lower, scale, _ = _shaped_grid(q, codes.ndim, kind)
    _check_channels(codes, q)
    with np.errstate(over="ignore"):  # a level beyond float16 becomes infinite, as in torch
        return np.asarray(codes.astype(kind) * scale + lower).astype(dtype)
