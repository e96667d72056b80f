"""How any network is intercepted, calibrated, quantized, saved and loaded. Knows no recipe.

Importing this package loads neither torch nor numpy; its names do on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.engine.context import Context
    from sqlib.engine.loading import load_quantized
    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.operands import record_operands
    from sqlib.engine.quantize import quantize_model
    from sqlib.engine.recipe import Observer, Recipe
    from sqlib.engine.site import Site

_HOME = {
    "Context": "context",
    "Observer": "recipe",
    "QuantizedModel": "model",
    "Recipe": "recipe",
    "Site": "site",
    "load_quantized": "loading",
    "quantize_model": "quantize",
    "record_operands": "operands",
}

__all__ = [
    "Context",
    "Observer",
    "QuantizedModel",
    "Recipe",
    "Site",
    "load_quantized",
    "quantize_model",
    "record_operands",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sqlib.engine.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sqlib.engine' has no attribute {name!r}")
