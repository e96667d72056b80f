"""DBDC: PTQ4SR's first stage, activation bounds that cut thin tails (Tu et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sqlib.engine.options import choice, number
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register
from sqlib.recipes.dobi import searched_weight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@register("density")
@dataclass(frozen=True)
class Density(Recipe):
    """Activations by density-based dual clipping, weights by Min-Max; no integer zero point.

    The bounds alone: the training that follows in PTQ4SR ("PaC") is not part of it.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    clip : float or None
        Share of the activations that may go, 0 to below 1. None, as released: 1e-5 at 8 bits, else 1e-4
        (the release's configuration lists 5e-4, which never reaches the quantizer).
    weight_per : str
        "channel" as published, or "tensor".

    Notes
    -----
    One pass: each calibration batch gives bounds from 2,048 bins over its own range, and their mean is kept.
    Batch by batch as the calibration data comes; the release uses 30 batches of 16 crops. The release
    quantizes every convolution and gives the first and the last 8 bits; here the network's `skip` decides.
    """

    spellings: ClassVar[tuple[str, ...]] = ("DBDC",)

    clip: float | None = number(None, 0, 1, below=True, optional=True)
    weight_per: str = choice("channel", "tensor")

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module:
        """Min-Max quantizer of one weight."""
        return searched_weight(self, "minmax", weight, site, self.weight_per)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Bounds per batch, averaged."""
        from sqlib.quantizers import DensityObserver

        return DensityObserver(self.activation_bits, clip=self.clip)
