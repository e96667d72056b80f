"""Least squares bounds: what DOBI's search would find if both ends moved freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlib.engine.options import choice, integer
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register
from sqlib.recipes.dobi import searched_weight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@register("mse")
@dataclass(frozen=True)
class MSE(Recipe):
    """As `DOBI`, with the least squared error over pairs of bounds (`sqlib.codebook.mse`). Ours.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    steps : int
        T; the grid holds T (2T + 1) pairs, among them every candidate of DOBI with the same T.
    weight_per : str
        "tensor" (as in 2DQuant) or "channel".

    Notes
    -----
    Weights: a grid optimum, refined, its error recomputed from the weight. Activations: the same on a
    histogram of 8,192 bins per call site, an approximation; two passes over the calibration data.
    """

    steps: int = integer(100, 1, 1000)
    weight_per: str = choice("tensor", "channel")

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module:
        """Least squares quantizer of one weight."""
        return searched_weight(self, "mse", weight, site, self.weight_per, steps=self.steps)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Range, then histogram."""
        from sqlib.quantizers import BoundsObserver

        return BoundsObserver(self.activation_bits, method="mse", steps=self.steps)
