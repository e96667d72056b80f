"""Cutting images into overlapping patches and putting the results together.

>>> import numpy as np
>>> from sqlib.patches import Grid, merge, split
>>> image = np.arange(180 * 320 * 3).reshape(180, 320, 3)
>>> grid = Grid(180, 320, patch=72, overlap=6)
>>> patches = split(image, grid)
>>> len(patches), patches[-1].shape
(8, (114, 122, 3))
>>> bool((merge(patches, grid) == image).all())
True
"""

from __future__ import annotations

from sqlib.patches.grid import Box, Grid
from sqlib.patches.pieces import merge, split
from sqlib.patches.tiling import Tiling

__all__ = ["Box", "Grid", "Tiling", "merge", "split"]
