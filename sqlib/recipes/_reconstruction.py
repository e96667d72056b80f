"""Options that BRECQ and QDrop share, and what their schedules mean. Imports neither torch nor numpy.

Published are 20,000 iterations a block with 32 of 1,024 samples each: hours on a CPU even for a small
network. The "laptop" schedule has 500 iterations. Its rate for rounding was chosen on crops of training
images that calibration had not seen; its rates for steps are the published ones times 40, so that steps can
travel as far. A recipe says which schedule it has, and "custom" as soon as one of its numbers differs: a
short run never passes for the published one. The units of rates and errors are another option, `relative`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION, check_flag, check_integer, check_number
from sqlib.errors import InputError
from sqlib.recipes._base import Observer, Recipe, check_weight_per, resolve_schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib._sites import Site


@dataclass(frozen=True)
class Reconstruction(Recipe):
    """Base of the recipes that learn rounding block by block; not a recipe itself.

    Parameters
    ----------
    bits
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    schedule
        "published", "laptop" or "custom". The options below it that are None are taken from the schedule;
        "custom" needs them all.
    iterations
        Optimizer steps per unit; 0 leaves the start, which rounds to nearest.
    batch
        Samples per step, drawn without replacement from the calibration samples.
    learning_rate
        Of Adam for the rounding variables.
    step_learning_rate
        Of Adam for activation steps, falling to 0 along a cosine; see `relative`.
    warmup
        Share of the iterations without regularizer.
    regularization
        Weight of the regularizer that makes rounding binary.
    beta
        Its exponent, from the first value linearly to the second after the warm-up.
    loss_norm
        p of the reconstruction error: mean over samples and positions of the sum over channels of |d|^p.
    scale_norm, scale_steps
        p and number of candidates of the searches for the initial ranges.
    relative
        The published constants suit image classifiers, whose normalized activations keep near one scale; SR
        networks compute in 0..255 as well as in 0..1. True (ours): `step_learning_rate` is a share of the
        step's start, and errors are divided by the standard deviation of the unit's full-precision output,
        so that rates and regularizer mean the same in every network. False: as published.
    weight_per
        "channel" or "tensor".
    seed
        Of the draws of samples and masks.
    """

    learns: ClassVar[bool] = True
    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
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
    iterations: int = None  # type: ignore[assignment]  # None: as the schedule says
    batch: int = None  # type: ignore[assignment]
    learning_rate: float = None  # type: ignore[assignment]
    step_learning_rate: float = None  # type: ignore[assignment]
    warmup: float = 0.2
    regularization: float = 0.01
    beta: tuple[float, float] = (20.0, 2.0)
    loss_norm: float = 2.0
    scale_norm: float = 2.4
    scale_steps: int = 80
    relative: bool = True
    weight_per: str = "channel"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight_per(self.weight_per)
        if not isinstance(self.beta, (tuple, list)) or len(self.beta) != 2:
            raise InputError(f"beta={self.beta!r}: expected a pair (first, last), e.g. (20, 2)")
        pair = tuple(check_number("beta", b, 1, math.inf) for b in self.beta)
        object.__setattr__(self, "beta", pair)
        resolve_schedule(self, self.schedules, fixed=self.shared)
        for name, low, high in (
            ("iterations", 0, 10**9),
            ("batch", 1, 10**9),
            ("scale_steps", 1, 100),
            ("seed", 0, 2**63 - 1),
        ):
            check_integer(name, getattr(self, name), low, high)
        for name, above in (
            ("learning_rate", True),
            ("step_learning_rate", False),
            ("regularization", False),
        ):
            object.__setattr__(self, name, check_number(name, getattr(self, name), 0, math.inf, above=above))
        object.__setattr__(self, "warmup", check_number("warmup", self.warmup, 0, 1))
        for name in ("loss_norm", "scale_norm"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), 0, math.inf, above=True))
        check_flag("relative", self.relative)

    def weight_quantizer(self, weight: Tensor, site: Site) -> nn.Module | None:
        """Nearest rounding on the searched grid: the start of the reconstruction."""
        from sqlib.codebook.norm_search import shrink_bounds
        from sqlib.quantizers import UniformQuantizer

        if self.weight_bits == FULL_PRECISION:
            return None
        axis = site.weight_axis if self.weight_per == "channel" else None
        values = weight.detach().cpu().double().numpy()
        return UniformQuantizer(
            shrink_bounds(values, self.weight_bits, norm=self.scale_norm, steps=self.scale_steps, axis=axis)
        )

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Range search on a histogram, in two passes."""
        from sqlib.quantizers.norm_observer import NormObserver

        if self.activation_bits == FULL_PRECISION:
            return None
        return NormObserver(
            self.activation_bits, norm=self.scale_norm, steps=self.scale_steps, scan=self._scans()
        )

    def _scans(self) -> bool:
        """Whether the search for activation ranges includes the zero point."""
        return False
