"""What changes a quantized network after calibration: compensation, reconstruction, distillation.

Importing this package loads neither torch nor numpy; its names do on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.fit.distillation import Distilled, distill

__all__ = ["Distilled", "distill"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("sqlib.fit.distillation"), name)
    raise AttributeError(f"module 'sqlib.fit' has no attribute {name!r}")
