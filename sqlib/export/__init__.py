"""Quantized networks as files for other programs. Loads torch on first use, onnx when a file is written."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.export._measured import measured
    from sqlib.export.onnx_file import Exported, export_onnx
    from sqlib.export.runtime import OnnxNetwork

_HOME = {
    "Exported": "onnx_file",
    "OnnxNetwork": "runtime",
    "export_onnx": "onnx_file",
    "measured": "_measured",
}

__all__ = ["Exported", "OnnxNetwork", "export_onnx", "measured"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sqlib.export.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sqlib.export' has no attribute {name!r}")
