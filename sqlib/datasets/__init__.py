"""Named image sets, pairs of low and high resolution, and calibration samples.

>>> from sqlib import datasets
>>> photos = datasets.load("builtin")
>>> pair = photos.pair(0, scale=4)
>>> pair.hr.shape[0] == 4 * pair.lr.shape[0]
True

Files are looked for in ``data_dir``, then ``$SQLIB_DATA``, then the cache (``$SQLIB_CACHE`` or the platform's
place for caches); see :func:`load`. Nothing here imports torch before a calibration batch is asked for.
"""

from __future__ import annotations

from sqlib.datasets._calibration import Calibration, calibration
from sqlib.datasets._catalogue import CATALOGUE, Entry, names
from sqlib.datasets._dataset import Dataset, Pair
from sqlib.datasets._load import cache_folder, from_folder, load

__all__ = [
    "CATALOGUE",
    "Calibration",
    "Dataset",
    "Entry",
    "Pair",
    "cache_folder",
    "calibration",
    "from_folder",
    "load",
    "names",
]
