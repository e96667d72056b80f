r"""Pixel shuffles that cost less: the same numbers from the same products, in another order.

A shuffle by r moves channel :math:`c r^2 + a r + b` of pixel (y, x) to channel c of pixel (ry + a, rx + b),
value by value. It costs less

* of integers than of floating-point values: the quantizer that follows comes first;
* of few channels: a convolution with few outputs is computed before the shuffle, with :math:`r^2` times the
  outputs, instead of after it;
* in blocks: with the channels in the order (a, b, c), which the convolution before can give them, all
  channels of a pixel lie together and move as one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.export.rewrite import add, constant, only_user

FEW = 4
"""Outputs up to which a convolution is computed before the shuffle."""

_CLIPS = ("Clip", "Min")
Change = Callable[[NDArray[Any], NDArray[Any] | None], NDArray[Any]]


def rewrite(graph: Any) -> None:
    """All three, wherever they apply."""
    for node in [n for n in graph if n.op_type == "DepthToSpace" and n.attributes["mode"].value == "CRD"]:
        _quantize_first(node)
        if not _convolve_first(graph, node):
            _move_blocks(graph, node)


def _quantize_first(shuffle: Any) -> None:
    source, result = shuffle.inputs[0], shuffle.outputs[0]
    first = only_user(result)
    if first is None or first.op_type != "QuantizeLinear" or len(first.inputs[1].shape or ()):
        return
    last, clip = first, only_user(first.outputs[0])
    if clip is not None and clip.op_type in _CLIPS:
        last = clip
    codes = last.outputs[0]
    codes.replace_all_uses_with(result)
    first.replace_input_with(0, source)
    shuffle.replace_input_with(0, codes)
    result.type = codes.type
    for node in {first, last}:
        node.outputs[0].shape = source.shape


def _convolve_first(graph: Any, shuffle: Any) -> bool:
    """Swap with the convolution that follows, if it has few outputs and they are quantized."""
    restore = only_user(shuffle.outputs[0])
    if restore is None or restore.op_type != "DequantizeLinear":
        return False
    conv = only_user(restore.outputs[0])
    if conv is None or not _plain(conv) or conv.inputs[1].shape[0] > FEW:
        return False
    codes = only_user(conv.outputs[0])
    r, (size, width) = shuffle.attributes["blocksize"].value, conv.inputs[1].shape[2:]
    if codes is None or codes.op_type != "QuantizeLinear" or size != width or size % 2 == 0:
        return False
    if list(conv.attributes["pads"].value) != [size // 2] * 4:
        return False
    reach = -(-(size // 2) // r)
    _change_weight(graph, conv, lambda w, zero: _before(w, zero, r, reach), lambda v: np.repeat(v, r * r, 0))
    import onnx_ir as ir

    conv.attributes["pads"] = ir.AttrInt64s("pads", [reach] * 4)
    conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [2 * reach + 1] * 2)
    restore.replace_input_with(0, shuffle.inputs[0])
    value, moved = codes.outputs[0], shuffle.outputs[0]
    value.replace_all_uses_with(moved)
    shuffle.replace_input_with(0, value)
    moved.shape = value.shape
    for node in (restore, conv, codes):
        node.outputs[0].shape = None
    return True


def _before(w: NDArray[Any], zero: NDArray[Any] | None, r: int, reach: int) -> NDArray[Any]:
    """The kernel before the shuffle: output (o, a, b), input (c, a', b'), zeros where the two do not meet."""
    outputs, channels, size, _ = w.shape
    side = 2 * reach + 1
    wide = np.zeros((outputs, r, r, channels, r, r, side, side), w.dtype)
    if zero is not None:
        wide += zero.reshape(-1, *[1] * 7)
    for a, b, u, v in np.ndindex(r, r, size, size):
        (i, row), (j, column) = divmod(a + u - size // 2, r), divmod(b + v - size // 2, r)
        wide[:, a, b, :, row, column, i + reach, j + reach] = w[:, :, u, v]
    return wide.reshape(outputs * r * r, channels * r * r, side, side)


def _move_blocks(graph: Any, shuffle: Any) -> None:
    """Let the convolution before order its outputs (a, b, c), and move blocks of c."""
    source, r = shuffle.inputs[0], shuffle.attributes["blocksize"].value
    value = source
    while True:
        node = value.producer()
        if node is None or only_user(value) is None:
            return
        if node.op_type == "Conv":
            break
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Relu", *_CLIPS):
            return
        value = node.inputs[0]
    if not _plain(node):
        return
    channels = node.inputs[1].shape[0] // (r * r)
    order = np.arange(channels * r * r).reshape(channels, r * r).T.reshape(-1)
    _change_weight(graph, node, lambda w, zero: w[order], lambda v: v[order])
    pixels = add(graph, "Transpose", [source], perm=[0, 2, 3, 1])
    blocks = [0, 0, 0, r, r, channels]
    parts = add(graph, "Reshape", [pixels, _shape(graph, blocks)])
    moved = add(graph, "Transpose", [parts], perm=[0, 1, 3, 2, 4, 5])
    sides = add(graph, "Mul", [add(graph, "Shape", [pixels], start=1, end=3), _shape(graph, [r, r])])
    batch = add(graph, "Shape", [pixels], start=0, end=1)
    size = add(graph, "Concat", [batch, sides, _shape(graph, [channels])], axis=0)
    image = add(graph, "Reshape", [moved, size])
    result = add(graph, "Transpose", [image], perm=[0, 3, 1, 2])
    result.type, result.shape = shuffle.outputs[0].type, shuffle.outputs[0].shape
    shuffle.outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(shuffle, safe=True)


def _shape(graph: Any, values: list[int]) -> Any:
    name = "shape_" + "_".join(map(str, values))
    known = graph.initializers.get(name)
    return constant(graph, name, np.array(values, np.int64)) if known is None else known


def _plain(conv: Any) -> bool:
    """Whether it is a convolution of images with step 1 in one group, whose weight and bias are constants."""
    if conv.op_type != "Conv" or len(conv.inputs[1].shape or ()) != 4:
        return False
    a = conv.attributes
    ones = [*a["strides"].value, *a["dilations"].value, a["group"].value]
    restore = conv.inputs[1].producer()
    weight = [conv.inputs[1]] if restore is None else list(restore.inputs)
    constants = [*weight, *conv.inputs[2:]]
    return set(ones) == {1} and all(v.const_value is not None for v in constants if v is not None)


def _change_weight(
    graph: Any, conv: Any, change: Change, per_output: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """Other kernels for a convolution: `change` gives them, of integers with their zero points."""
    weight = conv.inputs[1]
    name, restore = f"{conv.name}:{len(graph.initializers)}", weight.producer()
    if restore is None:
        new = constant(graph, f"{name}.weight", change(weight.const_value.numpy(), None))
    else:
        codes, scale, zero = (v.const_value.numpy() for v in restore.inputs)
        parts = {"codes": change(codes, zero), "scale": scale, "zero": zero}
        if scale.ndim:
            parts |= {"scale": per_output(scale), "zero": per_output(zero)}
        inputs = [constant(graph, f"{name}.{part}", value) for part, value in parts.items()]
        axis = {"axis": 0} if scale.ndim else {}
        new = add(graph, "DequantizeLinear", inputs, **axis)
        new.type, new.shape = weight.type, inputs[0].shape
    conv.replace_input_with(1, new)
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        bias = per_output(conv.inputs[2].const_value.numpy())
        conv.replace_input_with(2, constant(graph, f"{name}.bias", bias))
