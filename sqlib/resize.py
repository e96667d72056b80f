"""MATLAB-compatible bicubic resizing, the degradation behind every SR benchmark.

Low-resolution benchmark images are made with MATLAB's ``imresize(hr, 1/s, 'bicubic')``. Pillow, OpenCV and
torch disagree with it (other antialiasing, other borders, other coefficient), which moves PSNR by tenths of
a dB; so the function is rebuilt here to the last bit.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError

__all__ = ["downscale", "imresize"]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2, support [-2, 2]."""
    a = np.abs(x)
    near = 1.5 * a**3 - 2.5 * a**2 + 1
    far = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return np.where(a <= 1, near, np.where(a <= 2, far, 0.0))


@lru_cache(maxsize=64)
def _contributions(
    length: int, out_length: int, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weights and source indices, both (out_length, taps), of one resized dimension.

    When shrinking, the kernel is stretched by 1/scale (antialiasing). Borders are mirrored with the edge
    sample repeated, as MATLAB does.
    """
    stretch = min(scale, 1.0)
    width = 4.0 / stretch
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    taps = ceil(width) + 2
    index = np.floor(centre - width / 2)[:, None] + np.arange(taps)
    weights = stretch * _cubic(stretch * (centre[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    mirror = np.concatenate([np.arange(length), np.arange(length - 1, -1, -1)])
    source = mirror[np.mod(index.astype(np.intp) - 1, 2 * length)]
    used = np.any(weights != 0, axis=0)
    return np.ascontiguousarray(weights[:, used]), np.ascontiguousarray(source[:, used])


def _resize_rows(image: NDArray[np.float64], out_length: int, scale: float) -> NDArray[np.float64]:
    weights, source = _contributions(image.shape[0], out_length, scale)
    out = np.zeros((out_length, *image.shape[1:]))
    for tap in range(weights.shape[1]):
        out += weights[:, tap, None, None] * image[source[:, tap]]
    return out


def _to_uint8(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round half away from zero and saturate, as MATLAB's ``uint8``."""
    return np.clip(np.floor(x + 0.5), 0, 255)


def imresize(
    image: NDArray[np.generic], scale: float | None = None, *, size: tuple[int, int] | None = None
) -> NDArray[np.generic]:
    """Bicubic resize with antialiasing, equal to MATLAB's ``imresize``.

    Parameters
    ----------
    image : array (H, W) or (H, W, C)
        uint8, or floating point in any range. uint8 images are rounded after each dimension (rows first),
        which is what MATLAB does and what the distributed benchmark files contain.
    scale : float, optional
        Factor for both dimensions; the output has ``ceil(H * scale)`` rows.
    size : (int, int), optional
        Output rows and columns instead of ``scale``.

    Returns
    -------
    array of the input's dtype (integers other than uint8 are refused).

    Raises
    ------
    InputError
        Neither or both of ``scale`` and ``size``, a non-positive factor, an empty or wrongly shaped image.

    Notes
    -----
    O(H W C taps) with ``taps = 4 max(1, 1/scale) + 2``.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(f"imresize got an array of shape {image.shape}; expected (H, W) or (H, W, C), not empty")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"imresize got dtype {image.dtype}; expected uint8 or floating point: convert first")
    if (scale is None) == (size is None):
        raise InputError("imresize needs exactly one of scale= and size=")
    height, width = image.shape[:2]
    if size is None:
        assert scale is not None
        if not (np.isfinite(scale) and scale > 0):
            raise InputError(f"imresize got scale {scale}; expected a positive finite number")
        # 1e-9: (1/3) * 300 is 100.00000000000001 in some orders of evaluation and must give 100 rows.
        size = (ceil(height * scale - 1e-9), ceil(width * scale - 1e-9))
        factors = (float(scale), float(scale))
    else:
        if min(size) < 1:
            raise InputError(f"imresize got size {size}; expected two positive integers")
        factors = (size[0] / height, size[1] / width)

    planes = image.astype(np.float64).reshape(height, width, -1)
    is_uint8 = image.dtype == np.uint8
    # MATLAB resizes the dimension with the smaller factor first; equal factors mean rows first.
    order = (0, 1) if factors[0] <= factors[1] else (1, 0)
    for axis in order:
        moved = planes if axis == 0 else planes.swapaxes(0, 1)
        moved = _resize_rows(moved, size[axis], factors[axis])
        if is_uint8:
            moved = _to_uint8(moved)
        planes = moved if axis == 0 else moved.swapaxes(0, 1)
    out = planes.reshape(*planes.shape[:2], *image.shape[2:])
    return np.ascontiguousarray(out).astype(image.dtype)


def downscale(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The benchmark degradation: crop ``hr`` to a multiple of ``scale``, then MATLAB bicubic by 1/scale.

    Parameters
    ----------
    hr : uint8 array (H, W, 3) or (H, W)
    scale : int, at least 1

    Returns
    -------
    uint8 array (H // scale, W // scale, ...)
    """
    if int(scale) != scale or scale < 1:
        raise InputError(f"downscale got scale {scale!r}; expected an integer of at least 1")
    height, width = (hr.shape[0] // scale * scale, hr.shape[1] // scale * scale)
    if height == 0 or width == 0:
        raise InputError(f"image of {hr.shape[0]} x {hr.shape[1]} pixels is smaller than one {scale} x {scale} block")
    out = imresize(hr[:height, :width], 1 / scale)
    return np.asarray(out, dtype=np.uint8)
