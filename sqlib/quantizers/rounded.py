r"""A weight whose codes were chosen by something better than rounding to the nearest level.

With stored codes c, the weight follows its bounds and nothing else:

.. math:: \hat w = c s + l, \qquad \frac{\partial \hat w}{\partial u} = \frac{c}{K - 1}, \quad
          \frac{\partial \hat w}{\partial l} = 1 - \frac{c}{K - 1}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers.uniform import UniformQuantizer, _saved_bounds


@saved_as("rounded-weight")
class RoundedWeight(UniformQuantizer):
    """Fake-quantizer of one weight: returns ``scale * code + lower`` of stored codes, whatever it is given.

    Parameters
    ----------
    bounds : Bounds
        The grid, per output channel (``axis`` set) or for the whole weight.
    codes : Tensor
        Integers of the weight's shape, 0 to 2^bits - 1.

    Attributes
    ----------
    code_values : Tensor
        The codes as a float32 buffer: averages over buffers (EMA) leave equal numbers equal but for their
        last bits, which rounding to the nearest code takes back; integers would lose a whole code.
    stored : Tensor
        The codes, int32.

    Notes
    -----
    The weight that is passed in decides shape, dtype and device only. Gradients pass straight through to it,
    and to the bounds where they are trained.
    """

    packed = ("code_values",)

    code_values: Tensor

    def __init__(self, bounds: Bounds, codes: Tensor) -> None:
        super().__init__(bounds)
        if codes.is_floating_point() or not 0 <= int(codes.min()) <= int(codes.max()) < bounds.levels:
            raise InputError(f"RoundedWeight: codes must be integers from 0 to {bounds.levels - 1}")
        self.register_buffer("code_values", codes.to(torch.float32))
        self._check(codes)

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RoundedWeight:
        """From `options` and the tensors of the state dict."""
        quantizer = cls(_saved_bounds(options, tensors), tensors["code_values"])
        if options["trainable"]:
            quantizer.learnable()
        return quantizer

    @property
    def stored(self) -> Tensor:
        """The codes as integers."""
        return torch.round(self.code_values).to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        bounds = self.lower, self.upper
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *bounds)):
            out: Tensor = _StraightThrough.apply(x, *bounds, self)  # type: ignore[no-untyped-call]
            return out
        return self.fake(x)

    def fake(self, x: Tensor) -> Tensor:
        """The stored weight as x's dtype."""
        self._check_shape(x)
        lower, scale, _ = self.grid(x)
        return (self._at(x, lower.dtype) * scale + lower).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """The stored codes."""
        self._check_shape(x)
        return self.stored

    def _at(self, x: Tensor, kind: torch.dtype) -> Tensor:
        return torch.round(self.code_values.to(x.device, kind))

    def _check_shape(self, x: Tensor) -> None:
        if x.shape != self.code_values.shape:
            raise InputError(
                f"RoundedWeight: a weight of shape {tuple(x.shape)}, the codes have "
                f"{tuple(self.code_values.shape)}"
            )

    def _admit(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._admit(state_dict, prefix)
        if prefix + "stored" in state_dict:  # integers under the name of the attribute
            state_dict[prefix + "code_values"] = state_dict.pop(prefix + "stored")
        codes = state_dict.get(prefix + "code_values")
        if isinstance(codes, Tensor) and codes.numel() and codes.device.type != "meta":
            least, most = (round(float(v)) for v in torch.aminmax(codes.detach()))
            if not 0 <= least <= most < 1 << self.bits:
                raise InputError(
                    f"codes from {least} to {most} in the state, expected 0 to {(1 << self.bits) - 1} "
                    f"({self.bits} bits); quantize with the recipe that the state was saved from"
                )


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, quantizer: RoundedWeight) -> Tensor:
        ctx.axis, ctx.shape = quantizer.axis, lower.shape
        if any(ctx.needs_input_grad[1:3]):
            _, _, top = quantizer.grid(x)
            # top is 0 where the range has no extent: the weight is then the lower bound
            ctx.save_for_backward(quantizer._at(x, top.dtype).minimum(top) / top.clamp(min=1), lower)
        return quantizer.fake(x)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        if not any(ctx.needs_input_grad[1:3]):
            return grad, None, None, None
        share, bound = ctx.saved_tensors
        wide = grad.to(share.dtype)
        dims = [d for d in range(grad.ndim) if ctx.axis is None or d != ctx.axis % grad.ndim]
        both = (wide * (1 - share)).sum(dims), (wide * share).sum(dims)
        to_lower, to_upper = (g.to(bound).reshape(ctx.shape) for g in both)
        return grad, to_lower, to_upper, None
