r"""A uniform fake-quantizer in the terms of ONNX: 8-bit integers, a scale and an integer zero point.

With codes c from 0 to K - 1, scale s, zero point z and offset o,

.. math:: \hat x = (c - z)\, s + o, \qquad z = -\operatorname{rint}(l / s), \quad o = 0

where zero is a level, and a runtime can multiply the integers themselves. A lower end that is no multiple of
the scale, or a range that leaves zero out, has no such zero point: there z = 0 and o = l, which is the same
numbers by way of an addition, and the product is one of floating-point values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.quantizers import (
    FollowingQuantizer,
    GatedQuantizer,
    QuantizerBank,
    SubsetQuantizer,
    UniformQuantizer,
)

WIDEST = 8
"""Bits of the integers that runtimes multiply."""


@dataclass(frozen=True)
class Grid:
    """One quantizer; tensors are of shape () or (channels,).

    Attributes
    ----------
    scale, offset : Tensor
        float32.
    zero_point : Tensor
        int32, 0 to `top`.
    top : int
        The largest code: 255 for 8 bits.
    axis : int or None
        Channel axis, or None.
    integer : bool
        Whether zero is a level everywhere, so that nothing has to be added.
    """

    scale: Tensor
    zero_point: Tensor
    offset: Tensor
    top: int
    axis: int | None
    integer: bool


def grid(quantizer: UniformQuantizer) -> Grid:
    """The grid of a quantizer with fixed bounds, of 8 bits or fewer."""
    lower, scale = (v.detach().double().cpu() for v in (quantizer.lower, quantizer.scale))
    flat = scale.float() == 0
    # so large a step leaves code 0 to every value, which stands for the lower end
    scale = torch.where(flat, float(torch.finfo(torch.float32).max), scale)
    steps = torch.where(flat, 0.0, torch.round(lower / scale))
    snapped = ~flat & (quantizer.integer_zero or lower / scale == steps)
    integer = snapped & (steps <= 0) & (steps >= -quantizer.top) | (lower == 0)
    low = torch.where(snapped, steps.float() * scale.float(), lower.float())
    zero = torch.where(integer, -steps, 0.0).to(torch.int32)
    offset = torch.where(integer, 0.0, low)
    return Grid(scale.float(), zero, offset, quantizer.top, quantizer.axis, bool(integer.all()))


_INSTEAD = (
    "which the integers of ONNX cannot express: quantize with a recipe whose levels are uniform and fixed, "
    "such as minmax, percentile, twodquant or pams, or keep this network in torch (QuantizedModel.save)"
)


def fixed(quantizer: nn.Module, weight: Tensor | None, where: str) -> UniformQuantizer:
    """The uniform quantizer with fixed bounds that `quantizer` is, of a weight with the values `weight`.

    Raises
    ------
    InputError
        It is none.
    """
    if isinstance(quantizer, FollowingQuantizer) and weight is not None:
        quantizer = quantizer.at(weight)
    if isinstance(quantizer, QuantizerBank):
        problem = "chooses its bits in every pass (CADyQ, CABM, RefQSR)"
    elif isinstance(quantizer, SubsetQuantizer):
        problem = "has levels that no grid of 8 bits holds (DFSQ)"
    elif isinstance(quantizer, GatedQuantizer):
        problem = "scales its bounds for every image (DDTB; dynamic=0 gives it static bounds)"
    elif not isinstance(quantizer, UniformQuantizer):
        problem = "is not a UniformQuantizer"
    elif quantizer.bits > WIDEST:
        problem = f"has {quantizer.bits} bits, more than {WIDEST}"
    else:
        return quantizer
    raise InputError(f"{where}: its {type(quantizer).__name__} {problem}, {_INSTEAD}")
