"""Numba kernels for the CPU. They compile on first use, not at import; see `sqlib.kernels._jit`."""

from __future__ import annotations

from sqlib.kernels.histogram import add_histogram
from sqlib.kernels.uniform import fake_quantize

__all__ = ["add_histogram", "fake_quantize"]
