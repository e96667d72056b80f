"""Percentile: cut the tails of the activations before spreading the levels (FQN, Li et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlib.engine.options import choice, flag, number
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@register("percentile")
@dataclass(frozen=True)
class Percentile(Recipe):
    """As `MinMax`, but activations are clipped at a percentile of both tails.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    percentile : float
        Upper percentile of the activations, above 50 and up to 100; the lower bound is the (100 -
        percentile)-th. No SR paper prints its value; 99.9 is ours.
    weight_per, integer_zero : str, bool
        As in `MinMax`.
    weight_percentile : float
        The same for weights; 100 (the default) is Min-Max.

    Notes
    -----
    Two passes over the calibration data: range, then a histogram of 8,192 bins per call site. The percentile
    is within one bin width of the exact one; memory does not grow with the number of images. A post-ReLU site
    keeps its lower bound at exactly 0, and a site whose percentiles coincide (almost all values equal)
    falls back to its full range.
    """

    percentile: float = number(99.9, 50, 100, above=True)
    weight_per: str = choice("channel", "tensor")
    weight_percentile: float = number(100.0, 50, 100, above=True)
    integer_zero: bool = flag(True)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Percentile (by default Min-Max) quantizer of one weight."""
        from sqlib.codebook import fit_bounds
        from sqlib.quantizers import UniformQuantizer

        bounds = fit_bounds(
            weight,
            self.weight_bits,
            method="minmax" if self.weight_percentile == 100.0 else "percentile",
            percentile=self.weight_percentile,
            axis=site.weight_axis if self.weight_per == "channel" else None,
            integer_zero=self.integer_zero,
        )
        return UniformQuantizer(bounds)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Two-pass histogram."""
        from sqlib.quantizers import HistogramObserver

        return HistogramObserver(
            self.activation_bits, percentile=self.percentile, integer_zero=self.integer_zero
        )
