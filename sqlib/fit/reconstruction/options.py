"""What block reconstruction is asked to do. Imports neither torch nor numpy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One sweep over the units.

    Attributes
    ----------
    rounding, steps : bool
        What is learned.
    activations : bool
        Whether activations are quantized meanwhile.
    iterations, batch : int
        Optimizer steps per unit; samples per step.
    norm : float
        Exponent of the error.
    learning_rate, step_learning_rate : float
        Of Adam for rounding variables, constant, and for activation steps, falling to 0 along a cosine.
    warmup, regularization, beta : float, float, tuple of float
        Share of the iterations without regularizer, its weight, and its exponent from first to last.
    relative : bool
        Whether the rate of steps and the error are in units of the steps' start and of the output's spread.
    seed : int
        Of the draws of samples and masks.
    drop_probability : float
        Chance of every value to stay in full precision, at the unit's input and at its activation quantizers.
    """

    rounding: bool
    steps: bool
    activations: bool
    iterations: int
    norm: float
    batch: int
    learning_rate: float
    step_learning_rate: float
    warmup: float
    regularization: float
    beta: tuple[float, float]
    relative: bool
    seed: int
    drop_probability: float = 0.0

    @classmethod
    def of(cls, recipe: Any, **own: Any) -> Stage:
        """The options of `recipe` that have the names of fields, and `own` ones."""
        names = [f.name for f in dataclasses.fields(cls) if f.name not in own and hasattr(recipe, f.name)]
        return cls(**{name: getattr(recipe, name) for name in names}, **own)
