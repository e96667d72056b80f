"""How an image is cut into overlapping patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlib.errors import InputError


def _sides(length: int, patch: int, overlap: int) -> list[int]:
    """Lengths of the patches along one side: all ``patch`` but the last, which reaches to the border."""
    starts = range(0, length - patch + 1, patch - overlap)
    return [patch] * (len(starts) - 1) + [length - starts[-1]]


def patch_sizes(size: Sequence[int], patch: int | None, overlap: int = 0) -> dict[tuple[int, int], int]:
    """Sizes of the patches of an image, and how many there are of each.

    Patches start at 0, p - o, 2 (p - o), ... as long as one fits; the last is extended to the border, so that
    no further one is needed (the rule of CADyQ's release; RefQSR's counts follow it as well).

    Parameters
    ----------
    size
        Width and height of the image, in pixels.
    patch
        Side p of a patch; None for the whole image.
    overlap
        o, pixels shared by neighbours; below ``patch``.

    Returns
    -------
    dict
        (width, height) of a patch -> count; at most four entries.

    Raises
    ------
    InputError
        Patch larger than the image, or an overlap that leaves no step.

    Examples
    --------
    >>> patch_sizes((320, 180), 72, 6)
    {(72, 72): 3, (72, 114): 3, (122, 72): 1, (122, 114): 1}
    """
    width, height = size
    if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
        raise InputError(f"overlap={overlap!r}: expected an integer of 0 or more pixels")
    if patch is None:
        if overlap:
            raise InputError(f"overlap={overlap} without a patch: give patch=, or leave overlap out")
        return {(width, height): 1}
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
        raise InputError(f"patch={patch!r}: expected an integer of 1 or more pixels")
    if overlap >= patch:
        raise InputError(f"overlap={overlap} of patches of {patch} pixels: expected less than the patch")
    if patch > min(width, height):
        raise InputError(
            f"patch={patch} is larger than the low-resolution image of {width}x{height}; "
            f"expected at most {min(width, height)}, or no patch for the whole image"
        )
    return dict(
        Counter((w, h) for w in _sides(width, patch, overlap) for h in _sides(height, patch, overlap))
    )
