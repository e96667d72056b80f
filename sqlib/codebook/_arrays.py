"""What users pass for an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError


def as_array(values: Any, what: str) -> NDArray[Any]:
    """The values as an array; InputError for what NumPy cannot read, and for masks, which it would drop."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{what}: a masked array; pass values.compressed(), or fill the masked values")
    try:
        return np.asarray(values)
    # Ragged lists; tensors on another device, with gradients or in bfloat16.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what}: {type(values).__name__} cannot be read as an array: {error}") from error
