"""QDrop: block reconstruction that drops quantization at random (Wei et al., ICLR 2022)."""

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


@register("qdrop")
@dataclass(frozen=True)
class QDrop(Reconstruction):
    """Rounding and activation steps learned together, while each activation is quantized only sometimes.

    Parameters
    ----------
    drop_probability : float
        Chance of each single value to stay in full precision, at a unit's input and at each activation
        quantizer inside it. 0 always quantizes; 1 never does, and leaves the steps at their start.
    scale_steps : int
        Candidates of the searches for ranges: 100 published. For activations on both sides of zero, every
        position of the zero point is tried with every width; weights shrink both ends together.

    Notes
    -----
    The other options are those of `sqlib.recipes._blockwise.Reconstruction`.

    Adapted to SR as `BRECQ` is: quantizers at the inputs of layers, ``default_skip``, `relative`. DFSQ does
    not say how it ran QDrop.
    """

    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "iterations": 20_000,
            "batch": 32,
            "learning_rate": 1e-3,
            "step_learning_rate": 4e-5,
        },
        "laptop": {"iterations": 500, "batch": 8, "learning_rate": 0.02, "step_learning_rate": 1.6e-3},
    }

    shared: ClassVar[tuple[str, ...]] = (*Reconstruction.shared, "drop_probability")

    scale_steps: int = integer(100, 1, 100)
    drop_probability: float = number(0.5, 0, 1)

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """One sweep; ``model.reconstruction`` lists what it did to each unit."""
        from sqlib.fit.reconstruction.optimize import reconstruct
        from sqlib.fit.reconstruction.options import Stage

        stage = Stage.of(
            self,
            rounding=self.weight_bits != FULL_PRECISION,
            steps=self.activation_bits != FULL_PRECISION,
            activations=self.activation_bits != FULL_PRECISION,
            norm=self.loss_norm,
        )
        outcomes = reconstruct(model, calibration, [stage], resume=resume)
        model.reconstruction = outcomes  # type: ignore[assignment]

    def _scans(self) -> bool:
        return True
