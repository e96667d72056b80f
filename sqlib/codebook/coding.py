"""`quantize` and `dequantize` for any fitted quantizer: one table from the data class to its functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqlib.codebook import points, uniform
from sqlib.codebook.bounds import Bounds
from sqlib.codebook.points import Codebook
from sqlib.errors import InputError

_CODERS: dict[type, Any] = {Bounds: uniform, Codebook: points}


def _coder(q: object) -> Any:
    for kind, module in _CODERS.items():
        if isinstance(q, kind):
            return module
    expected = " or ".join(kind.__name__ for kind in _CODERS)
    raise InputError(f"quantizer of type {type(q).__name__}, expected {expected} (fit_bounds, fit_codebook)")


def quantize(x: NDArray[Any], q: Bounds | Codebook) -> NDArray[Any]:
    """Integer codes of `x`: see `sqlib.codebook.uniform.quantize` and `sqlib.codebook.points.quantize`."""
    return np.asarray(_coder(q).quantize(x, q))


def dequantize(codes: NDArray[Any], q: Bounds | Codebook, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Values of integer codes: see the functions of the same name in the two modules."""
    return np.asarray(_coder(q).dequantize(codes, q, dtype))
