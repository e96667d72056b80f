"""Second moments of a layer's inputs and target outputs, from a sample of the positions it is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_SEED = 20230508
# Positions summed in the inputs' own precision before the sums are added up in float64.
_BLOCK = 4096


class Layer(NamedTuple):
    """How a call turns inputs into columns. ``kernel`` None: a linear layer, the last axis are the inputs."""

    groups: int = 1
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    def rows(self, weight: Tensor) -> Tensor:
        """The weight as (outputs, columns); of a convolution: all channels of a tap, then the next tap."""
        if self.kernel is None:
            return weight
        return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)

    def weight(self, rows: Tensor, like: Tensor) -> Tensor:
        """Back from `rows` to the weight's own shape."""
        if self.kernel is None:
            return rows.reshape(like.shape)
        outputs, channels = like.shape[:2]
        return rows.reshape(outputs, *self.kernel, channels).permute(0, 3, 1, 2).contiguous()

    def outputs(self, out: Tensor, limit: int, *, draw: int = 0) -> Tensor:
        """Sampled outputs (positions, outputs)."""
        flat = out.movedim(-3, -1) if self.kernel else out
        flat = flat.reshape(-1, flat.shape[-1])
        chosen = sample(len(flat), limit, draw)
        return flat if chosen is None else flat[chosen.to(out.device)]

    def columns(self, x: Tensor, limit: int, *, draw: int = 0) -> Tensor:
        """Sampled inputs (groups, positions, columns per group), at the positions of `outputs`."""
        if self.kernel is None:
            flat = x.reshape(-1, x.shape[-1])
            chosen = sample(len(flat), limit, draw)
            return (flat if chosen is None else flat[chosen.to(x.device)])[None]
        (top, bottom), (left, right) = self.padding
        if top or bottom or left or right:
            x = F.pad(x, (left, right, top, bottom))
        x = x.reshape(-1, *x.shape[-3:])  # one image may come without the axis of samples
        images, channels, height, width = x.shape
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel)]
        high, wide = ((n - s) // t + 1 for n, s, t in zip((height, width), spans, self.stride))
        total = images * high * wide
        chosen = sample(total, limit, draw)
        at = torch.arange(total) if chosen is None else chosen
        at = at.to(x.device)
        image, row, column = at // (high * wide), at // wide % high, at % wide
        corner = (image * height + row * self.stride[0]) * width + column * self.stride[1]
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        out = x.new_empty((self.groups, len(at), self.kernel[0] * self.kernel[1], channels // self.groups))
        for tap in range(out.shape[2]):
            i, j = divmod(tap, self.kernel[1])
            found = pixels[corner + i * self.dilation[0] * width + j * self.dilation[1]]
            out[:, :, tap] = found.reshape(len(at), self.groups, -1).transpose(0, 1)
        return out.flatten(2)


def sample(total: int, limit: int, draw: int = 0) -> Tensor | None:
    """At most `limit` of `total` positions, sorted, the same ones for the same `draw`; None for all."""
    if total <= limit:
        return None
    generator = torch.Generator().manual_seed(_SEED + draw)
    return torch.randperm(total, generator=generator)[:limit].sort().values


def conv2d_layer(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Layer:
    """The `Layer` of a call of ``torch.conv2d``, whose signature this is."""
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    steps, spread = _pair(stride), _pair(dilation)
    if padding == "same":  # what torch adds: the odd one goes to the far end
        total = [d * (k - 1) for d, k in zip(spread, kernel)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _pair(0 if isinstance(padding, str) else padding))
    return Layer(int(groups), kernel, steps, pads, spread)  # type: ignore[arg-type]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = [int(v) for v in value]
    return values[0], values[-1]


@dataclass(frozen=True)
class Moments:
    """Means and centred second moments of inputs x and target outputs y over positions; float64.

    Attributes
    ----------
    count : int
        Number of positions.
    inputs, outputs : Tensor
        Means: (groups, columns per group) and (outputs,).
    gram : Tensor
        Sum of (x - mean)(x - mean)^T, (groups, columns, columns).
    cross : Tensor
        Sum of (y - mean)(x - mean)^T, (outputs, columns): every output with the columns of its own group.
    """

    count: int
    inputs: Tensor
    outputs: Tensor
    gram: Tensor
    cross: Tensor

    @classmethod
    def of(cls, columns: Tensor, targets: Tensor) -> Moments:
        """From sampled columns (groups, positions, columns per group) and outputs (positions, outputs).

        Products of centred values run in the tensors' dtype, in float32 for half precision, block by block of
        positions, and are summed in float64: a constant input has no variance left, not even from rounding.
        """
        # The square of an activation in 0..255 is more than float16 holds.
        exact = torch.promote_types(columns.dtype, torch.float32)
        columns, targets = columns.to(exact), targets.to(exact)
        groups, positions, width = columns.shape
        y = targets.reshape(positions, groups, -1).transpose(0, 1)
        inputs, outputs = _mean(columns), _mean(y)
        gram = inputs.new_zeros((groups, width, width))
        cross = inputs.new_zeros((groups, y.shape[2], width))
        for start in range(0, positions, _BLOCK):
            some = columns[:, start : start + _BLOCK] - inputs[:, None].to(columns.dtype)
            centred = y[:, start : start + _BLOCK] - outputs[:, None].to(y.dtype)
            gram += some.mT @ some
            cross += centred.mT @ some
        return cls(positions, inputs, outputs.flatten(), gram, cross.flatten(0, 1))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        x, y = other.inputs - self.inputs, other.outputs - self.outputs
        return Moments(
            count,
            self.inputs + x * (other.count / count),
            self.outputs + y * (other.count / count),
            *self._shifted(
                self.gram + other.gram, self.cross + other.cross, x, y, self.count * other.count / count
            ),
        )

    def about(self, bias: Tensor) -> Moments:
        """The moments about x = 0 and y = `bias` (outputs,) or (), for a layer whose bias stays as it is."""
        end = bias.to(self.outputs).expand_as(self.outputs)
        y = self.outputs - end
        return Moments(
            self.count,
            torch.zeros_like(self.inputs),
            end,
            *self._shifted(self.gram, self.cross, self.inputs, y, self.count),
        )

    @staticmethod
    def _shifted(gram: Tensor, cross: Tensor, x: Tensor, y: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        per_output = x.repeat_interleave(len(y) // len(x), dim=0)
        return (
            gram + weight * x[:, :, None] * x[:, None, :],
            cross + weight * y[:, None] * per_output,
        )


def _mean(values: Tensor) -> Tensor:
    """Mean over positions of (groups, positions, ...), in float64 from block sums."""
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    for start in range(0, values.shape[1], _BLOCK):
        total = total + values[:, start : start + _BLOCK].mean(dim=1).double() * len(
            values[0, start : start + _BLOCK]
        )
    return total / values.shape[1]
