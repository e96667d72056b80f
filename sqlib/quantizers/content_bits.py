r"""CADyQ's selector (Hong et al., ECCV 2022): bits from the gradients of the patch and the feature's spread.

With the mean gradients :math:`g_x, g_y` of the gray input patch and the standard deviations
:math:`\sigma_1, \dots, \sigma_C` of the channels of the operand, shares are

.. math:: p = \operatorname{softmax}(W (s g_x, s g_y, \sigma_1, \dots, \sigma_C)^T + b)

The paper calls it an MLP; its release has this one linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sqlib._checks import check_bits, check_integer, check_number
from sqlib.errors import InputError
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers.bank import block_size
from sqlib.quantizers.edges import image_gradients, picture

SHARES = "shares"
"""Where shares are in ``context.data``: a dictionary from selector to tensor (samples, candidates)."""

_GRADIENTS = "image gradients"


@saved_as("content-bits")
class ContentBits(QuantizerState):
    """A linear layer and a softmax; starts with the largest width for every patch.

    Parameters
    ----------
    candidates : tuple of int
        The widths of the bank.
    channels : int
        C, of the operand; 1 if `channel_axis` is None.
    channel_axis : int or None
        Of the operand, counted from its end: -3 of a 2d convolution's input, -1 of a linear layer's. None:
        all values of a sample are one channel.
    gradient_scale : Tensor
        s: 1000 for inputs in 0..1 of networks that compute in 0..255, 1 for CARN, which computes in 0..1.

    Attributes
    ----------
    weight, bias
        Parameters, (candidates, C + 2) ones; (candidates,) zeros, with a one for the largest width. In
        float32 whatever the network is in.

    Notes
    -----
    The standard deviation is over positions and, of a Swin transformer, over the windows of a sample; a patch
    without any variation is decided by the bias. Gradients go the way of all derivatives: through the
    deviations to the operand as well.

    Each pass leaves its shares in ``context.data["shares"]``, by selector, for a loss on bits.
    """

    checked: ClassVar[tuple[str, ...]] = ("channels", "channel_axis")
    labels: ClassVar[tuple[str, ...]] = ()

    gradient_scale: Tensor

    def __init__(
        self,
        candidates: tuple[int, ...],
        channels: int,
        *,
        channel_axis: int | None = -3,
        gradient_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.candidates = check_candidates(candidates)
        channels = check_integer("channels", channels, 1, 2**31)
        if channel_axis is None and channels != 1:
            raise InputError(f"channels={channels} without a channel_axis: expected 1")
        self.channels, self.channel_axis = channels, channel_axis
        scale = check_number("gradient_scale", gradient_scale, 0, 2.0**31)
        self.register_buffer("gradient_scale", torch.tensor(scale, dtype=torch.float64))
        self.weight = nn.Parameter(torch.ones(len(self.candidates), channels + 2, dtype=torch.float32))
        self.bias = nn.Parameter(torch.eye(len(self.candidates), dtype=torch.float32)[-1].clone())

    def options(self) -> dict[str, Any]:
        """Everything but the tensors."""
        named = {f"candidate {i}": width for i, width in enumerate(self.candidates)}
        return {"candidates": named, "channels": self.channels, "channel_axis": self.channel_axis}

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ContentBits:
        """From `options` and the tensors of the state dict."""
        widths = tuple(options["candidates"].values())
        made = cls(widths, options["channels"], channel_axis=options["channel_axis"])
        made.load_state_dict(dict(tensors))
        return made

    def forward(self, x: Tensor, site: Any, context: Any) -> Tensor:
        """Shares (samples, candidates)."""
        image = picture(context)  # refuses a call without a pass
        if _GRADIENTS not in context.data:
            context.data[_GRADIENTS] = image_gradients(image)
        seen = self.deviations(x, context.samples)
        gradients = self.gradient_scale * context.data[_GRADIENTS]
        kind = torch.promote_types(self.weight.dtype, seen.dtype)
        found = torch.cat([gradients.to(kind), seen.to(kind)], 1)
        # no matrix product: its sums may run in another order in a batch of another size
        shares = torch.softmax((found[:, None] * self.weight).sum(2) + self.bias, 1)
        context.data.setdefault(SHARES, {})[self] = shares
        return shares

    def deviations(self, x: Tensor, samples: int) -> Tensor:
        """Standard deviations of the channels of each sample, (samples, C), float32 or float64.

        Raises
        ------
        InputError
            Other channels than expected, or an operand whose samples cannot be told apart.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        parts = x.unflatten(0, (samples, block_size(x, samples)))
        axis = self.channel_axis
        if axis is not None and (parts.ndim + axis < 2 or parts.shape[axis] != self.channels):
            raise InputError(
                f"an operand of shape {tuple(x.shape)}, expected {self.channels} channels in axis {axis}"
            )
        others = [a for a in range(1, parts.ndim) if axis is None or a != parts.ndim + axis]
        values = parts[0].numel() // self.channels
        return parts.std(others, correction=1 if values > 1 else 0).view(samples, self.channels)

    def extra_repr(self) -> str:
        return f"candidates={self.candidates}, channels={self.channels}"


def check_candidates(candidates: Any) -> tuple[int, ...]:
    """Widths in ascending order; `InputError` for anything but two or more different ones, 2 to 16."""
    if not isinstance(candidates, (tuple, list)):
        raise InputError(f"candidates={candidates!r}: expected bit-widths such as (4, 6, 8)")
    widths = tuple(sorted(check_bits(b, low=2) for b in candidates))
    if len(set(widths)) != len(candidates) or len(widths) < 2:
        raise InputError(f"candidates={candidates!r}: expected two or more bit-widths, each once")
    return widths


def operand_channel_axis(op: str) -> int | None:
    """Where the input of a call site's operation has its channels, counted from the end.

    None for the operands of products of two activations, whose axes do not tell: the transposed keys of an
    attention have them in another axis than its values.
    """
    if op == "linear":
        return -1
    return -1 - int(op[-2]) if op.startswith("conv") else None
