"""`sqlib.kernels.normalized` operation by operation in torch: for any device, and for graphs.

Nothing here looks at a value, so that nothing waits for a device or is missing in a graph, and any size of
image gives the same operations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sqlib.codebook.nearest import HALF, LARGEST


class Table(NamedTuple):
    """`sqlib.kernels.nearest.NearestTable` as tensors: rows of channels, or one for all, and two numbers."""

    thresholds: Tensor
    values: Tensor
    half: Tensor
    unit: Tensor

    @classmethod
    def of(cls, points: Tensor, denominator: int | None, like: Tensor) -> Table:
        """What `sqlib.codebook.nearest.nearest_table` makes of ``points``, where and in what `like` is."""
        points = points.detach().to(like.device).reshape(-1, points.shape[-1])
        middle = (points[:, :-1] + points[:, 1:]) / 2
        rounded = middle.to(like.dtype)
        down = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        thresholds = torch.where(rounded > middle, down, rounded) * HALF
        values, half, unit = points.to(like.dtype), like.new_full((), HALF), like.new_full((), 1)
        if denominator is None or denominator > LARGEST:
            return cls(thresholds, values, half, unit)
        numerators = torch.round(points * denominator)
        exact = (numerators / denominator == points).all()  # other points, loaded or written, may lie off
        return cls(
            torch.where(exact, (numerators[:, :-1] + numerators[:, 1:]).to(like.dtype), thresholds),
            torch.where(exact, numerators.to(like.dtype), values),
            half.masked_fill(exact, 2 * denominator),
            unit.masked_fill(exact, denominator),
        )


def fake_quantize(x: Tensor, mean: Tensor, maximum: Tensor, table: Table, epsilon: float) -> Tensor:
    """Values (samples, channels, values) at their nearest points, by statistics that broadcast to them."""
    spread = maximum + epsilon
    t = torch.clamp((x - mean) * (table.half / spread), -table.half, table.half)
    rows = t.transpose(0, 1).reshape(len(table.values) if len(table.values) > 1 else 1, -1).contiguous()
    codes = torch.searchsorted(table.thresholds, rows)
    samples, channels, size = x.shape
    found = table.values.gather(1, codes).reshape(channels, samples, size).transpose(0, 1)
    return found * (spread / table.unit) + mean


def plane_statistics(x: Tensor, *, centre: bool, channelwise: bool) -> tuple[Tensor, Tensor]:
    """Mean and largest magnitude around it of planes (samples, channels, values)."""
    dims = (-1,) if channelwise else (-2, -1)
    mean = _wide(x).mean(dims, keepdim=True).to(x.dtype) if centre else x.new_zeros(())
    return mean, torch.maximum(x.amax(dims, keepdim=True) - mean, mean - x.amin(dims, keepdim=True))


def tile_statistics(x: Tensor, patch: int, *, centre: bool, channelwise: bool) -> tuple[Tensor, Tensor]:
    """The same of the tile of each pixel of images (N, C, H, W), in their shape.

    Tiles as `sqlib.quantizers.planes.tile_slices` has them, of which those share statistics of all channels
    that have too few values of their own (`sqlib.quantizers.planes.own_statistics`).
    """
    row, column = (torch.arange(n, device=x.device) // patch for n in x.shape[-2:])

    def tiles(images: Tensor, fill: float, reduce: str) -> Tensor:
        # Rows and columns of tiles stand at the beginning of as many rows and columns as there are pixels:
        # in a graph of images of any size nothing may depend on how many tiles there are.
        for axis, index in ((-2, row[:, None]), (-1, column)):
            start = torch.full_like(images, fill)
            images = start.scatter_reduce(axis, index.expand_as(images), images, reduce)
        return images

    low, high = tiles(x, torch.inf, "amin"), tiles(x, -torch.inf, "amax")
    total, count = (tiles(_wide(t), 0, "sum") for t in (x, torch.ones_like(x[:1, :1])))
    own = count > 1
    if centre:
        own = (count > 2) | (own & (count < count[..., :1, :1]))  # the first tile is as large as any
    own = own & channelwise
    mean = torch.zeros_like(low)
    if centre:
        shared = total.sum(1, keepdim=True) / (count * x.shape[1])
        mean = torch.where(own, total / count, shared).to(x.dtype)
    high = torch.where(own, high, high.amax(1, keepdim=True))
    low = torch.where(own, low, low.amin(1, keepdim=True))
    found = (mean, torch.maximum(high - mean, mean - low))
    mean, maximum = (t.index_select(-2, row).index_select(-1, column) for t in found)
    return mean, maximum


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # mps has no float64
