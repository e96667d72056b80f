"""Compile every kernel once, so that no later process pays for it: for container images and first lessons."""

from __future__ import annotations

import importlib
import pkgutil
from typing import NamedTuple

import numpy as np

from sqlib import kernels


class Compiled(NamedTuple):
    """Kernel variants that this process took from the disk, and those that it had to compile."""

    loaded: int
    compiled: int


def warmup() -> None:
    """Call everything that leads to a kernel, on tiny data of both dtypes; the machine code stays on disk."""
    from sqlib import codebook
    from sqlib.codebook.nearest import nearest_table
    from sqlib.codebook.shift_add import multiply
    from sqlib.fit.compensation.rows import fit_compensated
    from sqlib.kernels.normalized import fake_quantize_normalized, plane_statistics
    from sqlib.kernels.uniform_backward import Grid, backward

    rng = np.random.default_rng(0)
    lattice, free = codebook.universal(2), np.sort(rng.uniform(-1, 1, 12))
    for dtype in (np.float32, np.float64):
        x = rng.uniform(-1, 1, (1, 2, 70)).astype(dtype)
        codebook.Histogram(-1, 1).add(x)
        codebook.fit_bounds(x, 2, method="mse", steps=2)
        codebook.ErrorOracle.of_binned(x).errors(-1, 1, 2)
        kernels.fake_quantize(x, -1.0, 0.1, 15)
        kernels.fake_quantize(x, [-1.0, -1.0], [0.1, 0.1], [15, 15], axis=1)
        for axis, channels in ((None, 1), (1, 2)):
            grid = Grid(*(np.full(channels, v, dtype) for v in (-1.0, 0.1, 15)))
            backward(x, x, grid, axis=axis, out=np.empty_like(x))
        histogram = codebook.LatticeHistogram(lattice.denominator, 2)
        histogram.add(x, axis=1)
        histogram.add(x, axis=1, sample_weight=np.ones_like(x))
        for method in ("exact", "kmeans", "release"):
            fitted = codebook.fit_codebook(histogram, lattice, 4, method=method, random_state=0)
        table = nearest_table(fitted, dtype)
        for way in (table, table._replace(few=None)):
            fake_quantize_normalized(x, way)
            fake_quantize_normalized(x, way, statistics=plane_statistics(x))
        for method in ("exact", "kmeans", "exhaustive"):
            for candidates in (lattice, free):
                codebook.fit_codebook(x[0], candidates, 2, method=method, random_state=0)
    fit_compensated(rng.normal(size=(2, 3)), np.eye(3), 4)
    multiply(np.arange(3), np.arange(3), lattice)


def compiled() -> Compiled:
    """Counts over all kernels of `sqlib.kernels`, so far in this process."""
    from numba.core.dispatcher import Dispatcher

    loaded = made = 0
    for module in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Dispatcher) and value.__module__ == module.name:
                hits = sum(value.stats.cache_hits.values())
                loaded += hits
                made += len(value.signatures) - hits
    return Compiled(loaded, made)
