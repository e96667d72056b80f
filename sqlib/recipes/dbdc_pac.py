"""DBDC+Pac: bounds by density, then distillation in two stages (PTQ4SR; Tu et al., CVPR 2023)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION
from sqlib.engine.options import choice, flag, integer, number
from sqlib.engine.registry import register
from sqlib.fit.distillation.options import Options
from sqlib.recipes.density import Density

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


@register("dbdc-pac")
@dataclass(frozen=True)
class DBDCPaC(Density):
    """`Density`'s bounds, then first those of activations and after them those of weights are trained.

    Parameters
    ----------
    bits, clip, weight_per : (int or tuple of int), (float or None), str
        As in `Density`.
    schedule : str
        "release", or "custom" as soon as one of the options taken from it (those that are None) differs.
    iterations, weight_iterations : int
        Optimizer steps of the two stages; 250 each.
    batch : int
        Samples per step; 2.
    learning_rate, final_learning_rate : float
        Adam's, for the bounds of activations: 5e-3 to 2e-3 along a cosine.
    weight_learning_rate, final_weight_learning_rate : float
        The same for those of weights: 5e-6 to 2e-6.
    variant : str
        "paper": mean absolute error of the outputs, plus `feature_weight` times the mean attention-transfer
        loss of the blocks' outputs. "release": its hooks detach the features, so that the second term adds
        its value but no gradient.
    feature_weight : float
        5.
    features, feature_axis, augment, relative, seed
        As in `sqlib.fit.distillation.Options`. Published: residual blocks, no augmentation, rates in absolute
        units, for EDSR, which computes in 0..255.

    Notes
    -----
    Gradients are scaled as in LSQ, which matters next to Adam's epsilon only.

    PTQ4SR quantizes every convolution and gives the first and the last one 8 bits; here the network's skip
    rules decide, and what they skip stays in full precision. It calibrates on 30 batches of 16 crops.

    A side in full precision (32 bits) has no stage. Unfinished training and ``model.distillation`` are as in
    `TwoDQuant`.
    """

    spellings: ClassVar[tuple[str, ...]] = ("PTQ4SR",)
    learns: ClassVar[bool] = True
    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "release": {
            "iterations": 250,
            "weight_iterations": 250,
            "batch": 2,
            "learning_rate": 5e-3,
            "final_learning_rate": 2e-3,
            "weight_learning_rate": 5e-6,
            "final_weight_learning_rate": 2e-6,
            "relative": False,
        },
    }

    schedule: str = "release"
    iterations: int = None  # type: ignore[assignment]  # None: as the schedule says
    weight_iterations: int = integer(None, 0)
    batch: int = None  # type: ignore[assignment]
    learning_rate: float = None  # type: ignore[assignment]
    final_learning_rate: float = None  # type: ignore[assignment]
    weight_learning_rate: float = number(None, 0, above=True)
    final_weight_learning_rate: float = number(None, 0)
    relative: bool = flag(None)
    variant: str = choice("paper", "release")
    feature_weight: float = 5.0
    features: tuple[str, ...] | None = None
    feature_axis: int | None = None
    augment: bool = False
    seed: int = 0

    def check(self) -> Mapping[str, Any]:
        """What `sqlib.fit.distillation.Options` says to the options of training."""
        first = self.stage("activation_bounds")
        names = ("learning_rate", "final_learning_rate", "feature_weight", "features")
        return {name: getattr(first, name) for name in names}

    def stage(self, group: str) -> Options:
        """How "activation_bounds" or "weight_bounds" are trained."""
        options = Options(
            train=(group,),
            loss="attention" if self.variant == "paper" else "attention-detached",
            iterations=self.iterations,
            batch=self.batch,
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            feature_weight=self.feature_weight,
            features=self.features,
            feature_axis=self.feature_axis,
            augment=self.augment,
            relative=self.relative,
            scale_gradients=True,
            seed=self.seed,
        )
        if group == "activation_bounds":
            return options
        return dataclasses.replace(
            options,
            iterations=self.weight_iterations,
            learning_rate=self.weight_learning_rate,
            final_learning_rate=self.final_weight_learning_rate,
            seed=self.seed + 1,
        )

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Both stages; ``model.distillation`` has an outcome for each."""
        from sqlib.fit.distillation.train import distill

        sides = (("activation_bounds", self.activation_bits), ("weight_bounds", self.weight_bits))
        model.distillation = [  # type: ignore[assignment]
            distill(model, calibration, resume=resume, **dataclasses.asdict(self.stage(group)))
            for group, bits in sides
            if bits != FULL_PRECISION
        ]
