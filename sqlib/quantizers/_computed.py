"""Uniform fake-quantizers whose bounds are computed in the pass, with gradients to what they come from."""

from __future__ import annotations

from torch import Tensor

from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers.symmetric import SymmetricQuantizer
from sqlib.quantizers.uniform import UniformQuantizer


class ComputedBounds(UniformQuantizer):
    """Lives for one call: its bounds are results, neither buffers nor parameters.

    Parameters
    ----------
    lower, upper : Tensor
        Shape (), or (entries of `axis`,); lower <= upper, finite.
    bits, axis : int, (int or None)
        As in `Bounds`; the lower end is snapped to a multiple of the scale.
    """

    def __init__(self, lower: Tensor, upper: Tensor, bits: int, axis: int | None = None) -> None:
        QuantizerState.__init__(self)
        self.bits, self.axis, self.integer_zero, self.method = bits, axis, True, "computed"
        self.lower, self.upper = lower, upper


class ComputedAlpha(SymmetricQuantizer):
    """Lives for one call, as `ComputedBounds`, with levels from -alpha to alpha.

    Parameters
    ----------
    alpha : Tensor
        Shape (); positive, finite.
    bits : int
        As in `SymmetricQuantizer`.
    """

    def __init__(self, alpha: Tensor, bits: int) -> None:
        QuantizerState.__init__(self)
        self.bits, self.signed, self.axis, self.integer_zero = bits, True, None, True
        self.method, self.alpha = "computed", alpha
