r"""Bounds of a uniform quantizer: two numbers (or two per channel) fitted to data.

With bits b and K = 2^b levels, the grid on [lower, upper] has the scale s = (upper - lower)/(K - 1):

.. math:: c = \operatorname{rint}(\operatorname{clip}((x - l)/s, 0, K - 1)), \qquad \hat{x} = c s + l

With ``integer_zero`` the lower end moves to the nearest multiple of s, l = rint(lower/s) s, as in DFSQ's
released weight quantizer (z = round(min/D) there): zero is then exactly a level whenever
lower <= 0 <= upper, so zero padding and post-ReLU zeros are free of error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib._checks import check_bits
from sqlib.errors import InputError

_LARGEST = float(np.finfo(np.float32).max)


class Grid(NamedTuple):
    """The three constants of the quantizer in the dtype it computes in; arrays of shape () or (channels,)."""

    lower: NDArray[Any]
    scale: NDArray[Any]
    top: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Bounds:
    """A fitted range.

    Attributes
    ----------
    lower, upper : ndarray of float64
        float64 arrays of shape () or, with an `axis`, (channels,).
    bits : int
        Bit-width the range was fitted for, 1 to 16.
    error : ndarray of float64
        Squared error, summed over the values, of quantizing the fitted data; shape as `lower`. NaN where
        only the range of the data was kept (streamed Min-Max).
    method : str
        "given", "minmax", "percentile", "density", "dobi", "dobi one-sided", "mse", ...; a percentile range
        that collapsed to a point says "percentile (collapsed: minmax)".
    axis : int or None
        Channel axis, None for one range for the whole tensor.
    integer_zero : bool
        Whether the lower end is snapped to a multiple of the scale.
    exact : bool
        False where `error` or the range comes from a histogram.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    bits: int
    error: NDArray[np.float64] = np.nan  # type: ignore[assignment]  # an array once it is made
    method: str = "given"
    axis: int | None = None
    integer_zero: bool = True
    exact: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", check_bits(self.bits))
        for name in ("lower", "upper", "error"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        axis: Any = self.axis
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, (int, np.integer))):
            raise InputError(f"Bounds: axis={axis!r}, expected an integer, or None for one range")
        for name in ("integer_zero", "exact"):
            flag: Any = getattr(self, name)
            if not isinstance(flag, (bool, np.bool_)):
                raise InputError(f"Bounds: {name}={flag!r}, expected True or False")
        expected = 0 if self.axis is None else 1
        if self.lower.ndim != expected or self.lower.shape != self.upper.shape:
            raise InputError(
                f"Bounds: lower has shape {self.lower.shape} and upper {self.upper.shape}, expected "
                + ("numbers (axis is None)" if self.axis is None else "one entry per channel each")
            )
        with np.errstate(invalid="ignore", over="ignore"):
            span = self.upper - self.lower
            held = (self.lower >= -_LARGEST) & (self.upper <= _LARGEST) & (span >= 0) & (span <= _LARGEST)
            fits = bool(np.all(held))
        if not fits:
            raise InputError(
                f"Bounds: lower={self.lower.tolist()} and upper={self.upper.tolist()}; expected finite "
                "numbers with lower <= upper that float32 can hold, and their difference too"
            )

    @property
    def levels(self) -> int:
        """Number of levels, 2^bits."""
        return 1 << self.bits

    @property
    def scale(self) -> NDArray[np.float64]:
        """Distance between neighbouring levels, (upper - lower)/(levels - 1); 0 for a single point."""
        return (self.upper - self.lower) / (self.levels - 1)

    def grid(self, dtype: DTypeLike = np.float32) -> Grid:
        """Constants for computing in `dtype` (float32 or float64).

        A range without extent (or one whose scale underflows in `dtype`) gets scale 1 and top 0: every
        value maps to `lower`, with no division by zero.
        """
        kind = _KINDS.get(dtype) if isinstance(dtype, type) else None
        if kind is None:
            kind = _floating(dtype)
        return grid_constants(self.lower, self.upper, self.bits, self.integer_zero, kind)


_KINDS: dict[type, np.dtype[Any]] = {kind: np.dtype(kind) for kind in (np.float32, np.float64, np.float16)}


def _floating(dtype: Any) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise InputError(f"dtype={dtype!r}: expected numpy.float32 or numpy.float64") from error
    if kind.type not in _KINDS:
        raise InputError(f"dtype={dtype!r}: expected numpy.float32 or numpy.float64")
    return kind


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    """A copy in float64; strings, complex numbers and objects are no bounds."""
    try:
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Bounds: {name} is {type(value).__name__}, expected numbers: {error}") from error
    if array.dtype.kind not in "uif":
        raise InputError(f"Bounds: {name} has dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64, copy=False)


def grid_constants(
    lower: NDArray[Any], upper: NDArray[Any], bits: int, integer_zero: bool, kind: np.dtype[Any]
) -> Grid:
    """The arithmetic of `Bounds.grid`; float64 throughout, rounded to `kind` once at the end."""
    last = (1 << bits) - 1
    exact_scale = (upper - lower) / last
    scale = exact_scale.astype(kind)
    flat = scale == 0
    scale = np.where(flat, kind.type(1), scale)
    low = lower.astype(kind)
    if integer_zero:
        zero = np.rint(lower / np.where(flat, 1.0, exact_scale)).astype(kind)
        low = np.where(flat, low, zero * scale)
    # + 0 turns -0.0 into 0.0, so that code 0 restores the same bits on every path
    return Grid(low + kind.type(0), scale, np.where(flat, 0, last).astype(kind))
