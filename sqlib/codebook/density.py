"""Density-based dual clipping (DBDC): cut thin tails, whichever side is thinner first.

Source: PTQ4SR (Tu et al., CVPR 2023) as released. Over a histogram of 2,048 bins of the data's range: while
more than a share 1 - p of the values is kept, drop the outermost bin of the less populated side. The bin that
ends the loop is dropped as well, however many values it holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 2048


def clip_or_default(clip: float | None, bits: int) -> float:
    """p, or for None as released: 1e-5 at 8 bits, else 1e-4 (the configuration lists 5e-4, unused)."""
    if clip is not None:
        return clip
    return 1e-5 if bits == 8 else 1e-4


def clip_density(counts: NDArray[np.int64], lower: float, upper: float, clip: float) -> tuple[float, float]:
    """Bounds after clipping.

    Parameters
    ----------
    counts : ndarray of int64
        Integers (bins,): values per equal bin of [lower, upper]; at least one value.
    clip : float
        The share p, 0 to below 1; 0 keeps everything.

    Returns
    -------
    lower, upper: edges of bins; at least one bin is kept. Of two equally populated ends the upper goes
    first (the release leaves ties open).

    Notes
    -----
    O(bins).
    """
    total = int(counts.sum())
    first, last, kept = 0, len(counts) - 1, total
    while first < last and kept > (1.0 - clip) * total:
        if counts[first] < counts[last]:
            kept -= int(counts[first])
            first += 1
        else:
            kept -= int(counts[last])
            last -= 1
    width = (upper - lower) / len(counts)
    return lower + first * width, upper - (len(counts) - 1 - last) * width
