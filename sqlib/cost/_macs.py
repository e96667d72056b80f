"""Multiplications in one torch call, from the shapes of its operands and its result."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from sqlib.engine.ops import ATTENTION, EINSUM, Op

#: One multiplication per term of the sum, with the roles of its two factors; a call may hold several.
Counts = list[tuple[str, int, str, str]]


def count(op: Op, values: list[Tensor], args: tuple[Any, ...], out: Tensor) -> Counts:
    """(label, multiply-accumulates, left role, right role) of every product in the call.

    Parameters
    ----------
    op : Op
        Its row in `sqlib.engine.ops.OPS`.
    values : list of Tensor
        Its operands, in the order of ``op.operands``.
    args : tuple
        All positional arguments (the equation of an einsum).
    out : Tensor
        Its result.
    """
    if op is ATTENTION:
        query, key, value = values
        maps = out.numel() // out.shape[-1] * key.shape[-2]  # entries of the attention map
        return [
            ("query @ key", maps * query.shape[-1], "query", "key"),
            ("attention @ value", maps * value.shape[-1], "attention", "value"),
        ]
    left, right = values
    if op is EINSUM:
        macs = einsum(args[0], left, right)
    elif op.name.startswith("conv_transpose"):
        macs = left.numel() * prod(right.shape[1:])
    elif op.name.startswith("conv"):
        macs = out.numel() * prod(right.shape[1:])
    elif op.name == "addbmm":  # sums over the batch as well
        macs = left.numel() * right.shape[-1]
    else:
        macs = out.numel() * left.shape[-1]
    return [(op.name, macs, op.operands[0].role, op.operands[1].role)]


def einsum(equation: str, left: Tensor, right: Tensor) -> int:
    """Product of the sizes of all indices: one multiplication for each combination."""
    sizes: dict[object, int] = {}
    for term, tensor in zip(equation.replace(" ", "").split("->")[0].split(","), (left, right), strict=True):
        head, dots, tail = term.partition("...")
        hidden = range(tensor.ndim - len(head) - len(tail), 0, -1) if dots else range(0)
        for index, size in zip([*head, *hidden, *tail], tensor.shape, strict=True):
            sizes[index] = max(sizes.get(index, 1), int(size))  # dimensions of "..." may be broadcast
    return prod(sizes.values())
