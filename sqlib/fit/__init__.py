"""What changes a quantized network after calibration: compensation, reconstruction, training.

One loop (`sqlib.fit.loop`) trains all of it, and full-precision networks (`sqlib.training`) as well.
Importing this package loads neither torch nor numpy; its names do on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.fit.distillation.train import Distilled, distill
    from sqlib.fit.loop.bar import progress
    from sqlib.fit.quantization_aware.task import Answer
    from sqlib.fit.quantization_aware.train import Trained, train_quantized
    from sqlib.fit.quantization_aware.trainable import learnable

_HOME = {
    "Answer": "quantization_aware.task",
    "Distilled": "distillation.train",
    "Trained": "quantization_aware.train",
    "distill": "distillation.train",
    "learnable": "quantization_aware.trainable",
    "progress": "loop.bar",
    "train_quantized": "quantization_aware.train",
}

__all__ = ["Answer", "Distilled", "Trained", "distill", "learnable", "progress", "train_quantized"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sqlib.fit.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sqlib.fit' has no attribute {name!r}")
