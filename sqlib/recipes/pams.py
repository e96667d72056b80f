"""PAMS: symmetric bounds that are trained with the network (Li et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib.engine.options import choice, flag
from sqlib.engine.recipe import Lesson, Observer
from sqlib.engine.registry import register
from sqlib.recipes._trained import Trained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site


@register("pams")
@dataclass(frozen=True)
class PAMS(Trained):
    """One bound alpha for each activation, trained by its gradient; weights quantized to their maximum.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    start : str
        Alpha before training, from the largest magnitude of each sample averaged over a batch: "mean" over
        all batches of the calibration data; "moving", the moving average with decay 0.9997 of the paper;
        "last", the last batch alone, which is what the release's moving average comes to.
    unsigned : bool
        Give activations that are never negative all levels. Published is a signed grid for everything, half
        of whose levels are idle behind a ReLU.

    Notes
    -----
    The other options are those of `sqlib.recipes._trained.Trained`.

    The teacher is the network in full precision. "published": 30 epochs of 1,000 iterations, rates halved
    every 10 epochs. Its first epoch, which clips nothing while it watches the activations, is replaced by
    calibration.
    """

    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {"steps": 30_000, "halve_every": 10_000, "bound_learning_rate": 0.01},
        "laptop": {"steps": 2_000, "halve_every": 667, "bound_learning_rate": 0.15},
    }

    start: str = choice("mean", "moving", "last")
    unsigned: bool = flag(False)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Symmetric, per tensor, to the largest magnitude in every pass."""
        from sqlib.quantizers import FollowingQuantizer

        return FollowingQuantizer(self.weight_bits)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """The largest magnitude of each sample."""
        from sqlib.quantizers import MaxObserver

        return MaxObserver(self.activation_bits, start=self.start, unsigned=self.unsigned)

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Train weights and bounds."""
        self.train(model, lesson, teacher=lesson.original)
