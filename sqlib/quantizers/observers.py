"""What a call site's activations looked like: streamed statistics, independent of how many images came by."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqlib.codebook import Histogram, fit_bounds
from sqlib.codebook.bounds import Bounds
from sqlib.codebook.histogram import BINS
from sqlib.errors import InputError
from sqlib.quantizers.uniform import UniformQuantizer


class RangeObserver:
    """Keeps the smallest and the largest value: one pass, 16 bytes.

    Parameters
    ----------
    bits : int
        Bit-width of the quantizer that `finish` returns.
    integer_zero : bool
        Passed on to the bounds.
    """

    passes = 1

    def __init__(self, bits: int, *, integer_zero: bool = True) -> None:
        self.bits, self.integer_zero = bits, integer_zero
        self.lower, self.upper = math.inf, -math.inf

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch of activations of any shape; NaN or infinity raise `InputError`."""
        if x.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(x.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("the activations contain NaN or infinity")
        self.lower, self.upper = min(self.lower, low), max(self.upper, high)

    def finish(self) -> nn.Module:
        """The fitted quantizer."""
        self._check_seen()
        nan = torch.nan
        return UniformQuantizer(
            Bounds(self.lower, self.upper, self.bits, nan, "minmax", None, self.integer_zero, False)  # type: ignore[arg-type]
        )

    def _check_seen(self) -> None:
        if self.lower > self.upper:
            raise InputError("no values reached this call site during calibration")


class HistogramObserver(RangeObserver):
    """Percentiles in two passes: the range, then a histogram over it.

    The percentiles are within one bin width, (max - min)/`bins`, of those of all values together; memory is
    64 KB per call site however many images there are.

    Parameters
    ----------
    bits, integer_zero : int, bool
        As in `RangeObserver`.
    percentile : float
        Upper percentile, above 50 and up to 100; the lower one is 100 minus it.
    bins : int
        Number of histogram bins.
    """

    passes = 2

    def __init__(self, bits: int, *, percentile: float, integer_zero: bool = True, bins: int = BINS) -> None:
        super().__init__(bits, integer_zero=integer_zero)
        self.percentile, self.bins = percentile, bins
        self.histogram: Histogram | None = None

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch; `number` is 0 in the first pass over the data and 1 in the second."""
        if number == 0:
            super().update(x)
            return
        if x.numel() == 0:
            return
        self._check_seen()
        if self.histogram is None:
            self.histogram = Histogram(self.lower, self.upper, self.bins)
        values = x.detach().cpu()
        self.histogram.add((values if values.dtype == torch.float64 else values.float()).numpy())

    def finish(self) -> nn.Module:
        """The fitted quantizer."""
        self._check_seen()
        if self.histogram is None:
            raise InputError("no values reached this call site in the second calibration pass")
        bounds = fit_bounds(
            self.histogram,
            self.bits,
            method="percentile",
            percentile=self.percentile,
            integer_zero=self.integer_zero,
        )
        return UniformQuantizer(bounds)
