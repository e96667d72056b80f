"""How DDTB's quantizers begin: percentiles of the first batch, and how much the range of batches differs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from sqlib._checks import check_bits, check_percentile
from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.quantizers.gate import Gate
from sqlib.quantizers.gated import GatedQuantizer
from sqlib.quantizers.uniform import UniformQuantizer


class GatedObserver:
    """One pass: bounds from the first batch, minimum and maximum of every one.

    Parameters
    ----------
    bits : int
        Bit-width of the quantizer that `finish` returns.
    percentile : float
        Upper percentile of the first batch at which the upper bound begins; the lower one at 100 minus it.
        Where both are equal the range of the batch takes their place.
    bounds : tuple of float or None
        (lower, upper) instead.
    axis : int or None
        Channel axis of a sample, from the end (see `Gate`); None: the quantizer has no gate.
    seed : int
        Of the gate's weights.
    """

    passes = 1

    def __init__(
        self,
        bits: int,
        *,
        percentile: float = 99.0,
        bounds: tuple[float, float] | None = None,
        axis: int | None = None,
        seed: int = 0,
    ) -> None:
        self.bits, self.percentile = check_bits(bits), check_percentile(percentile)
        self.bounds, self.axis, self.seed = bounds, axis, seed
        self.gate: Gate | None = None
        self.lower: list[float] = []
        self.upper: list[float] = []

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch of activations; NaN or infinity raise `InputError`."""
        if x.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(x.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("the activations contain NaN or infinity")
        if not self.lower:
            self._begin(x.detach(), low, high)
        self.lower.append(low)
        self.upper.append(high)

    def _begin(self, x: Tensor, low: float, high: float) -> None:
        if self.bounds is None:
            levels = 100 - self.percentile, self.percentile
            found = np.percentile(x.cpu().double().numpy(), levels)
            self.bounds = (float(found[0]), float(found[1])) if found[0] < found[1] else (low, high)
        if self.axis is not None:
            self.gate = Gate(x.shape[self.axis], self.axis, seed=self.seed)
            self.gate.start(self.gate.pool(x), self.percentile)

    @property
    def spread(self) -> float:
        """Variance over the batches of their largest value, plus that of their smallest one."""
        return float(np.var(self.lower) + np.var(self.upper))

    def finish(self) -> nn.Module:
        """The quantizer, its gate off."""
        if self.bounds is None or not self.lower:
            raise InputError("no values reached this call site during calibration")
        lower, upper = (np.asarray(v, np.float64) for v in self.bounds)
        bounds = Bounds(lower, upper, self.bits, method="first batch")
        return (
            UniformQuantizer(bounds) if self.gate is None else GatedQuantizer(bounds, self.gate, self.spread)
        )
