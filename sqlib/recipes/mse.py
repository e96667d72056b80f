"""Least squares bounds: what DOBI's search would find if both ends moved freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlib._checks import FULL_PRECISION, check_steps
from sqlib.engine.recipe import Observer, Recipe, check_weight_per
from sqlib.engine.registry import register
from sqlib.recipes.dobi import searched_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib.engine.site import Site


@register("mse")
@dataclass(frozen=True)
class MSE(Recipe):
    """As `DOBI`, with the least squared error over pairs of bounds (`sqlib.codebook.mse`). Ours.

    Parameters
    ----------
    bits
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    steps
        T; the grid holds T (2T + 1) pairs, among them every candidate of DOBI with the same T.
    weight_per
        "tensor" (as in 2DQuant) or "channel".

    Notes
    -----
    Weights: a grid optimum, refined, its error recomputed from the weight. Activations: the same on a
    histogram of 8,192 bins per call site, an approximation; two passes over the calibration data.
    """

    steps: int = 100
    weight_per: str = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        check_weight_per(self.weight_per)

    def weight_quantizer(self, weight: Tensor, site: Site) -> nn.Module | None:
        """Least squares quantizer of one weight."""
        return searched_weight(self, "mse", weight, site, self.weight_per, steps=self.steps)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Range, then histogram."""
        from sqlib.quantizers import BoundsObserver

        if self.activation_bits == FULL_PRECISION:
            return None
        return BoundsObserver(self.activation_bits, method="mse", steps=self.steps)
