r"""A codebook of freely placed points: the data class, and the reference quantizer to the nearest point.

A value's code is the number of midpoints strictly below it, so a value exactly on a midpoint goes to the
lower point:

.. math:: c(x) = \#\{k : (q_k + q_{k+1})/2 < x\}, \qquad \hat{x} = q_{c(x)}

Values are compared exactly: midpoints are float64, and a float32 value is widened, never a midpoint rounded.
Every fast path must reproduce these codes bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib.codebook._arrays import as_array
from sqlib.errors import InputError


@dataclass(frozen=True, eq=False)
class Codebook:
    """Quantization points fitted to data.

    Attributes
    ----------
    points : ndarray of float64
        float64, shape (levels,) or (channels, levels), sorted along the last axis. Duplicates are possible
        for ``method="release"`` and ``"kmeans"``, which keep them.
    error : ndarray of float64
        Squared error of the fitted data, summed over the (weighted) values; shape () or (channels,).
    gap : ndarray of float64
        `error` over the error of the exact selection of as many points: 1 for ``method="exact"``, above 1
        where a heuristic lost something, inf where only the heuristic has an error, NaN where unknown.
    method : str
        "exact", "kmeans", "release", "exhaustive", or any name for points made otherwise.
    numerators : ndarray of int64 or None
        int64 of the shape of `points` with ``points = numerators / denominator``, when the candidates were on
        a lattice (a universal set, for one); else None.
    denominator : int or None
        D = words * 4**words of that lattice (times the reach, see `stretched`), else None.
    axis : int or None
        The axis of an array that holds its channels; None for one point set for all. Fitting sets 0, the axis
        it was given; activations (N, C, H, W) want ``dataclasses.replace(codebook, axis=1)``.
    """

    points: NDArray[np.float64]
    error: NDArray[np.float64]
    gap: NDArray[np.float64]
    method: str
    numerators: NDArray[np.int64] | None = None
    denominator: int | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        points = np.array(self.points, dtype=np.float64)
        if points.ndim not in (1, 2) or points.size == 0 or not np.isfinite(points).all():
            raise InputError(
                f"Codebook: points of shape {points.shape}, expected finite numbers of shape (levels,) or "
                "(channels, levels)"
            )
        if (np.diff(points, axis=-1) < 0).any():
            raise InputError("Codebook: the points are not sorted; sort them along the last axis")
        object.__setattr__(self, "points", points)
        for name in ("error", "gap"):
            array = np.array(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, np.broadcast_to(array, points.shape[:-1]).copy())
        if (self.numerators is None) != (self.denominator is None):
            raise InputError("Codebook: numerators and denominator belong together; give both or neither")
        if self.numerators is not None and self.denominator is not None:
            numerators = np.array(self.numerators)
            if numerators.dtype.kind not in "iu" or not np.array_equal(numerators / self.denominator, points):
                raise InputError("Codebook: numerators / denominator differ from the points")
            object.__setattr__(self, "numerators", numerators.astype(np.int64))
        if points.ndim == 2 and self.axis is None:
            object.__setattr__(self, "axis", 0)
        if (points.ndim == 2) != (self.axis is not None):
            raise InputError(f"Codebook: axis={self.axis} with points of shape {points.shape}")

    @property
    def levels(self) -> int:
        """Number of points, duplicates included."""
        return int(self.points.shape[-1])

    def stretched(self, reach: float) -> Codebook:
        """The points divided by `reach`: for data of which ``reach * values`` was fitted.

        On a lattice the numerators stay those of the universal set and the denominator becomes ``reach * D``,
        so a product with a point costs the same shifts and additions, and the factor goes into the scale.

        Raises
        ------
        InputError
            Unless `reach` is a power of two up to 1 that leaves the denominator a whole number.
        """
        if not 0 < reach <= 1 or math.frexp(reach)[0] != 0.5:
            raise InputError(f"reach={reach!r}: expected a power of two up to 1, e.g. 0.5")
        denominator = self.denominator
        if denominator is not None:
            if denominator * reach % 1:
                raise InputError(f"reach={reach!r} is finer than the lattice, which is 1/{denominator} wide")
            denominator = int(denominator * reach)
        return replace(self, points=self.points / reach, error=self.error / reach**2, denominator=denominator)

    def midpoints(self, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """The decision thresholds t: a value x of `dtype` has the code ``count(t < x)``.

        Shape (levels - 1,) or (channels, levels - 1). For float32 each is rounded down to a float32, which
        changes the code of no float32 value.
        """
        exact = (self.points[..., :-1] + self.points[..., 1:]) / 2
        rounded = exact.astype(dtype)
        down = np.nextafter(rounded, np.array(-np.inf, rounded.dtype))
        return np.where(rounded > exact, down, rounded)


def _channels_first(x: NDArray[Any], codebook: Codebook) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """View of `x` as (channels, ...) and the points as (channels, levels); one channel without an axis."""
    if codebook.axis is None:
        return x[None], codebook.points[None]
    if not -x.ndim <= codebook.axis < x.ndim:
        raise InputError(
            f"the codebook is per channel of axis {codebook.axis}, the array has {x.ndim} dimensions"
        )
    channels = len(codebook.points)
    if x.shape[codebook.axis] != channels:
        raise InputError(
            f"the codebook has {channels} channels, axis {codebook.axis} of the array "
            f"{x.shape[codebook.axis]}"
        )
    return np.moveaxis(x, codebook.axis, 0), codebook.points


def quantize(x: NDArray[Any], codebook: Codebook) -> NDArray[Any]:
    """Code of the nearest point for every value; a tie goes to the lower point.

    Parameters
    ----------
    x : ndarray
        Floating-point array of any shape; infinities get the end points.
    codebook : Codebook
        Its `axis` says which axis of `x` holds the channels.

    Returns
    -------
    uint8 array of x's shape (uint16 above 256 levels). O(log levels) per value.

    Raises
    ------
    InputError
        For NaN, values that are not floating-point, and a channel axis that does not fit.
    """
    x = as_array(x, "quantize")
    if x.dtype.kind != "f":
        raise InputError(
            f"quantize: dtype {x.dtype}, expected floating-point values; convert the array first"
        )
    if np.isnan(x).any():
        raise InputError(f"quantize: {int(np.isnan(x).sum())} of {x.size} values are NaN, which has no code")
    rows, points = _channels_first(x, codebook)
    codes = np.empty(x.shape, np.uint8 if codebook.levels <= 256 else np.uint16)
    targets, _ = _channels_first(codes, codebook)
    for c, thresholds in enumerate((points[:, :-1] + points[:, 1:]) / 2):
        targets[c, ...] = np.searchsorted(thresholds, rows[c].astype(np.float64), side="left")
    return codes


def dequantize(codes: NDArray[Any], codebook: Codebook, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """The points of integer codes, as an array of `dtype`.

    Raises
    ------
    InputError
        For codes that are no integers or outside 0 .. levels - 1, and a channel axis that does not fit.
    """
    codes = as_array(codes, "dequantize")
    if codes.dtype.kind not in "iu":
        raise InputError(f"dequantize: codes of dtype {codes.dtype}, expected integers")
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= codebook.levels):
        raise InputError(
            f"dequantize: codes from {codes.min()} to {codes.max()}, expected 0 to {codebook.levels - 1}"
        )
    rows, points = _channels_first(codes, codebook)
    values = np.empty(codes.shape, dtype)
    targets, _ = _channels_first(values, codebook)
    for c, table in enumerate(points):
        targets[c, ...] = table[rows[c]]
    return values
