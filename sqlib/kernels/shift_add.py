"""Products with points of a universal set by shifts and additions only."""

from __future__ import annotations

import numpy as np

from sqlib.kernels._jit import jit


@jit
def shift_add(codes, positions, signs, shifts, widest, out):  # type: ignore[no-untyped-def]
    """``out[i] = codes[i] * numerator of value positions[i]``, one shift and one addition per element used.

    `codes`, `positions`, `out`: int64 (n,); `signs`: int64 (size,); `shifts`: int8 (size, words), right
    shifts relative to `widest`, -1 for an absent element.
    """
    for i in range(codes.size):
        total = np.int64(0)
        row = positions[i]
        for word in range(shifts.shape[1]):
            shift = shifts[row, word]
            if shift >= 0:
                total += codes[i] << np.int64(widest - shift)
        out[i] = -total if signs[row] < 0 else total
