"""Activation ranges fitted to what streamed by: searched on a histogram, or clipped batch by batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sqlib._checks import check_bits, check_clip
from sqlib.codebook import Bounds, Histogram, fit_bounds
from sqlib.codebook.density import BINS as DENSITY_BINS
from sqlib.codebook.density import clip_density, clip_or_default
from sqlib.codebook.histogram import BINS
from sqlib.errors import InputError
from sqlib.quantizers.observers import HistogramObserver
from sqlib.quantizers.uniform import UniformQuantizer


class BoundsObserver(HistogramObserver):
    """Two passes: the range, then `bins` counts over it, on which `fit_bounds` searches.

    A histogram is an approximation: the search sees bin centres (and the two ends exactly). With 8,192 bins
    it finds DOBI's candidate up to ties that differ by less than 0.1 % in squared error; memory is 64 KB per
    call site however many images there are.

    Parameters
    ----------
    bits : int
        Bit-width of the quantizer that `finish` returns.
    method : str
        "dobi", "mse", or another method of `sqlib.codebook.fit_bounds`.
    one_sided : bool or None
        Keep the lower end ("dobi"). None: where the smallest value seen is not negative.
    bins : int
        Number of histogram bins.
    **options
        Passed on to `fit_bounds`.
    """

    def __init__(
        self,
        bits: int,
        *,
        method: str,
        one_sided: bool | None = False,
        bins: int = BINS,
        **options: Any,
    ) -> None:
        super().__init__(bits, percentile=100.0, bins=bins)
        self.method, self.one_sided, self.options = method, one_sided, options

    def finish(self) -> nn.Module:
        """The fitted quantizer."""
        self._check_seen()
        if self.histogram is None:
            raise InputError("no values reached this call site in the second calibration pass")
        one_sided = self.lower >= 0 if self.one_sided is None else self.one_sided
        return UniformQuantizer(
            fit_bounds(self.histogram, self.bits, method=self.method, one_sided=one_sided, **self.options)
        )


class DensityObserver:
    """DBDC as released: bounds of each batch by `sqlib.codebook.density`, then their mean over the batches.

    One pass; two numbers and a count are kept.

    Parameters
    ----------
    bits : int
        Bit-width of the quantizer that `finish` returns.
    clip : float or None
        Share of a batch's values that may go; None: 1e-5 at 8 bits, else 1e-4.
    integer_zero : bool
        Passed on to the bounds.
    """

    passes = 1

    def __init__(self, bits: int, *, clip: float | None = None, integer_zero: bool = False) -> None:
        self.bits, self.integer_zero = check_bits(bits), integer_zero
        self.clip = clip_or_default(check_clip(clip), bits)
        self.lower = self.upper = 0.0
        self.batches = 0

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch of activations of any shape; NaN or infinity raise `InputError`."""
        if x.numel() == 0:
            return
        values = x.detach().cpu()
        values = values if values.dtype == torch.float64 else values.float()
        low, high = (float(v) for v in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("the activations contain NaN or infinity")
        if low < high:
            histogram = Histogram(low, high, DENSITY_BINS)
            histogram.add(values.numpy())
            low, high = clip_density(histogram.counts, low, high, self.clip)
        self.batches += 1
        self.lower += (low - self.lower) / self.batches
        self.upper += (high - self.upper) / self.batches

    def finish(self) -> nn.Module:
        """The fitted quantizer."""
        if not self.batches:
            raise InputError("no values reached this call site during calibration")
        nan = torch.nan
        return UniformQuantizer(
            Bounds(self.lower, self.upper, self.bits, nan, "density", None, self.integer_zero, False)  # type: ignore[arg-type]
        )
