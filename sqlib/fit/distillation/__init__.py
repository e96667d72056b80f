"""Distillation calibration: train a quantized network's bounds to answer as it does in full precision.

Importing this package loads neither torch nor numpy; the functions do on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqlib.fit.distillation.options import Options

if TYPE_CHECKING:
    from sqlib.fit.distillation.train import Distilled, distill

__all__ = ["Distilled", "Options", "distill"]


def __getattr__(name: str) -> Any:
    if name in ("Distilled", "distill"):
        return getattr(importlib.import_module("sqlib.fit.distillation.train"), name)
    raise AttributeError(f"module 'sqlib.fit.distillation' has no attribute {name!r}")
