"""A histogram from which points of a universal set can be chosen exactly; it streams and adds."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook._arrays import as_array
from sqlib.codebook.universal import WORDS, denominator
from sqlib.errors import InputError

DENOMINATORS = tuple(denominator(words) for words in WORDS)


class LatticeHistogram:
    """Counts and sums of residuals over the midpoint lattice of a universal set.

    All that a choice of points and its squared error need to know about the data, in 64 KB per channel (four
    word sets) however many values were added. Histograms of parts of the data add up: ``a + b``.

    Parameters
    ----------
    denominator : int
        D = words * 4**words: 32, 192, 1024 (default) or 5120. Points are then integers over D.
    channels : int or None
        Number of channels, or None for values that all share one set of points.

    Attributes
    ----------
    counts : ndarray of float64
        float64 (channels, 4D + 1), number (or weight) of values per bin of width 1/(2D), from -1.
    sums : ndarray of float64
        float64 of the same shape: sum of D x - c, where c is the integer at an edge of the bin.
    squares : ndarray of float64
        float64 (channels,): sum of the squares of those residuals.

    Notes
    -----
    Values outside [-1, 1] by at most 4 float32 ulp are moved onto the end; further out they raise. Counts are
    exact up to 2^53 values; the squared error of a choice of points is exact to 1e-9.
    """

    def __init__(self, denominator: int = 1024, channels: int | None = None) -> None:
        if denominator not in DENOMINATORS:
            raise InputError(
                f"LatticeHistogram: denominator={denominator!r}, expected one of "
                f"{', '.join(map(str, DENOMINATORS))} (words * 4**words)"
            )
        self.denominator = int(denominator)
        self.channels = None if channels is None else _positive("channels", channels)
        shape = (self.channels or 1, 4 * self.denominator + 1)
        self.counts: NDArray[np.float64] = np.zeros(shape)
        self.sums: NDArray[np.float64] = np.zeros(shape)
        self.squares: NDArray[np.float64] = np.zeros(shape[0])
        self._empty = True

    @property
    def count(self) -> NDArray[np.float64]:
        """Number (or weight) of values per channel, shape (channels,); () without channels."""
        return self.counts.sum(axis=1).reshape(() if self.channels is None else (-1,))

    def add(self, values: Any, *, axis: int = 0, sample_weight: Any = None) -> None:
        """Add values within [-1, 1]; either all of them, or (on an error) none.

        Parameters
        ----------
        values
            Real numbers of any shape; with channels, `axis` holds them. float32 and float64 arrays are read
            in place when C-contiguous.
        axis : int
            The axis of the channels (1 for activations (N, C, H, W)); ignored without channels.
        sample_weight
            Non-negative weights, of the shape of `values` or broadcastable to it.

        Raises
        ------
        InputError
            For NaN, infinity, values outside [-1, 1], bad weights, a wrong number of channels.

        Notes
        -----
        O(n), a nanosecond per value; no temporary array grows with n unless the dtype or the memory layout
        needs a copy.
        """
        from sqlib.kernels.lattice import add_lattice

        x = real_array(values)
        if x.size == 0:
            return
        if self.channels is None:
            axis, x = 0, x.reshape(1, -1)
        elif not -x.ndim <= axis < x.ndim or x.shape[axis] != self.channels:
            raise InputError(
                f"LatticeHistogram: values of shape {x.shape}, expected {self.channels} channels on axis "
                f"{axis}"
            )
        axis %= x.ndim
        shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
        weights = (
            None if sample_weight is None else weight_array(sample_weight, np.shape(values)).reshape(shape)
        )
        part = LatticeHistogram(self.denominator, self.channels)
        three = np.ascontiguousarray(x).reshape(shape)
        if not add_lattice(three, weights, self.denominator, part.counts, part.sums, part.squares):
            raise InputError(f"LatticeHistogram: {describe_outside(x)}")
        if self._empty:  # adding to zeros would touch as much memory again
            self.counts, self.sums, self.squares, self._empty = part.counts, part.sums, part.squares, False
        else:
            self += part

    def __iadd__(self, other: LatticeHistogram) -> LatticeHistogram:
        if not isinstance(other, LatticeHistogram):
            return NotImplemented
        if (self.denominator, self.channels) != (other.denominator, other.channels):
            raise InputError(
                f"LatticeHistogram: cannot add denominator {other.denominator} with channels "
                f"{other.channels} to "
                f"denominator {self.denominator} with channels {self.channels}"
            )
        self._empty = self._empty and other._empty
        self.counts += other.counts
        self.sums += other.sums
        self.squares += other.squares
        return self

    def __add__(self, other: LatticeHistogram) -> LatticeHistogram:
        if not isinstance(other, LatticeHistogram):
            return NotImplemented
        total = LatticeHistogram(self.denominator, self.channels)
        total += self
        total += other
        return total

    def joined(self) -> LatticeHistogram:
        """All channels as one."""
        total = LatticeHistogram(self.denominator)
        total.counts, total.sums = (v.sum(axis=0, keepdims=True) for v in (self.counts, self.sums))
        total.squares, total._empty = self.squares.sum(keepdims=True), self._empty
        return total

    def error(self, numerators: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Squared error of sending every value to the nearest of the sorted points ``numerators /
        denominator``.

        `numerators`: integers (levels,) or (channels, levels). Returns float64 (channels,), or () without
        channels. O(bins) per channel.
        """
        from sqlib.kernels.lattice import lattice_error

        table = np.asarray(numerators, dtype=np.int64)
        if table.ndim not in (1, 2) or table.size == 0 or (np.diff(table, axis=-1) < 0).any():
            raise InputError(
                "LatticeHistogram.error: expected sorted integers (levels,) or (channels, levels)"
            )
        table = np.ascontiguousarray(np.broadcast_to(table, (len(self.counts), table.shape[-1])))
        errors = lattice_error(self.counts, self.sums, self.squares, self.denominator, table)
        return errors.reshape(() if self.channels is None else (-1,))


def real_array(values: Any) -> NDArray[Any]:
    """`values` as a float32 or float64 array (half precision widened, integers as float64)."""
    x = as_array(values, "fit_codebook")
    if x.dtype.kind not in "fiub":
        raise InputError(f"values of dtype {x.dtype}: expected real numbers")
    if x.dtype in (np.float32, np.float64):
        return x.astype(x.dtype.newbyteorder("="), copy=False)
    return x.astype(np.float32 if x.dtype == np.float16 else np.float64)


def weight_array(sample_weight: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Weights as a float64 array of `shape`, checked."""
    w = np.asarray(sample_weight)
    if w.dtype.kind not in "fiub":
        raise InputError(f"sample_weight of dtype {w.dtype}: expected real numbers")
    try:
        w = np.broadcast_to(w.astype(np.float64), shape)
    except ValueError:
        raise InputError(f"sample_weight of shape {w.shape} for values of shape {shape}") from None
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise InputError("sample_weight: expected finite numbers, none below 0")
    return w


def describe_outside(x: NDArray[Any]) -> str:
    """What is wrong with values that are not all finite and within [-1, 1], and what to do."""
    bad = int((~np.isfinite(x)).sum())
    if bad:
        return f"{bad} of {x.size} values are NaN or infinite; quantize finite data only"
    return (
        f"values from {x.min():.9g} to {x.max():.9g}, expected them within [-1, 1]; normalize the data first "
        "(divide by its largest magnitude)"
    )


def _positive(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise InputError(f"{name}={value!r}: expected a positive integer")
    return number
