"""Fitting of quantization grids and point sets to data, in NumPy and Numba, without torch."""

from __future__ import annotations

from sqlib.codebook.bounds import Bounds, Grid
from sqlib.codebook.choosing import fit_codebook
from sqlib.codebook.coding import dequantize, quantize
from sqlib.codebook.fitting import fit_bounds
from sqlib.codebook.histogram import Histogram
from sqlib.codebook.lattice import LatticeHistogram
from sqlib.codebook.oracle import ErrorOracle
from sqlib.codebook.points import Codebook
from sqlib.codebook.universal import UniversalSet, universal, universal_set

__all__ = [
    "Bounds",
    "Codebook",
    "ErrorOracle",
    "Grid",
    "Histogram",
    "LatticeHistogram",
    "UniversalSet",
    "dequantize",
    "fit_bounds",
    "fit_codebook",
    "quantize",
    "universal",
    "universal_set",
]
