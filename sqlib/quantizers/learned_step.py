r"""Learned step size (LSQ, Esser et al., ICLR 2020) of a uniform quantizer with a fixed integer zero point.

.. math:: \hat x = (c - z) s, \qquad c = \operatorname{rint}(\operatorname{clip}(x/s + z, 0, K - 1)), \qquad
          \frac{\partial \hat x}{\partial s} = (c - z) - [0 \le x/s + z \le K - 1]\, x/s
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sqlib.quantizers.uniform import UniformQuantizer

SMALLEST = 1e-3
"""The step never falls below this share of its start, so that no learning rate can turn it negative."""


class LearnedStep:
    """The step of one activation quantizer during reconstruction.

    Parameters
    ----------
    quantizer : UniformQuantizer
        A quantizer for whole tensors, with ``integer_zero``; its range must have an extent.
    relative : bool
        True: the variable is the step divided by its start, so that a learning rate means a share of the
        start whatever range the network computes in. False: the step itself, as published.

    Attributes
    ----------
    variable
        float32 scalar leaf tensor with gradient.
    """

    def __init__(self, quantizer: UniformQuantizer, *, relative: bool) -> None:
        self.quantizer = quantizer
        lower, upper = quantizer.lower.detach(), quantizer.upper.detach()
        self.top = float((1 << quantizer.bits) - 1)
        self.start = float((upper - lower) / self.top)
        self.zero = -float(torch.round(lower / self.start))
        self.unit = self.start if relative else 1.0
        self.variable = torch.tensor(
            self.start / self.unit, dtype=torch.float32, device=lower.device, requires_grad=True
        )

    def step(self) -> Tensor:
        """The present step, differentiable."""
        return torch.clamp(self.variable * self.unit, min=SMALLEST * self.start)

    def __call__(self, x: Tensor) -> Tensor:
        """Fake-quantize with gradients to `x` and to the step."""
        out: Tensor = _Step.apply(x, self.step(), self.zero, self.top)  # type: ignore[no-untyped-call]
        return out

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the quantizer the learned range; the zero point stays."""
        step = self.step().to(self.quantizer.lower.dtype)
        self.quantizer.set_bounds(-self.zero * step, (self.top - self.zero) * step)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: float, top: float) -> Tensor:
        position = x.float() / step + zero
        ctx.save_for_backward(position)
        ctx.zero, ctx.top = zero, top
        out = (torch.round(torch.clamp(position, 0, top)) - zero) * step
        return out.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (position,) = ctx.saved_tensors
        inside = (position >= 0) & (position <= ctx.top)
        grad_x = grad * inside if ctx.needs_input_grad[0] else None
        grad_step = None
        if ctx.needs_input_grad[1]:
            codes = torch.round(torch.clamp(position, 0, ctx.top)) - ctx.zero
            slope = codes - torch.where(inside, position - ctx.zero, torch.zeros_like(position))
            grad_step = (grad.float() * slope).sum()
        return grad_x, grad_step, None, None
