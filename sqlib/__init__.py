"""sqlib: quantizing super-resolution networks, exactly and honestly.

``import sqlib`` is cheap: torch is loaded only when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sqlib.loading import load_quantized
    from sqlib.operands import record_operands
    from sqlib.quantize import QuantizedModel, quantize_model

__all__ = ["QuantizedModel", "__version__", "load_quantized", "quantize_model", "record_operands"]

_LAZY = {
    "load_quantized": "sqlib.loading",
    "quantize_model": "sqlib.quantize",
    "QuantizedModel": "sqlib.quantize",
    "record_operands": "sqlib.operands",
}
_SUBMODULES = {
    "codebook",
    "cost",
    "datasets",
    "distill",
    "errors",
    "evaluate",
    "experiments",
    "images",
    "kernels",
    "metrics",
    "models",
    "patches",
    "plots",
    "quantizers",
    "recipes",
    "resize",
    "training",
    "widgets",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"sqlib.{name}")
    raise AttributeError(f"module 'sqlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
