"""MATLAB-compatible bicubic resizing, the degradation behind every SR benchmark.

Low-resolution benchmark images are made with MATLAB's ``imresize(hr, 1/s, 'bicubic')``. Pillow, OpenCV and
torch disagree with it (other antialiasing, other borders, other coefficient), which moves PSNR by tenths of
a dB; so the function is rebuilt here, and it gives the fifteen Set5 low-resolution files that SwinIR
distributes without a single different pixel (``tests/test_resize.py``).

One resized dimension is a sparse matrix with a few taps per row; an image is resized by multiplying with
the matrix of its rows and the matrix of its columns. The matrices depend on the sizes only and are kept.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, inf
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sqlib.errors import InputError

__all__ = ["crop_to_multiple", "downscale", "imresize"]

# Beyond these an array would take tens of gigabytes: the factor is a slip.
_MOST_PIXELS = 2**31
_MOST_WEIGHTS = 2**28

Planes = NDArray[np.float64]  # (H, W, C)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2, support [-2, 2]."""
    a = np.abs(x)
    near = 1.5 * a**3 - 2.5 * a**2 + 1
    far = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return np.where(a <= 1, near, np.where(a <= 2, far, 0.0))


@lru_cache(maxsize=64)
def _resize_matrix(length: int, out_length: int, scale: float) -> csr_array:
    """The (out_length, length) matrix that resizes one dimension.

    When shrinking, the kernel is stretched by 1/scale (antialiasing). Borders are mirrored with the edge
    sample repeated, as MATLAB does. Entries stay in tap order and mirrored samples stay separate entries:
    sums are formed in MATLAB's order, which decides the last bit of values that lie on a rounding border.
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
    weights, source = weights[:, used], source[:, used]
    ends = np.arange(out_length + 1) * weights.shape[1]
    return csr_array((weights.ravel(), source.ravel(), ends), shape=(out_length, length))


def _resize_axis(planes: Planes, axis: int, out_length: int, scale: float) -> Planes:
    """Resize one of the first two axes of a float64 array (H, W, C)."""
    moved = planes if axis == 0 else planes.swapaxes(0, 1)
    matrix = _resize_matrix(moved.shape[0], out_length, scale)
    flat = matrix @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    out = flat.reshape(out_length, *moved.shape[1:])
    return out if axis == 0 else out.swapaxes(0, 1)


def _round_to_uint8(planes: Planes) -> Planes:
    """Round half up and saturate, as MATLAB's ``uint8`` (negative values saturate anyway)."""
    planes = planes + 0.5
    np.floor(planes, out=planes)
    return np.clip(planes, 0, 255, out=planes)


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
        Neither or both of ``scale`` and ``size``, a factor that is not a positive finite number, a size that
        is not two positive integers, an empty or wrongly shaped image, a result out of all proportion.

    Notes
    -----
    O(H W C taps) with ``taps = 4 max(1, 1/scale) + 2``; 512 x 512 x 3 by 1/4 takes a few milliseconds.
    """
    image = _array(image, "imresize")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError(
            f"imresize got an array of shape {image.shape}; expected (H, W) or (H, W, C), not empty"
        )
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"imresize got dtype {image.dtype}; expected uint8 or floating point: convert first")
    if (scale is None) == (size is None):
        raise InputError("imresize needs exactly one of scale= and size=")
    height, width = image.shape[:2]
    if size is None:
        scale, slack = _factor(scale)
        # 1e-9: (1/3) * 300 is 100.00000000000001 in some orders of evaluation and must give 100 rows.
        size = (max(ceil(height * scale * slack - 1e-9), 1), max(ceil(width * scale * slack - 1e-9), 1))
        factors = (scale, scale)
    else:
        size = _size(size)
        factors = (size[0] / height, size[1] / width)
    taps = [max(1.0, 1 / factor) * 4 * length for factor, length in zip(factors, size)]
    if size[0] * size[1] > _MOST_PIXELS or max(taps) > _MOST_WEIGHTS:
        raise InputError(
            f"imresize by {factors[0]:.4g} and {factors[1]:.4g} to {size[0]} x {size[1]} pixels is out of "
            "proportion: expected a moderate factor"
        )

    planes = image.astype(np.float64).reshape(height, width, -1)
    is_uint8 = image.dtype == np.uint8
    # MATLAB resizes the dimension with the smaller factor first; equal factors mean rows first.
    order = (0, 1) if factors[0] <= factors[1] else (1, 0)
    for axis in order:
        planes = _resize_axis(planes, axis, size[axis], factors[axis])
        if is_uint8:
            planes = _round_to_uint8(planes)
    out = planes.reshape(*planes.shape[:2], *image.shape[2:])
    return np.ascontiguousarray(out, dtype=image.dtype)


def _factor(scale: Any) -> tuple[float, float]:
    """A positive finite factor, and what to multiply lengths by before they are rounded up.

    1/3 of 300 rows is 100 rows, though the nearest float32 to 1/3 is a little more than 1/3.
    """
    if getattr(scale, "ndim", None) == 0 and not isinstance(scale, np.generic):
        scale = scale.item()  # an array or tensor that holds one number
    plain = isinstance(scale, Real) and not isinstance(scale, (bool, np.bool_))
    try:
        value = float(scale) if plain else 0.0
    except OverflowError:  # an integer beyond floating point
        value = inf
    if not 0 < value < inf:
        raise InputError(f"imresize got scale {scale!r}; expected a positive finite number")
    if value > _MOST_PIXELS:  # the product with a length must stay a number
        raise InputError(f"imresize got scale {scale!r}, out of proportion: expected a moderate factor")
    coarse = isinstance(scale, (np.float16, np.float32))
    return value, 1 - float(np.finfo(type(scale)).eps) if coarse else 1.0


def _size(size: Any) -> tuple[int, int]:
    """Two positive integers, of Python or NumPy."""
    given = list(size) if isinstance(size, (tuple, list, np.ndarray)) else []
    whole = [isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= 1 for v in given]
    if len(given) != 2 or not all(whole):
        raise InputError(f"imresize got size {size!r}; expected two positive integers")
    return int(given[0]), int(given[1])


def _array(image: Any, what: str) -> NDArray[Any]:
    if isinstance(image, np.ma.MaskedArray):
        raise InputError(f"{what} got a masked array; fill the masked pixels first")
    try:
        return np.asarray(image)
    # Ragged lists; tensors on another device, with gradients or in bfloat16.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} got {type(image).__name__}, expected an array: {error}") from error


def downscale(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The benchmark degradation: crop ``hr`` to a multiple of ``scale``, then MATLAB bicubic by 1/scale.

    Parameters
    ----------
    hr : uint8 array (H, W, 3) or (H, W)
    scale : int, at least 1

    Returns
    -------
    uint8 array (H // scale, W // scale, ...)

    Raises
    ------
    InputError
        ``scale`` is not a positive integer, ``hr`` is not uint8 or smaller than one block of scale x scale.
    """
    hr = crop_to_multiple(hr, scale)
    if hr.dtype != np.uint8:
        raise InputError(
            f"downscale got dtype {hr.dtype}; expected uint8 (imresize takes floating point too)"
        )
    out = imresize(hr, 1 / int(scale))
    return np.asarray(out, dtype=np.uint8)


def crop_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """``image[:H // m * m, :W // m * m]`` (a view): benchmarks cut the right and lower edge.

    Raises
    ------
    InputError
        ``multiple`` is not a positive integer, or the image is smaller than one block.
    """
    if not isinstance(multiple, (int, np.integer)) or isinstance(multiple, bool) or multiple < 1:
        raise InputError(f"the scale is {multiple!r}; expected an integer of at least 1")
    multiple = int(multiple)  # small NumPy integers overflow
    image = _array(image, "crop_to_multiple")
    if image.ndim not in (2, 3):
        raise InputError(f"expected an image (H, W) or (H, W, C), got an array of shape {image.shape}")
    height, width = (image.shape[0] // multiple * multiple, image.shape[1] // multiple * multiple)
    if height == 0 or width == 0:
        raise InputError(
            f"an image of {image.shape[0]} x {image.shape[1]} pixels is smaller than one "
            f"{multiple} x {multiple} block: use a larger image or a smaller scale"
        )
    return image[:height, :width]
