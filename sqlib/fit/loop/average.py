"""The exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Average:
    """An exponential moving average, which often generalizes better than the last step.

    Parameters
    ----------
    source : sequence of Tensor
        The tensors that are trained.
    values : sequence of Tensor
        Their average, updated in place; starts as given.
    decay : float
        Share of the old average that a step keeps.
    """

    def __init__(self, source: Sequence[Tensor], values: Sequence[Tensor], decay: float) -> None:
        self.source, self.values, self.decay = list(source), list(values), decay

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in what the trained tensors are after `steps` steps."""
        # Early on the plain decay would remember the random start for a thousand steps.
        decay = min(self.decay, steps / (steps + 10))
        torch._foreach_lerp_(self.values, self.source, 1 - decay)

    @torch.no_grad()
    def load(self, values: Sequence[Tensor]) -> None:
        """Continue from a saved average."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)
