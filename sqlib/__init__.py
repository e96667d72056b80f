"""sqlib: quantizing super-resolution networks, exactly and honestly.

``import sqlib`` is cheap: torch is loaded only when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sqlib.engine import QuantizedModel, load_quantized, quantize_model, record_operands

__all__ = ["QuantizedModel", "__version__", "load_quantized", "quantize_model", "record_operands"]

_ENGINE = {"QuantizedModel", "load_quantized", "quantize_model", "record_operands"}
_SUBMODULES = {
    "codebook",
    "cost",
    "datasets",
    "engine",
    "errors",
    "evaluate",
    "experiments",
    "fit",
    "images",
    "kernels",
    "metrics",
    "models",
    "patches",
    "plots",
    "quantizers",
    "recipes",
    "reference",
    "resize",
    "training",
    "widgets",
}


def __getattr__(name: str) -> Any:
    if name in _ENGINE:
        return getattr(importlib.import_module("sqlib.engine"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"sqlib.{name}")
    raise AttributeError(f"module 'sqlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ENGINE, *_SUBMODULES})
