"""Arrays of pixels, checked and rounded. NumPy only: training on a borrowed machine scores without Pillow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Clip to 0..255 and round half to even, as the networks' own evaluation scripts do.

    Parameters
    ----------
    image : floating point array of any shape, in units of gray levels (0..255)

    Raises
    ------
    InputError
        NaN or infinite values.
    """
    image = np.asarray(image)
    bad = int(image.size - np.count_nonzero(np.isfinite(image)))
    if bad:
        raise InputError(
            f"{bad} of {image.size} values are NaN or infinite: the network or its weights are broken"
        )
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def from_16_bits(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """``round(value / 257)`` of integers in 0..65535: white is white, and steps are even."""
    values = np.asarray(values)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError("samples outside 0..65535, expected 1, 8 or 16 bits")
    # 257 is odd, so there are no ties
    return ((2 * values.astype(np.int64) + 257) // 514).astype(np.uint8)


def as_rgb(image: NDArray[np.uint8], what: str = "image") -> NDArray[np.uint8]:
    """Check that ``image`` is a non-empty uint8 array (H, W, 3) and return it as an array."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"{what}: expected a non-empty uint8 array (H, W, 3), got {image.dtype} of shape {image.shape}"
            + ("; round with images.to_uint8 first" if np.issubdtype(image.dtype, np.floating) else "")
        )
    return image
