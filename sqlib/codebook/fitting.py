"""`fit_bounds`: one call for every way to choose the range of a uniform quantizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import (
    as_integer,
    check_bits,
    check_clip,
    check_integer,
    check_percentile,
    check_steps,
    check_variant,
)
from sqlib.codebook._arrays import as_array
from sqlib.codebook._search import Search
from sqlib.codebook.bounds import Bounds, grid_constants
from sqlib.codebook.density import BINS, clip_density, clip_or_default
from sqlib.codebook.dobi import search_dobi
from sqlib.codebook.histogram import Histogram
from sqlib.codebook.mse import search_mse
from sqlib.codebook.oracle import TINY, flat, smallest_largest
from sqlib.errors import InputError

_LARGEST = float(np.finfo(np.float32).max)
METHODS = ("minmax", "percentile", "density", "dobi", "mse")


class _Options(NamedTuple):
    bits: int
    method: str
    percentile: float
    clip: float
    steps: int
    one_sided: bool
    variant: str
    integer_zero: bool
    threads: int


class _Fit(NamedTuple):
    lower: float
    upper: float
    error: float
    method: str


def fit_bounds(
    values: Any,
    bits: int,
    *,
    method: str = "mse",
    percentile: float = 99.9,
    clip: float | None = None,
    steps: int = 100,
    one_sided: bool = False,
    variant: str = "release",
    axis: int | None = None,
    integer_zero: bool | None = None,
    threads: int = 1,
) -> Bounds:
    """Fit the range of a uniform quantizer to data.

    Parameters
    ----------
    values
        Array of any shape, or a `Histogram` (then `axis` must be None, and the result is an approximation:
        it sees bin centres only).
    bits : int
        1 to 16.
    method : str
        "minmax": smallest and largest value. "percentile": the `percentile`-th and (100 - `percentile`)-th
        percentile, linearly interpolated as in `numpy.percentile`; a range that collapses to a point while
        the data does not (sparse activations) falls back to Min-Max and says so in `method`.
        "density": DBDC, see `sqlib.codebook.density`. "dobi": 2DQuant's search, the best of `steps` shrunken
        ranges, see `sqlib.codebook.dobi`. "mse": the least squared error over a two-dimensional grid that
        holds every range of DOBI, then locally refined, see `sqlib.codebook.mse`: a grid optimum, not a proof
        over all real pairs.
    percentile : float
        Above 50, up to 100 (= Min-Max).
    clip : float or None
        "density": share of the values that may go, 0 to below 1; None: as released (1e-5 at 8 bits, else
        1e-4). On a `Histogram` its own bins are used instead of 2,048.
    steps : int
        "dobi" and "mse": T, 1 to 1000; ranges shrink by 1/(2T) of the data's range.
    one_sided : bool
        "dobi": keep the lower end.
    variant : str
        "dobi", one-sided: "release" (steps of 1/T) or "paper" (1/(2T)).
    axis : int or None
        Fit one range per index of this axis, e.g. 0 for the output channels of a convolution weight.
    integer_zero : bool or None
        See `sqlib.codebook.bounds`. None: as the method's source has it, True for "minmax" and "percentile",
        False for "density", "dobi" and "mse".
    threads : int
        Upper limit on threads; results do not depend on it.

    Returns
    -------
    Bounds; ``error`` is the squared error of the quantized data, recomputed from `values` (from the bin
    centres for a `Histogram`).

    Raises
    ------
    InputError
        For empty data, NaN or infinite values, bad bits, an unknown method, option or axis.

    Notes
    -----
    O(n) for Min-Max and density; O(n) expected for percentiles (selection). "dobi" and "mse" sort small data
    and bin large data in one pass; candidates then cost O(levels) each, and the few that the bins cannot
    tell apart are compared on the data. Half-precision values are computed in float32 and float64.
    """
    bits = check_bits(bits)
    if method not in METHODS:
        raise InputError(f"fit_bounds: method={method!r}, expected one of {', '.join(METHODS)}")
    one_sided = _flag("one_sided", one_sided)
    if integer_zero is None:
        snapped = method in ("minmax", "percentile")
    else:
        snapped = _flag("integer_zero", integer_zero)
    options = _Options(
        bits,
        method,
        check_percentile(percentile),
        clip_or_default(check_clip(clip), bits),
        check_steps(steps),
        one_sided,
        check_variant(variant),
        snapped,
        check_integer("threads", threads, 1, 2**31),
    )
    given, axis = axis, as_integer(axis)
    if axis is None and given is not None:
        raise InputError(f"axis={given!r}: expected an integer, or None for one range")
    if isinstance(values, Histogram):
        if axis is not None:
            raise InputError("fit_bounds: axis must be None for a Histogram (fit one histogram per channel)")
        if values.count == 0:
            raise InputError("fit_bounds: the histogram is empty; add at least one value")
        fits = [_fit(values, options)]
    else:
        fits = [_fit(row, options) for row in _rows(values, axis)]
    shape: tuple[int, ...] = () if axis is None else (len(fits),)
    lower, upper, error = (np.array([f[k] for f in fits]).reshape(shape) for k in range(3))
    name = next((f.method for f in fits if f.method != method), method)
    exact = not isinstance(values, Histogram)
    return Bounds(lower, upper, bits, error, name, axis, snapped, exact)


def _flag(name: str, value: Any) -> bool:
    """True or False, NumPy's too; nothing else is taken for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name}={value!r}: expected True or False")
    return bool(value)


def _rows(values: Any, axis: int | None) -> list[NDArray[np.floating]]:
    """The data of each range as a contiguous array (n,)."""
    x = as_array(values, "fit_bounds")
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise InputError(f"fit_bounds: {x.size} values of dtype {x.dtype}, expected at least one real number")
    if axis is None:
        return [flat(x)]
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"fit_bounds: axis={axis!r} for values of shape {x.shape}")
    return [flat(row) for row in np.moveaxis(x, axis, 0)]


def _fit(values: NDArray[np.floating] | Histogram, o: _Options) -> _Fit:
    first, last = (values.lower, values.upper) if isinstance(values, Histogram) else smallest_largest(values)
    if not last - first <= _LARGEST:
        raise InputError(
            f"fit_bounds: the values reach from {first:g} to {last:g}, more than float32 can hold; "
            "rescale them"
        )
    searched = o.method in ("dobi", "mse")
    if searched and last - first > TINY:
        search = Search(values, (first, last), o.bits, o.integer_zero, o.threads)
        if o.method == "mse":
            return _Fit(*search_mse(search, o.steps), "mse")
        name = "dobi one-sided" if o.one_sided else "dobi"
        return _Fit(*search_dobi(search, o.steps, o.one_sided, o.variant), name)
    lower, upper, name = first, last, o.method
    if o.method == "density" and first < last:
        lower, upper = clip_density(_counts(values, first, last), first, last, o.clip)
    elif o.method == "percentile":
        low, high = _percentiles(values, o.percentile)
        if low < high or first == last:
            lower, upper = low, high
        else:
            name = "percentile (collapsed: minmax)"
    return _Fit(lower, upper, _error(values, lower, upper, o), name)


def _counts(values: NDArray[np.floating] | Histogram, lower: float, upper: float) -> NDArray[np.int64]:
    if isinstance(values, Histogram):
        return values.counts
    histogram = Histogram(lower, upper, BINS)
    histogram.add(values)
    return histogram.counts


def _percentiles(values: NDArray[np.floating] | Histogram, percentile: float) -> tuple[float, float]:
    if isinstance(values, Histogram):
        return values.percentile(100.0 - percentile), values.percentile(percentile)
    low, high = np.percentile(values.astype(np.float64, copy=False), [100.0 - percentile, percentile])
    return float(low), float(high)


def _error(values: NDArray[np.floating] | Histogram, lower: float, upper: float, o: _Options) -> float:
    """Squared error of one range on the data, or on the bin centres."""
    from sqlib.kernels.uniform_error import squared_errors

    grid = grid_constants(np.array([lower]), np.array([upper]), o.bits, o.integer_zero, np.dtype(np.float64))
    if not isinstance(values, Histogram):
        return float(squared_errors(values, grid.lower, grid.scale, grid.top, threads=o.threads)[0])
    centres = values.centres()
    restored = np.rint(np.clip((centres - grid.lower) / grid.scale, 0, grid.top)) * grid.scale + grid.lower
    return float(np.dot(np.square(centres - restored), values.counts))
