r"""Gradients of the uniform fake-quantizer: to the values and to both bounds.

The rounding is passed straight through (2DQuant, Eq. 2 and its appendix): with t = (x - l)/s,

.. math::
    \frac{\partial \hat x}{\partial x} = [0 \le t \le K - 1], \quad
    \frac{\partial \hat x}{\partial u} = [t > K - 1] + \frac{\operatorname{rint}(t) - t}{K - 1}, \quad
    \frac{\partial \hat x}{\partial l} = [t < 0] - \frac{\operatorname{rint}(t) - t}{K - 1}

where the fractions stand for clipped t and vanish outside the bounds. Snapping the lower end to a multiple
of the scale (``integer_zero``) is a rounding as well, and passed straight through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sqlib.errors import InputError
from sqlib.kernels.uniform_backward import Grid, backward
from sqlib.quantizers._readable import readable

if TYPE_CHECKING:
    from sqlib.quantizers.uniform import UniformQuantizer


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The computing dtype for values of `dtype`: float64 for itself, float32 for every narrower float."""
    if not dtype.is_floating_point:
        raise InputError(f"quantizer: a tensor of dtype {dtype}, expected floating-point values")
    return torch.float64 if dtype == torch.float64 else torch.float32


def kernel_takes(x: Tensor) -> bool:
    """Whether NumPy may read this tensor's memory in one flat run."""
    return (
        readable(x)
        and x.layout == torch.strided
        # the general test costs ten times the common one
        and (x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense.default(x))
    )


class StraightThrough(torch.autograd.Function):
    """Forward: the quantizer itself. Backward: gradients to the values and to both bounds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, quantizer: UniformQuantizer) -> Tensor:
        ctx.axis = quantizer.axis
        ctx.fused = kernel_takes(x) and (ctx.axis is None or x.is_contiguous())
        ctx.grid = quantizer._numpy_grid(wide_dtype(x.dtype)) if ctx.fused else quantizer.grid(x)
        ctx.save_for_backward(x, lower)
        return quantizer.fake(x)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, bound = ctx.saved_tensors
        gradients = (_fused_gradients if ctx.fused else _torch_gradients)(x, grad, ctx.grid, ctx.axis)
        shaped = gradients[0], *(g.to(bound).reshape(bound.shape) for g in gradients[1:])
        to_x, to_lower, to_upper = (
            g if need else None for g, need in zip(shaped, ctx.needs_input_grad[:3], strict=True)
        )
        return to_x, to_lower, to_upper, None


def _torch_gradients(
    x: Tensor, grad: Tensor, grid: tuple[Tensor, Tensor, Tensor], axis: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to the values and to both bounds in torch operations, on any device."""
    lower, scale, top = grid
    t = (x.to(lower.dtype) - lower) / scale
    below, above = t < 0, t > top
    wide = grad.to(lower.dtype)
    clipped = torch.minimum(torch.clamp(t, min=0), top)
    residual = (torch.round(clipped) - clipped) / torch.clamp(top, min=1)
    dims = [d for d in range(x.ndim) if axis is not None and d != axis % x.ndim]
    to_bounds = wide * (below.to(wide) - residual), wide * (above.to(wide) + residual)
    if axis is None:
        to_lower, to_upper = (g.sum() for g in to_bounds)
    else:
        to_lower, to_upper = (g.sum(dims) if dims else g for g in to_bounds)
    return grad.masked_fill(below | above, 0), to_lower, to_upper


def _fused_gradients(x: Tensor, grad: Tensor, grid: Any, axis: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one pass of `sqlib.kernels.uniform_backward`."""
    wide = x.detach().to(wide_dtype(x.dtype))
    to_x = torch.empty_like(wide)
    if grad.stride() != wide.stride() or grad.dtype != wide.dtype:
        grad = torch.empty_like(wide).copy_(grad)  # the kernel walks both in memory's order
    threads = torch.get_num_threads()
    tensors = wide, grad.detach(), to_x
    if axis is None:
        # Any dense layout is one flat run of memory.
        tensors = tuple(v.as_strided((v.numel(),), (1,)) for v in tensors)  # type: ignore[assignment]
    values, incoming, out = (v.numpy() for v in tensors)
    constants = Grid(*(np.atleast_1d(v) for v in grid))
    bounds = backward(values, incoming, constants, axis=axis, out=out, threads=threads)
    to_lower, to_upper = (torch.from_numpy(b) for b in bounds)
    return to_x.to(x.dtype), to_lower, to_upper
