"""PAMS's start of a learned bound: the largest magnitude of each sample, averaged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sqlib.errors import InputError
from sqlib.quantizers.symmetric import SymmetricQuantizer

DECAY = 0.9997
"""Of the moving average that PAMS describes."""


class MaxObserver:
    """Finds alpha from the batch values m, the mean over samples of the largest magnitude; one pass.

    Parameters
    ----------
    bits : int
        Of the quantizer that `finish` returns.
    start : str
        "mean" of all m; "moving": their moving average with decay 0.9997, from the first; "last": the last m,
        which the release of PAMS is left with.
    unsigned : bool
        Give data that are never negative a grid from 0 to alpha.
    """

    passes = 1

    def __init__(self, bits: int, *, start: str = "mean", unsigned: bool = False) -> None:
        if start not in ("mean", "moving", "last"):
            raise InputError(f"start={start!r}: expected 'mean', 'moving' or 'last'")
        self.bits, self.start, self.unsigned = bits, start, unsigned
        self.alpha = math.nan
        self.batches = 0
        self.negative = False

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch (N, ...); NaN or infinity raise `InputError`."""
        if x.numel() == 0:
            return
        samples = x.reshape(len(x) if x.ndim else 1, -1)
        found = float(samples.abs().amax(1).double().mean())
        if not math.isfinite(found):
            raise InputError("the activations contain NaN or infinity")
        self.negative = self.negative or bool((x < 0).any())
        self.batches += 1
        share = {"mean": 1 / self.batches, "moving": 1 - DECAY, "last": 1.0}[self.start]
        self.alpha = found if self.batches == 1 else self.alpha + share * (found - self.alpha)

    def finish(self) -> SymmetricQuantizer:
        """The quantizer, with a bound that can be trained."""
        if not self.batches:
            raise InputError("no values reached this call site during calibration")
        smallest = float(torch.finfo(torch.float32).tiny)  # where all is zero, any bound will do
        signed = self.negative or not self.unsigned
        return SymmetricQuantizer(max(self.alpha, smallest), self.bits, signed=signed).learnable()
