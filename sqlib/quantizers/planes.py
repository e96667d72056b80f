"""Which values share statistics: views of a tensor as (samples, channels, values), and tiles of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from sqlib.errors import InputError


def to_planes(x: Tensor, axis: int | None) -> Tensor:
    """View (or copy) `x` as (samples, channels, values).

    Parameters
    ----------
    x
        Any tensor with enough dimensions.
    axis
        Channel axis, negative. -3: images (..., C, H, W), -2: sequences (..., C, L); all leading dimensions
        are samples, none is one sample. -1: features (N, ..., C), where the first of three or more dimensions
        is the sample and the others are values. None: no channels; one per sample.

    Raises
    ------
    InputError
        For too few dimensions.
    """
    if x.ndim < (1 if axis is None else -axis):
        raise InputError(
            f"tensor of shape {tuple(x.shape)} has no axis {axis}, where its channels were expected"
        )
    if axis is None or axis == -1:
        samples = x.shape[0] if x.ndim >= 3 else 1
        channels = 1 if axis is None else x.shape[-1]
        values = math.prod(x.shape) // max(1, samples * channels)
        return x.reshape(samples, values, channels).transpose(1, 2)
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def from_planes(planes: Tensor, like: Tensor, axis: int | None) -> Tensor:
    """The inverse of `to_planes`: the values of `planes` in the shape of `like`."""
    if axis is None or axis == -1:
        planes = planes.transpose(1, 2)
    return planes.reshape(like.shape)


def tile_slices(height: int, width: int, patch: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Regions of an image whose tiles have one size: (rows, columns, tile height, tile width).

    Tiles of `patch` pixels from the upper left corner; what remains at the lower and right edge is smaller.
    """
    for rows, tile_height in _runs(height, patch):
        for columns, tile_width in _runs(width, patch):
            yield rows, columns, tile_height, tile_width


def _runs(size: int, patch: int) -> Iterator[tuple[slice, int]]:
    whole = size // patch * patch
    if whole:
        yield slice(0, whole), patch
    if size > whole:
        yield slice(whole, size), size - whole


def to_tiles(region: Tensor, height: int, width: int) -> Tensor:
    """(..., C, H, W), H and W multiples of the tile's -> (samples, C, height, width), tiles as samples."""
    channels, rows, columns = region.shape[-3:]
    split = region.reshape(-1, channels, rows // height, height, columns // width, width)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height, width)


def from_tiles(tiles: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_tiles`."""
    channels, rows, columns = like.shape[-3:]
    height, width = tiles.shape[-2:]
    split = tiles.reshape(-1, rows // height, columns // width, channels, height, width)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(like.shape)
