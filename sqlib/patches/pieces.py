"""Cutting an image into patches, and putting the upscaled patches together.

A NumPy array is an image (H, W) or (H, W, C), as files hold it; a tensor is (..., H, W), as networks take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError
from sqlib.patches.grid import Box, Grid, check_grid

if TYPE_CHECKING:
    from torch import Tensor

Image = TypeVar("Image", bound="NDArray[Any] | Tensor")


def split(image: Image, grid: Grid) -> list[Image]:
    """Patches of an image, row by row, as views of it.

    Parameters
    ----------
    image : array (H, W) or (H, W, C), or tensor (..., H, W); any dtype
    grid : of the image's size

    Raises
    ------
    InputError
        An image of another size than the grid's.
    """
    check_grid(grid)
    height, width = _size(image)
    if (height, width) != (grid.height, grid.width):
        raise InputError(
            f"the image has {height} x {width} pixels, the grid is for {grid.height} x {grid.width}"
        )
    return [_cut(image, box) for box in grid.boxes]


def merge(patches: Sequence[Image], grid: Grid, scale: int = 1) -> Image:
    """The image whose upscaled patches are given; of shared pixels, those nearer to a patch's middle count.

    The inverse of :func:`split` at scale 1.

    Parameters
    ----------
    patches : as from :func:`split` of the image before it was upscaled; all of one type, dtype and device
    grid : of the image before it was upscaled
    scale : factor by which the patches were upscaled

    Returns
    -------
    array or tensor
        New, like a patch but of ``scale * grid.height`` by ``scale * grid.width`` pixels.

    Raises
    ------
    InputError
        Patches that are too many, too few, of another size or scale, or not alike.
    """
    check_grid(grid)
    canvas, total = Canvas(grid, scale), len(grid.boxes)
    if len(patches) != total:
        raise InputError(f"{len(patches)} patches are given, the grid has {total}")
    for number, patch in enumerate(patches):
        canvas.put(number, patch)
    merged: Image = canvas.image
    return merged


class Canvas:
    """The image that :func:`merge` gives, for patches that come one by one, in any order.

    Parameters
    ----------
    grid, scale : as for :func:`merge`

    Attributes
    ----------
    image : what is there; None before the first patch
    """

    def __init__(self, grid: Grid, scale: int = 1) -> None:
        self.grid, self.scale = grid, scale
        self.image: Any = None
        self._kept, self._boxes, self._kind = grid.kept(scale), grid.boxes, ""

    def put(self, number: int, patch: Any) -> None:
        """Put the pixels of a patch that count in their place.

        Raises
        ------
        InputError
            A patch of another size or scale, or unlike the first one.
        """
        box, keep, scale = self._boxes[number], self._kept[number], self.scale
        height, width = _size(patch)
        if (height, width) != (scale * box.height, scale * box.width):
            raise InputError(
                f"patch {number} has {height} x {width} pixels; expected {scale * box.height} x "
                f"{scale * box.width}, {scale} times {box.height} x {box.width}"
            )
        kind = _kind(patch)
        if self.image is None:
            self._kind = kind
            self.image = _empty_like(patch, scale * self.grid.height, scale * self.grid.width)
        if kind != self._kind:
            raise InputError(f"patch {number} is {kind}, the first one {self._kind}: make them alike")
        top, left = scale * box.top, scale * box.left
        inner = Box(keep.top - top, keep.bottom - top, keep.left - left, keep.right - left)
        _cut(self.image, keep)[...] = _cut(patch, inner)


def _cut(image: Any, box: Box) -> Any:
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    return image[rows, columns] if isinstance(image, np.ndarray) else image[..., rows, columns]


def _size(image: Any) -> tuple[int, int]:
    """Height and width."""
    shape: Any = getattr(image, "shape", ())
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return int(shape[0]), int(shape[1])
    if not isinstance(image, np.ndarray) and hasattr(image, "new_empty") and len(shape) >= 2:
        return int(shape[-2]), int(shape[-1])
    raise InputError(
        f"expected an array (H, W) or (H, W, C) or a tensor (..., H, W), got {type(image).__name__}"
        + (f" of shape {tuple(shape)}" if shape else "")
    )


def _kind(patch: Any) -> str:
    """Everything that patches of one image have in common, in words."""
    if isinstance(patch, np.ndarray):
        return f"an array of {patch.dtype} with the shape (H, W{''.join(f', {n}' for n in patch.shape[2:])})"
    leading = "".join(f"{n}, " for n in patch.shape[:-2])
    return f"a tensor of {patch.dtype} on {patch.device} with the shape ({leading}H, W)"


def _empty_like(patch: Any, height: int, width: int) -> Any:
    if isinstance(patch, np.ndarray):
        return np.empty((height, width, *patch.shape[2:]), patch.dtype)
    return patch.new_empty((*patch.shape[:-2], height, width))
