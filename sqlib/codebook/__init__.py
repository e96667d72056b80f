"""Fitting of quantization grids to data, in NumPy and Numba, without torch."""

from __future__ import annotations

from sqlib.codebook.bounds import Bounds, Grid, fit_bounds
from sqlib.codebook.histogram import Histogram
from sqlib.codebook.uniform import dequantize, quantize

__all__ = ["Bounds", "Grid", "Histogram", "dequantize", "fit_bounds", "quantize"]
