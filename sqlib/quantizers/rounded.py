"""A weight whose codes were chosen by something better than rounding to the nearest level."""

from __future__ import annotations

import torch
from torch import Tensor

from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.quantizers.uniform import UniformQuantizer


class RoundedWeight(UniformQuantizer):
    """Fake-quantizer of one weight: returns ``scale * code + lower`` of stored codes, whatever it is given.

    Parameters
    ----------
    bounds
        The grid, per output channel (``axis`` set) or for the whole weight.
    codes
        Integers of the weight's shape, 0 to 2^bits - 1.

    Attributes
    ----------
    stored
        The codes, an int32 buffer.

    Notes
    -----
    The weight that is passed in decides shape, dtype and device only. Gradients pass straight through to it.
    """

    stored: Tensor

    def __init__(self, bounds: Bounds, codes: Tensor) -> None:
        super().__init__(bounds)
        if codes.is_floating_point() or not 0 <= int(codes.min()) <= int(codes.max()) < bounds.levels:
            raise InputError(f"RoundedWeight: codes must be integers from 0 to {bounds.levels - 1}")
        self.register_buffer("stored", codes.to(torch.int32))
        self._check(codes)

    def forward(self, x: Tensor) -> Tensor:
        fixed = self.fake(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return x + (fixed - x).detach()
        return fixed

    def fake(self, x: Tensor) -> Tensor:
        """The stored weight as x's dtype."""
        self._check_shape(x)
        lower, scale, _ = self.grid(x)
        return (self.stored.to(x.device, lower.dtype) * scale + lower).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """The stored codes."""
        self._check_shape(x)
        return self.stored.clone()

    def _check_shape(self, x: Tensor) -> None:
        if x.shape != self.stored.shape:
            raise InputError(
                f"RoundedWeight: a weight of shape {tuple(x.shape)}, the codes have "
                f"{tuple(self.stored.shape)}"
            )
