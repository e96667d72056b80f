"""2DQuant: bounds by search (DOBI), then distillation calibration (DQC; Liu et al., NeurIPS 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib.engine.options import choice, flag, integer, patterns
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register
from sqlib.fit.distillation.options import Options
from sqlib.recipes.density import Density
from sqlib.recipes.dobi import DOBI
from sqlib.recipes.minmax import MinMax
from sqlib.recipes.mse import MSE
from sqlib.recipes.percentile import Percentile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site

STARTS: Mapping[str, tuple[type[Recipe], tuple[str, ...]]] = {
    "dobi": (DOBI, ("variant", "one_sided", "steps", "weight_per")),
    "mse": (MSE, ("steps", "weight_per")),
    "minmax": (MinMax, ("weight_per",)),
    "percentile": (Percentile, ("weight_per",)),
    "density": (Density, ("weight_per",)),
}


@register("twodquant")
@dataclass(frozen=True)
class TwoDQuant(Recipe):
    """DOBI's bounds, refined by distillation calibration: 768 numbers of a SwinIR-light are trained.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    bounds_from : str
        Which bounds to start from: "dobi", "mse", "minmax", "percentile" or "density", each as in the recipe
        of that name.
    variant, one_sided, steps, weight_per
        As in `DOBI`; the last for all starts, `steps` for "mse" as well.
    schedule : str
        "paper", "release", "laptop" or "custom". The options below it that are None are taken from the
        schedule, "custom" needs them all, and a schedule of which an option differs becomes "custom".
    iterations, batch, learning_rate, final_learning_rate, betas, relative
        As in `sqlib.fit.distillation.Options`. "paper": 3,000 iterations of 32 samples, rate 0.01 along a
        cosine to 0, betas (0.9, 0.999). "release": 4,000 of 16, rate 0.01 throughout, betas (0.9, 0.99).
        "laptop" (ours): 300 of 4, rate 0.003 along a cosine in units of the starting widths, of 0.03, 0.01
        and 0.003 the best for swinir-small at 4 bits (at 2 bits 0.01 was) on DIV2K images that calibration
        had not seen; the published rate, in absolute units, made edsr-small worse there, whose features lie
        in 0..255 and its weights in 0..1.
    loss : str
        "paper", or "release" with its code's scaling: both terms shrink, the feature term almost to nothing.
    feature_weight : float
        Lambda. The paper does not state it; 5 as in the code.
    train, features, feature_axis, augment, seed
        As in `sqlib.fit.distillation.Options`. Published: the bounds, and the four groups of layers of a
        SwinIR.

    Notes
    -----
    The release as a whole is ``TwoDQuant(schedule="release", loss="release")``, with one more difference: it
    picks the best of its checkpoints on Set5, which is a test set; here it is always the last.

    The paper trains on crops of all 3,450 images of DF2K. Here the calibration data given to `quantize_model`
    serves both stages; drawn samples are flipped and rotated. A batch larger than the data is all of it.

    Unfinished training is kept in the folder ``resume`` of `sqlib.quantize_model` and continued from there.
    ``model.distillation`` lists what training did.
    """

    spellings: ClassVar[tuple[str, ...]] = ("2DQuant",)
    learns: ClassVar[bool] = True
    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "iterations": 3000,
            "batch": 32,
            "learning_rate": 0.01,
            "final_learning_rate": 0.0,
            "betas": (0.9, 0.999),
            "relative": False,
        },
        "release": {
            "iterations": 4000,
            "batch": 16,
            "learning_rate": 0.01,
            "final_learning_rate": 0.01,
            "betas": (0.9, 0.99),
            "relative": False,
        },
        "laptop": {
            "iterations": 300,
            "batch": 4,
            "learning_rate": 0.003,
            "final_learning_rate": 0.0,
            "betas": (0.9, 0.999),
            "relative": True,
        },
    }

    bounds_from: str = choice("dobi", "mse", "minmax", "percentile", "density")
    variant: str = choice("release", "paper")
    one_sided: tuple[str, ...] = patterns("*.fc2")
    steps: int = integer(100, 1, 1000)
    weight_per: str = choice("tensor", "channel")
    schedule: str = "paper"
    iterations: int = None  # type: ignore[assignment]  # None: as the schedule says
    batch: int = None  # type: ignore[assignment]
    learning_rate: float = None  # type: ignore[assignment]
    final_learning_rate: float = None  # type: ignore[assignment]
    betas: tuple[float, float] = None  # type: ignore[assignment]
    relative: bool = flag(None)
    loss: str = choice("paper", "release")
    feature_weight: float = 5.0
    train: tuple[str, ...] = ("bounds",)
    features: tuple[str, ...] | None = None
    feature_axis: int | None = None
    augment: bool = True
    seed: int = 0

    def check(self) -> Mapping[str, Any]:
        """What `sqlib.fit.distillation.Options` says to the options of training."""
        return {name: value for name, value in vars(self.options()).items() if hasattr(self, name)}

    def options(self) -> Options:
        """How the bounds are trained."""
        fields = [f.name for f in dataclasses.fields(Options) if hasattr(self, f.name)]
        return Options(**{name: getattr(self, name) for name in fields})

    def start(self) -> Recipe:
        """The recipe of the first stage."""
        kind, names = STARTS[self.bounds_from]
        options = {name: getattr(self, name) for name in names}
        if kind in (MinMax, Percentile):
            options["integer_zero"] = False  # no quantizer of 2DQuant has a zero point
        return kind(bits=self.bits, **options)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """As the first stage has it."""
        return self.start().weight_quantizer(weight, site)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """As the first stage has it."""
        return self.start().activation_observer(site, operand)

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Train; ``model.distillation`` has the outcome."""
        from sqlib.fit.distillation.train import distill

        outcome = distill(model, calibration, resume=resume, **dataclasses.asdict(self.options()))
        model.distillation = [outcome]  # type: ignore[assignment]
