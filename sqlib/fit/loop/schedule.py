"""Learning rates as functions of the 0-based step: pure, so that a training may resume anywhere.

Each function below takes the first rate and the length of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(rate: float, steps: int) -> Schedule:
    """The same `rate` in every step."""
    return lambda step: rate


def cosine(rate: float, steps: int, *, final: float = 0.0) -> Schedule:
    r"""Half a cosine, :math:`f + (r - f)(1 + \cos(\pi t / T)) / 2`, from `rate` r to `final` f."""
    return lambda step: final + (rate - final) * (1 + math.cos(math.pi * step / max(steps, 1))) / 2


def step_decay(rate: float, steps: int, *, every: int, factor: float = 0.5) -> Schedule:
    """`rate`, times `factor` after each `every` steps (torch's ``StepLR``)."""
    return lambda step: rate * factor ** (step // every)


def annealed(rate: float, steps: int) -> Schedule:
    """`cosine` to 0, each rate from the one before as torch's ``CosineAnnealingLR`` has it.

    The two differ in the last bits; block reconstruction is defined with this one.
    """
    rates = [rate]
    for step in range(1, steps):
        ratio = (1 + math.cos(math.pi * step / steps)) / (1 + math.cos(math.pi * (step - 1) / steps))
        rates.append(ratio * rates[-1])
    return rates.__getitem__
