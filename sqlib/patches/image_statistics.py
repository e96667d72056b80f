"""Statistics of an image that is computed in patches: gathered in a first pass, used in a second.

A quantizer that measures what it is given would measure every patch by itself, and patches would meet in
seams. Of a first pass over all patches, in which each is measured by itself, it keeps the mean and the range
of every plane; in the second pass all patches have these. The first quantizer has the image's own statistics
then, but for pixels that patches share and count twice; a later one has those of features that were quantized
a little differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Gathered:
    """Mean and range of planes, over everything `add` was given.

    Attributes
    ----------
    complete
        Whether all is there: `statistics` may be used.
    """

    def __init__(self) -> None:
        self.complete = False
        self.count = 0
        self.total = self.low = self.high = torch.zeros(())

    def add(self, planes: Tensor, *, channelwise: bool) -> None:
        """Values (samples, channels, values); samples belong to the same image."""
        dims = (0, 2) if channelwise else (0, 1, 2)
        total = planes.sum(dims, dtype=torch.float64, keepdim=True)
        low, high = planes.amin(dims, keepdim=True), planes.amax(dims, keepdim=True)
        if self.count:
            total, low, high = (
                self.total + total,
                torch.minimum(self.low, low),
                torch.maximum(self.high, high),
            )
        self.count += planes.numel() // total.numel()
        self.total, self.low, self.high = total, low, high

    def statistics(self, *, centre: bool) -> tuple[Tensor, Tensor]:
        """Mean (0 without ``centre``) and largest magnitude around it, (1, channels, 1) or (1, 1, 1)."""
        mean = (self.total / self.count).to(self.low.dtype) if centre else torch.zeros_like(self.low)
        return mean, torch.maximum(self.high - mean, mean - self.low)


def measuring(model: nn.Module) -> list[Any]:
    """The quantizers of a network that measure whole planes: those whose ``measures_planes`` is true."""
    return [q for q in model.modules() if getattr(q, "measures_planes", False)]


@contextmanager
def image_statistics(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Within the block the patches of one image have its statistics, once the function given was called.

    Parameters
    ----------
    model : nn.Module
        A quantized network, or one that holds quantizers. Until the function is called, patches that run are
        measured.

    Examples
    --------
    >>> with image_statistics(quantized) as complete:                                     # doctest: +SKIP
    ...     for patch in patches:
    ...         quantized(patch)
    ...     complete()
    ...     results = [quantized(patch) for patch in patches]
    """
    quantizers = measuring(model)
    gathered = [Gathered() for _ in quantizers]
    for quantizer, own in zip(quantizers, gathered, strict=True):
        quantizer.image = own

    def complete() -> None:
        for own in gathered:
            own.complete = own.count > 0  # one that no patch reached measures by itself

    try:
        yield complete
    finally:
        for quantizer in quantizers:
            quantizer.image = None
