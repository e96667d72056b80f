"""Min-Max: the range of the data is the range of the quantizer. The baseline of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlib.engine.options import choice, flag
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@register("minmax")
@dataclass(frozen=True)
class MinMax(Recipe):
    """Asymmetric uniform quantization over [min, max] (with an integer zero point DFSQ's weight quantizer).

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    weight_per : str
        "channel": one range per output channel of each weight; "tensor": one per weight.
    integer_zero : bool
        True: zero is a level, as integer arithmetic with zero points wants it and DFSQ has it; the range
        moves by up to half a step for it. False: the bounds are the extremes themselves, as in 2DQuant.

    Notes
    -----
    Activations: one range per call site and tensor over all calibration batches; one pass.
    """

    weight_per: str = choice("channel", "tensor")
    integer_zero: bool = flag(True)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Min-Max quantizer of one weight."""
        from sqlib.codebook import fit_bounds
        from sqlib.quantizers import UniformQuantizer

        axis = site.weight_axis if self.weight_per == "channel" else None
        bounds = fit_bounds(
            weight,
            self.weight_bits,
            axis=axis,
            method="minmax",
            integer_zero=self.integer_zero,
        )
        return UniformQuantizer(bounds)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Running minimum and maximum."""
        from sqlib.quantizers import RangeObserver

        return RangeObserver(self.activation_bits, integer_zero=self.integer_zero)
