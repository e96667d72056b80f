"""DOBI alone: 2DQuant's bounds before any training, found by shrinking ranges (Liu et al., NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlib.engine.options import choice, integer, patterns
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@register("dobi")
@dataclass(frozen=True)
class DOBI(Recipe):
    """Uniform quantization with bounds by DOBI; weights and activations per tensor, no integer zero point.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    variant : str
        "release": both ends shrink for every tensor (the released code has a one-sided search but never
        switches it on). "paper": activations that are never negative (the map after a softmax) and those
        named by `one_sided` keep their lower end, with Algorithm 1's step.
    one_sided : tuple of str
        "paper": patterns (`fnmatch`) of call sites whose input counts as one-sided although it may be
        slightly negative. The default names the MLP's second layer, whose input comes from a GELU.
    steps : int
        T, the number of candidates (the paper's K); 100 as published.
    weight_per : str
        "tensor" as published, or "channel": one range per output channel. Weights are two-sided always.

    Notes
    -----
    Two passes over the calibration data: range, then a histogram of 8,192 bins per call site, an
    approximation (see `sqlib.quantizers.BoundsObserver`). The release takes its statistics from one batch of
    32 random crops; here it is all of the calibration data. In SwinIR-light: 144 weights, 144 inputs of
    linear layers and 96 operands of matrix products, 768 bounds.
    """

    variant: str = choice("release", "paper")
    one_sided: tuple[str, ...] = patterns("*.fc2")
    steps: int = integer(100, 1, 1000)
    weight_per: str = choice("tensor", "channel")

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module:
        """DOBI on one weight."""
        return searched_weight(self, "dobi", weight, site, self.weight_per, steps=self.steps)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Range, then histogram."""
        from sqlib.engine.skip import first_match
        from sqlib.quantizers import BoundsObserver

        one_sided: bool | None = False
        if self.variant == "paper":
            one_sided = True if first_match(site, self.one_sided) else None
        return BoundsObserver(
            self.activation_bits,
            method="dobi",
            steps=self.steps,
            variant=self.variant,
            one_sided=one_sided,
        )


def searched_weight(
    recipe: Recipe,
    method: str,
    weight: NDArray[np.float64],
    site: Site,
    weight_per: str,
    **options: Any,
) -> nn.Module:
    """The quantizer of a weight with bounds by a method of `fit_bounds`."""
    import torch

    from sqlib.codebook import fit_bounds
    from sqlib.quantizers import UniformQuantizer

    axis = site.weight_axis if weight_per == "channel" else None
    bounds = fit_bounds(
        weight,
        recipe.weight_bits,
        method=method,
        axis=axis,
        integer_zero=False,
        threads=torch.get_num_threads(),
        **options,
    )
    return UniformQuantizer(bounds)
