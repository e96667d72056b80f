"""How many patches of which size an image is cut into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

from sqlib._checks import check_integer
from sqlib.errors import InputError
from sqlib.patches import Grid, Tiling


def patch_sizes(size: Sequence[int], patch: int | None, overlap: int = 0) -> dict[tuple[int, int], int]:
    """Sizes of the patches of an image, and how many there are of each.

    The rule is that of `sqlib.patches.Grid`. An image smaller than a patch is refused: whoever asks what one
    image costs means patches of it.

    Parameters
    ----------
    size : sequence of int
        Width and height of the image, in pixels.
    patch : int or None
        Side p of a patch; None for the whole image.
    overlap : int
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
    if patch is None:
        check_integer("overlap", overlap, 0, 2**31)
        if overlap:
            raise InputError(f"overlap={overlap} without a patch: give patch=, or leave overlap out")
        return {(width, height): 1}
    Tiling(patch, overlap)  # refuses what is no patch
    if patch > min(width, height):
        raise InputError(
            f"patch={patch} is larger than the low-resolution image of {width}x{height}; "
            f"expected at most {min(width, height)}, or no patch for the whole image"
        )
    grid = Grid(height, width, patch, overlap)
    sides = product(grid.columns, grid.rows)
    return dict(Counter((right - left, bottom - top) for (left, right), (top, bottom) in sides))
