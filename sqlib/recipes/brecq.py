"""BRECQ: rounding learned block by block, activation steps afterwards (Li et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION
from sqlib.engine.options import integer, number
from sqlib.engine.registry import register
from sqlib.recipes._blockwise import Reconstruction

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


@register("brecq")
@dataclass(frozen=True)
class BRECQ(Reconstruction):
    """Block reconstruction in two sweeps: weights with full-precision activations, then activation steps.

    Parameters
    ----------
    activation_iterations : int
        Optimizer steps per unit of the second sweep (None: from the schedule; 5,000 published).
    activation_norm : float
        p of the second sweep's error.

    Notes
    -----
    The other options are those of `sqlib.recipes._blockwise.Reconstruction`.

    Published: classifiers, where layer outputs are quantized and the first and last layer have 8 bits. Here,
    as in every recipe, the quantizers sit at the inputs of the layers and the network's own ``default_skip``
    decides what stays in full precision. DFSQ compares with BRECQ on SR without saying how it was run: the
    hyper-parameters are the release's for classifiers, and what was adapted is the option `relative`. The
    published sample is 1,024 images, SR papers calibrate on 32 crops.

    Activation ranges are searched on the full-precision network, as the engine calibrates, where the release
    waits for the weights of the first sweep.

    The error is the plain squared one ('mse', the release's default), without the paper's Fisher weights.
    """

    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "iterations": 20_000,
            "activation_iterations": 5_000,
            "batch": 32,
            "learning_rate": 1e-3,
            "step_learning_rate": 4e-4,
        },
        "laptop": {
            "iterations": 500,
            "activation_iterations": 125,
            "batch": 8,
            "learning_rate": 0.02,
            "step_learning_rate": 0.016,
        },
    }

    shared: ClassVar[tuple[str, ...]] = (*Reconstruction.shared, "activation_norm")

    activation_iterations: int = integer(None, 0)
    activation_norm: float = number(2.4, 0, above=True)

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Both sweeps; ``model.reconstruction`` lists what they did to each unit."""
        from sqlib.fit.reconstruction.optimize import reconstruct
        from sqlib.fit.reconstruction.options import Stage

        stages = []
        if self.weight_bits != FULL_PRECISION:
            stages.append(Stage.of(self, rounding=True, steps=False, activations=False, norm=self.loss_norm))
        if self.activation_bits != FULL_PRECISION:
            iterations, norm = self.activation_iterations, self.activation_norm
            stages.append(
                Stage.of(self, rounding=False, steps=True, activations=True, iterations=iterations, norm=norm)
            )
        outcomes = reconstruct(model, calibration, stages, resume=resume)
        model.reconstruction = outcomes  # type: ignore[assignment]
