"""Whether two images are in gray levels 0..255: scores of images in 0..1 look excellent and mean nothing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError

# Integers a little beyond 0..255 come from filters; 16-bit samples go much further.
_OVERSHOOT = 511
# Networks leave 0..1 by some tenths.
_UNIT = 1.5


def as_levels(image: Any) -> NDArray[Any]:
    """An array of real numbers in gray levels."""
    try:
        array = np.asarray(image)
    # Ragged lists; tensors on another device or with gradients.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected an image as a NumPy array (H, W, 3), got {type(image).__name__}: {error}"
        ) from error
    if array.dtype.kind not in "uif":
        raise InputError(f"expected an image of uint8 or floating point in 0..255, got dtype {array.dtype}")
    if (
        array.dtype.kind in "ui"
        and array.dtype != np.uint8
        and array.size
        and (array.max() > _OVERSHOOT or array.min() < -255)
    ):
        raise InputError(
            f"expected gray levels 0..255, got {array.dtype} in {array.min()}..{array.max()}: divide 16-bit "
            "samples by 257"
        )
    return array


def check_ranges(sr: NDArray[Any], hr: NDArray[Any]) -> None:
    """Two images in 0..1 look almost equal in units of gray levels: an error; one alone: a warning."""
    units = [_is_unit(image) for image in (sr, hr)]
    if all(units):
        raise InputError(
            f"expected gray levels 0..255, got two images in {_range(sr)} and {_range(hr)}, as if white were "
            "1: multiply both by 255"
        )
    if any(units) and max(float(sr.max()), float(hr.max())) > _UNIT + 1:
        warnings.warn(
            f"gray levels 0..255 are compared: the images lie in {_range(sr)} and {_range(hr)}; multiply the "
            "one with white at 1 by 255",
            stacklevel=4,  # at the call of psnr or ssim
        )


def _is_unit(image: NDArray[Any]) -> bool:
    """Whether an image of fractions lies about 0..1 or -1..1 (black alone has no fractions)."""
    if image.dtype.kind != "f" or not image.size or not -_UNIT <= image.min() <= image.max() <= _UNIT:
        return False
    return bool(np.any(image != np.rint(image))) or bool(image.max() == 1)


def _range(image: NDArray[Any]) -> str:
    return f"{image.min():.4g}..{image.max():.4g}"
