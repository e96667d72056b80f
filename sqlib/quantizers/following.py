r"""Fake-quantizers of weights that are trained: the range follows the weight in every pass.

PAMS (Li et al., ECCV 2020): :math:`\alpha = \max |w|`, levels at multiples of :math:`\alpha / (2^{b-1} - 1)`.
DDTB (Zhong et al., ECCV 2022): from the 1st to the 99th percentile, :math:`2^b` levels, zero among them.

The gradient is passed straight through to the weights inside the range and is zero outside; the range itself
passes none on. The largest magnitude is the end of PAMS's range: rounding puts it outside now and then (at
4 bits in one pass of forty), and it has no gradient in that pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sqlib._checks import check_bits, check_number
from sqlib.errors import InputError
from sqlib.quantizers._computed import ComputedAlpha, ComputedBounds
from sqlib.quantizers._readable import readable
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers.uniform import UniformQuantizer, exact_dtype

TINY = 1e-8
"""Added to the largest magnitude, so that a weight of zeros has a range."""


@saved_as("following")
class FollowingQuantizer(QuantizerState):
    """Quantizes a whole tensor with a range that is taken from it anew each time.

    Parameters
    ----------
    bits : int
        2 to 16.
    percentile : float
        100: symmetric, to the largest magnitude (PAMS). Less, and above 50: from percentile 100 - p to p,
        with an integer zero point (DDTB: 99).

    Notes
    -----
    Has no tensors: what a quantized network keeps is the weight. Percentiles sort the weight, which costs
    O(n log n) in a pass that computes gradients; without, a quantized network computes each weight once.
    """

    checked: ClassVar[tuple[str, ...]] = ("bits", "thousandths")
    labels: ClassVar[tuple[str, ...]] = ()
    axis = None

    def __init__(self, bits: int, *, percentile: float = 100.0) -> None:
        super().__init__()
        self.bits = check_bits(bits, low=2)
        found = check_number("percentile", percentile, 50, 100, above=True)
        self.thousandths = round(1000 * found)

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FollowingQuantizer:
        """From `options`."""
        return cls(options["bits"], percentile=options["thousandths"] / 1000)

    @property
    def percentile(self) -> float:
        """p, to three decimals."""
        return self.thousandths / 1000

    def at(self, weight: Tensor) -> UniformQuantizer:
        """The quantizer with the range of this weight.

        Raises
        ------
        InputError
            The weight has values that are not finite. (Not looked for on other devices than the CPU.)
        """
        values = weight.detach()
        if readable(values) and not bool(torch.isfinite(values).all()):
            raise InputError("the weight has values that are NaN or infinite")
        values = values.to(exact_dtype(values))
        if self.thousandths == 100_000:
            return ComputedAlpha(values.abs().max() + TINY, self.bits)
        ordered = values.flatten().sort().values
        lower, upper = (self._percentile(ordered, p) for p in (100 - self.percentile, self.percentile))
        return ComputedBounds(lower, upper, self.bits)

    @staticmethod
    def _percentile(ordered: Tensor, p: float) -> Tensor:
        """Interpolated between the neighbours, as ``numpy.percentile`` does."""
        position = p / 100 * (len(ordered) - 1)
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        return torch.lerp(ordered[below], ordered[above], position - below)

    def forward(self, weight: Tensor) -> Tensor:
        return self.at(weight)(weight)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"bits={self.bits}, percentile={self.percentile:g}"
