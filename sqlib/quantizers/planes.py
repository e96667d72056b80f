"""Which values share statistics: views of a tensor as (samples, channels, values), and tiles of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from sqlib.errors import InputError


def to_planes(x: Tensor, axis: int | None, sample_axis: int = 0) -> Tensor:
    """View (or copy) `x` as (samples, channels, values).

    Parameters
    ----------
    x : Tensor
        Any tensor with enough dimensions.
    axis : int or None
        Channel axis, negative. -3: images (..., C, H, W), -2: sequences (..., C, L); all leading dimensions
        are samples, none is one sample. -1: features (N, ..., C), of which the first is the sample and those
        between are values; features (C,) are one sample. None: no channels; a plane per sample.
    sample_axis : int
        Which axis counts the samples where `axis` is -1 or None: 0; 1 for sequences (L, N, C), and 0 for
        their rows (L * N, C); -1 for the columns of a matrix, and 0 for everything that is no matrix.

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
        x = _samples_first(x, sample_axis)
        samples = x.shape[0] if x.ndim >= 2 else 1
        channels = 1 if axis is None else x.shape[-1]
        values = math.prod(x.shape) // max(1, samples * channels)
        return x.reshape(samples, values, channels).transpose(1, 2)
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def from_planes(planes: Tensor, like: Tensor, axis: int | None, sample_axis: int = 0) -> Tensor:
    """The inverse of `to_planes`: the values of `planes` in the shape of `like`."""
    if axis is None or axis == -1:
        turned = _samples_first(like, sample_axis)
        out = planes.transpose(1, 2).reshape(turned.shape)
        return out if turned is like else _samples_first(out, sample_axis).contiguous()
    return planes.reshape(like.shape)


def _samples_first(x: Tensor, sample_axis: int) -> Tensor:
    swap = x.ndim >= 3 if sample_axis == 1 else x.ndim == 2 and sample_axis == -1
    return x.transpose(0, 1) if swap else x


def own_statistics(values: int, centre: bool, *, edge: bool = False) -> bool:
    """Whether a plane of so many values has statistics of its own, or shares those of its sample.

    A mean and a largest magnitude give two values back as they were, and a magnitude alone gives back one, at
    any number of bits: nothing would be quantized. Two pixels left over at the `edge` of a plane of larger
    tiles keep their own.
    """
    return values > (2 if centre and not edge else 1)


def tile_slices(height: int, width: int, patch: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Regions of an image whose tiles have one size: (rows, columns, tile height, tile width).

    Tiles of `patch` pixels from the upper left corner; what remains at the lower and right edge is smaller.
    """
    for rows, tile_height in _runs(height, patch):
        for columns, tile_width in _runs(width, patch):
            yield rows, columns, tile_height, tile_width


def is_edge(tile_height: int, tile_width: int, image: Tensor, patch: int) -> bool:
    """Whether a tile of `image` is smaller than others of it."""
    height, width = (min(side, patch) for side in image.shape[-2:])
    return tile_height * tile_width < height * width


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
