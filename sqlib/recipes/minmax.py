"""Min-Max: the range of the data is the range of the quantizer. The baseline of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlib._checks import FULL_PRECISION, check_flag
from sqlib.engine.recipe import Observer, Recipe, check_weight_per
from sqlib.engine.registry import register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib.engine.site import Site


@register("minmax")
@dataclass(frozen=True)
class MinMax(Recipe):
    """Asymmetric uniform quantization over [min, max] (with an integer zero point DFSQ's weight quantizer).

    Parameters
    ----------
    bits
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    weight_per
        "channel": one range per output channel of each weight; "tensor": one per weight.
    integer_zero
        True: zero is a level, as integer arithmetic with zero points wants it and DFSQ has it; the range
        moves by up to half a step for it. False: the bounds are the extremes themselves, as in 2DQuant.

    Notes
    -----
    Activations: one range per call site and tensor over all calibration batches; one pass.
    """

    weight_per: str = "channel"
    integer_zero: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight_per(self.weight_per)
        check_flag("integer_zero", self.integer_zero)

    def weight_quantizer(self, weight: Tensor, site: Site) -> nn.Module | None:
        """Min-Max quantizer of one weight."""
        from sqlib.codebook import fit_bounds
        from sqlib.quantizers import UniformQuantizer

        if self.weight_bits == FULL_PRECISION:
            return None
        axis = site.weight_axis if self.weight_per == "channel" else None
        bounds = fit_bounds(
            weight.detach().cpu().double().numpy(),
            self.weight_bits,
            axis=axis,
            method="minmax",
            integer_zero=self.integer_zero,
        )
        return UniformQuantizer(bounds)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Running minimum and maximum."""
        from sqlib.quantizers import RangeObserver

        if self.activation_bits == FULL_PRECISION:
            return None
        return RangeObserver(self.activation_bits, integer_zero=self.integer_zero)
