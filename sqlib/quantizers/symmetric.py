r"""The symmetric fake-quantizer with one learned bound (PAMS, Li et al., ECCV 2020, Eqs. 3 to 5).

With :math:`n = 2^{b-1} - 1` and :math:`u = x n / \alpha`,

.. math::
    \hat x = \frac{\alpha}{n} \operatorname{rint}(\operatorname{clip}(u, -n, n)), \qquad
    \frac{\partial \hat x}{\partial x} = [|u| \le n], \qquad
    \frac{\partial \hat x}{\partial \alpha} =
    \begin{cases} \operatorname{sign}(u) & |u| > n \\
    (\operatorname{rint}(u) - u) / n & \text{else} \end{cases}

It is the uniform quantizer between :math:`-\alpha` and :math:`\alpha` with :math:`2n + 1` levels, one fewer
than b bits have. Values that are never negative use half of them; unsigned, all :math:`n + 1` levels with
:math:`n = 2^b - 1` lie from zero up, with the same gradients, except that both vanish below zero. A value
halfway between two levels may go to the other one of them than in the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sqlib._checks import check_bits
from sqlib.codebook.bounds import Bounds, Grid
from sqlib.errors import InputError
from sqlib.quantizers._readable import readable
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers.uniform import UniformQuantizer


@saved_as("symmetric")
class SymmetricQuantizer(UniformQuantizer):
    """Levels at multiples of alpha/n from -alpha, or from 0, to alpha; one bound for the whole tensor.

    Parameters
    ----------
    alpha : Tensor
        The bound.
    bits : int
        2 to 16.
    signed : bool
        Whether the levels begin at -alpha.

    Attributes
    ----------
    alpha : Tensor
        float64 buffer (parameter after `learnable`), shape ().

    Raises
    ------
    InputError
        An alpha that is not positive and finite, when it is made and wherever it is used.
    """

    checked: ClassVar[tuple[str, ...]] = ("bits", "signed")
    labels: ClassVar[tuple[str, ...]] = ("trainable",)
    variables = ("alpha",)

    alpha: Tensor

    def __init__(self, alpha: float, bits: int, *, signed: bool = True) -> None:
        QuantizerState.__init__(self)
        self.bits, self.signed = check_bits(bits, low=2), bool(signed)
        self.axis, self.integer_zero, self.method = None, True, "symmetric"
        self.register_buffer("alpha", torch.tensor(_positive(float(alpha)), dtype=torch.float64))

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SymmetricQuantizer:
        """From `options` and the tensors of the state dict."""
        quantizer = cls(float(tensors["alpha"]), options["bits"], signed=options["signed"])
        return quantizer.learnable() if options["trainable"] else quantizer

    @property
    def top(self) -> int:
        """The largest code: 2n, or n of unsigned levels."""
        return (1 << self.bits) - (2 if self.signed else 1)

    @property
    def lower(self) -> Tensor:  # type: ignore[override]
        """-alpha, or 0."""
        return -self.alpha if self.signed else 0 * self.alpha

    @property
    def upper(self) -> Tensor:  # type: ignore[override]
        """alpha."""
        return self.alpha

    def bounds(self) -> Bounds:
        """Not defined for signed levels: `Bounds` have 2^b of them."""
        if not self.signed:
            return super().bounds()
        raise InputError(f"a symmetric quantizer has {self.top + 1} levels, Bounds have {self.top + 2}")

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(lower, scale, top) in the computing dtype on x's device."""
        if readable(self.alpha):
            _positive(float(self.alpha))
        return super().grid(x)

    def _numpy_grid(self, kind: torch.dtype) -> Grid:
        wide = np.dtype(np.float64 if kind == torch.float64 else np.float32).type
        extent = 2 if self.signed else 1
        scale = wide(extent * _positive(float(self.alpha)) / self.top)
        low = -(self.top // 2) * scale if self.signed else 0
        return Grid(*(np.asarray(v, wide) for v in (low, scale, self.top)))

    def extra_repr(self) -> str:
        return f"bits={self.bits}, alpha={self.alpha.item():g}, signed={self.signed}"


def _positive(alpha: float) -> float:
    if not 0 < alpha < math.inf:
        raise InputError(
            f"alpha={alpha:g}: expected a positive bound; where training has brought it there, lower its rate"
        )
    return alpha
