"""Distillation calibration: train a quantized network's bounds to answer as it does in full precision.

Importing this package loads neither torch nor numpy; `sqlib.fit.distill` is the function.
"""

from sqlib.fit.distillation.options import Options

__all__ = ["Options"]
