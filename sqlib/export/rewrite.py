"""Outputs of layers in 8 bits, so that a runtime keeps to integers from one product to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sqlib.export.grid import Grid

_TRANSPARENT = ("Relu", "DepthToSpace")
"""Operators that may stand between a layer and the quantizer of the next one: they commute with rounding."""


def only_user(value: Any) -> Any:
    """The one node that reads a value, or None."""
    users = list(value.uses())
    return users[0].node if len(users) == 1 and not value.is_graph_output() else None


def constant(graph: Any, name: str, array: Any) -> Any:
    """A new initializer of the graph."""
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    shape = ir.Shape(np.shape(array))
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def add(graph: Any, name: str, inputs: list[Any], **attributes: Any) -> Any:
    """A new node; returns its output. Nodes are put in order at the end (``graph.sort``)."""
    import onnx_ir as ir

    node = ir.node(name, inputs, attributes)
    graph.append(node)
    return node.outputs[0]


def quantize_outputs(graph: Any, grids: Mapping[str, Grid]) -> None:
    """In place of the marks of `sqlib.export.program.Program`, a quantizer where none follows anyway."""
    for mark in [n for n in graph if n.op_type == "Output" and n.domain == "sqlib"]:
        value, name = mark.inputs[0], mark.attributes["site"].value
        follower = only_user(mark.outputs[0])
        while follower is not None and follower.op_type in _TRANSPARENT:
            follower = only_user(follower.outputs[0])
        if follower is None or follower.op_type != "QuantizeLinear":
            scale = constant(graph, f"{name}:output_scale", grids[name].scale.numpy())
            zero = constant(graph, f"{name}:output_zero", grids[name].zero_point.numpy().astype(np.uint8))
            codes = add(graph, "QuantizeLinear", [value, scale, zero])
            value = add(graph, "DequantizeLinear", [codes, scale, zero])
        mark.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(mark, safe=True)


def pack(graph: Any) -> None:
    """Store integers of weights in 4 bits where they fit."""
    import onnx_ir as ir

    for node in [n for n in graph if n.op_type == "DequantizeLinear"]:
        kept = {position: node.inputs[position].const_value for position in (0, 2)}
        if kept[0] is None:
            continue
        arrays = {position: tensor.numpy() for position, tensor in kept.items()}
        if any(a.dtype != np.int8 or a.min() < -8 or a.max() > 7 for a in arrays.values()):
            continue
        for position, array in arrays.items():
            name = f"{node.inputs[position].name}_4"
            packed = ir.Tensor(array, dtype=ir.DataType.INT4, name=name)
            kind, shape = ir.TensorType(packed.dtype), ir.Shape(array.shape)
            new = ir.Value(name=name, type=kind, shape=shape, const_value=packed)
            graph.register_initializer(new)
            node.replace_input_with(position, new)
