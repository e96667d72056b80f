r"""AdaRound: learn for every weight whether to round it up or down (Nagel et al., ICML 2020).

With the grid of scale s and lower end l, the soft weight is

.. math:: \tilde w = s \operatorname{clip}(\lfloor (w - l)/s \rfloor + h(a), 0, K - 1) + l, \qquad
          h(a) = \operatorname{clip}(1.2\,\sigma(a) - 0.1, 0, 1)

and the variables a start where the soft weight equals w. A regularizer drives h to 0 or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlib.quantizers.rounded import RoundedWeight
from sqlib.quantizers.uniform import UniformQuantizer

STRETCH, SHIFT = 1.2, 0.1
"""The stretched sigmoid reaches 0 and 1 at finite a, where its gradient vanishes and h stays."""


class AdaRound:
    """Rounding variables of one weight during reconstruction.

    Parameters
    ----------
    quantizer : UniformQuantizer
        The grid, with bounds per channel or for the whole tensor.
    weight : Tensor
        The full-precision weight, any shape that fits the grid.

    Attributes
    ----------
    variables
        float32 leaf tensor of the weight's shape, with gradient.
    """

    def __init__(self, quantizer: UniformQuantizer, weight: Tensor) -> None:
        self.quantizer = quantizer
        wide = weight.detach().float()
        self.lower, self.scale, self.top = (g.float() for g in quantizer.grid(wide))
        position = (wide - self.lower) / self.scale
        self.below = torch.floor(position)
        fraction = position - self.below
        self.variables = torch.logit((fraction + SHIFT) / STRETCH).requires_grad_()

    def soft(self) -> Tensor:
        """The differentiable weight, float32."""
        codes = torch.minimum(torch.clamp(self.below + self.up(), min=0), self.top)
        return codes * self.scale + self.lower

    def up(self) -> Tensor:
        """h in [0, 1]: how far each weight is rounded up."""
        return torch.clamp(STRETCH * torch.sigmoid(self.variables) - SHIFT, 0, 1)

    def regularizer(self, beta: float) -> Tensor:
        r""":math:`\sum (1 - |2h - 1|^\beta)`, zero where every weight has decided."""
        return (1 - (2 * self.up() - 1).abs().pow(beta)).sum()

    @torch.no_grad()
    def harden(self) -> RoundedWeight:
        """The quantizer with every weight rounded to the nearer side of its h."""
        codes = torch.minimum(torch.clamp(self.below + (self.up() >= 0.5), min=0), self.top)
        return RoundedWeight(self.quantizer.bounds(), codes.to(torch.int32))
