"""Options that BRECQ and QDrop share, and what their schedules mean. Imports neither torch nor numpy.

Published are 20,000 iterations a block with 32 of 1,024 samples each: hours on a CPU even for a small
network. The "laptop" schedule has 500 iterations. Its rate for rounding was chosen on crops of training
images that calibration had not seen; its rates for steps are the published ones times 40, so that steps can
travel as far. A recipe says which schedule it has, and "custom" as soon as one of its numbers differs: a
short run never passes for the published one. The units of rates and errors are another option, `relative`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sqlib.engine.options import choice, flag, integer, number, pair
from sqlib.engine.recipe import Observer, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.site import Site


@dataclass(frozen=True)
class Reconstruction(Recipe):
    """Base of the recipes that learn rounding block by block; not a recipe itself.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    schedule : str
        "published", "laptop" or "custom". The options below it that are None are taken from the schedule;
        "custom" needs them all.
    iterations : int
        Optimizer steps per unit; 0 leaves the start, which rounds to nearest.
    batch : int
        Samples per step, drawn without replacement from the calibration samples.
    learning_rate : float
        Of Adam for the rounding variables.
    step_learning_rate : float
        Of Adam for activation steps, falling to 0 along a cosine; see `relative`.
    warmup : float
        Share of the iterations without regularizer.
    regularization : float
        Weight of the regularizer that makes rounding binary.
    beta : tuple of float
        Its exponent, from the first value linearly to the second after the warm-up.
    loss_norm : float
        p of the reconstruction error: mean over samples and positions of the sum over channels of ``|d|^p``.
    scale_norm, scale_steps : float, int
        p and number of candidates of the searches for the initial ranges.
    relative : bool
        The published constants suit image classifiers, whose normalized activations keep near one scale; SR
        networks compute in 0..255 as well as in 0..1. True (ours): `step_learning_rate` is a share of the
        step's start, and errors are divided by the standard deviation of the unit's full-precision output,
        so that rates and regularizer mean the same in every network. False: as published.
    weight_per : str
        "channel" or "tensor".
    seed : int
        Of the draws of samples and masks.
    """

    learns: ClassVar[bool] = True
    shared: ClassVar[tuple[str, ...]] = (
        "warmup",
        "regularization",
        "beta",
        "loss_norm",
        "scale_norm",
        "scale_steps",
        "weight_per",
    )

    schedule: str = "published"
    iterations: int = integer(None, 0)  # None: as the schedule says
    batch: int = integer(None, 1)
    learning_rate: float = number(None, 0, above=True)
    step_learning_rate: float = number(None, 0)
    warmup: float = number(0.2, 0, 1)
    regularization: float = number(0.01, 0)
    beta: tuple[float, float] = pair((20.0, 2.0), 1)
    loss_norm: float = number(2.0, 0, above=True)
    scale_norm: float = number(2.4, 0, above=True)
    scale_steps: int = integer(80, 1, 100)
    relative: bool = flag(True)
    weight_per: str = choice("channel", "tensor")
    seed: int = integer(0, 0, 2**63 - 1)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module:
        """Nearest rounding on the searched grid: the start of the reconstruction."""
        from sqlib.codebook.norm_search import shrink_bounds
        from sqlib.quantizers import UniformQuantizer

        axis = site.weight_axis if self.weight_per == "channel" else None
        return UniformQuantizer(
            shrink_bounds(weight, self.weight_bits, norm=self.scale_norm, steps=self.scale_steps, axis=axis)
        )

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Range search on a histogram, in two passes."""
        from sqlib.quantizers.norm_observer import NormObserver

        return NormObserver(
            self.activation_bits, norm=self.scale_norm, steps=self.scale_steps, scan=self._scans()
        )

    def _scans(self) -> bool:
        """Whether the search for activation ranges includes the zero point."""
        return False
