"""Which torch calls multiply activations by something: the table that quantization intercepts.

Keys are the function objects that `torch.overrides.TorchFunctionMode` hands over, aliases included.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Operand(NamedTuple):
    """One tensor argument: where it stands, what it is called, and its output-channel axis as a weight."""

    position: int
    keyword: str
    role: str
    weight_axis: int | None = None


class Op(NamedTuple):
    """A quantizable call.

    ``role == "weight"`` marks the operand that is a weight by its position; every other
    operand is a weight only if it is a parameter or buffer of the network.
    """

    name: str
    operands: tuple[Operand, ...]


def _weighted(name: str, axis: int) -> Op:
    return Op(name, (Operand(0, "input", "input"), Operand(1, "weight", "weight", axis)))


def _product(name: str, first: int, keywords: tuple[str, str]) -> Op:
    left, right = keywords
    # A parameter on the right, (in, out), has its output channels in the last axis; on the left in the one
    # before.
    return Op(name, (Operand(first, left, "left", -2), Operand(first + 1, right, "right", -1)))


# Two operands after the equation (see `two_operands`).
EINSUM = Op("einsum", (Operand(1, "left", "left", None), Operand(2, "right", "right", None)))
# The attention map is a fourth operand, between the two products; it exists only inside `attention`.
# The query is seen before its scaling by d^-1/2. Uniform bounds scale with the data, so this gives the same
# codes as 2DQuant's q after scaling.
ATTENTION = Op(
    "scaled_dot_product_attention",
    (Operand(0, "query", "query"), Operand(1, "key", "key"), Operand(2, "value", "value")),
)


def _table() -> dict[Any, Op]:
    ops: dict[Any, Op] = {F.linear: _weighted("linear", 0)}
    for d in "123":
        ops[getattr(torch, f"conv{d}d")] = _weighted(f"conv{d}d", 0)
        # Transposed convolutions keep the weight as (in, out / groups, ...).
        ops[getattr(torch, f"conv_transpose{d}d")] = _weighted(f"conv_transpose{d}d", 1)
    matmul = _product("matmul", 0, ("input", "other"))
    for function in (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.linalg.matmul):
        ops[function] = matmul
    for name, keywords in (("mm", ("input", "mat2")), ("bmm", ("input", "mat2"))):
        for home in (torch, Tensor):
            ops[getattr(home, name)] = _product(name, 0, keywords)
    for home in (torch, Tensor):
        ops[getattr(home, "addmm")] = _product("addmm", 1, ("mat1", "mat2"))  # noqa: B009 - parallel to the next
        for name in ("baddbmm", "addbmm"):
            ops[getattr(home, name)] = _product(name, 1, ("batch1", "batch2"))
    ops[Tensor.addmm_] = _product("addmm", 1, ("mat1", "mat2"))
    for in_place in (Tensor.baddbmm_, Tensor.addbmm_):
        ops[in_place] = _product(in_place.__name__.rstrip("_"), 1, ("batch1", "batch2"))
    # The same operators without their Python names. Only those with the operands of the functions above.
    for name in ("linear", "conv1d", "conv2d", "conv3d", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm"):
        packet = getattr(torch.ops.aten, name)
        ops[packet] = ops[packet.default] = ops[F.linear if name == "linear" else getattr(torch, name)]
    for d in "123":
        packet = getattr(torch.ops.aten, f"conv_transpose{d}d")
        ops[packet] = ops[getattr(packet, "default" if d == "1" else "input")] = ops[
            getattr(torch, f"conv_transpose{d}d")
        ]
    # b.__rmatmul__(a) is a @ b.
    left, right = Operand(1, "other", "left", -2), Operand(0, "self", "right", -1)
    ops[Tensor.__rmatmul__] = Op("matmul", (left, right))
    ops[torch.functional.einsum] = EINSUM
    ops[F.scaled_dot_product_attention] = ATTENTION
    return ops


OPS = _table()

# Composite Python functions whose inner calls have to be seen: run from a copy that skips its own dispatch.
COMPOSITE = {F.multi_head_attention_forward}

# Products we do not quantize. They get a row in the report, so that nothing is skipped in silence.
UNSUPPORTED: dict[Any, str] = {
    torch.functional.tensordot: "tensordot",
    torch.functional.chain_matmul: "chain_matmul",
    torch.linalg.multi_dot: "multi_dot",
    torch.bilinear: "bilinear",
    F.bilinear: "bilinear",
    torch.inner: "inner",
    Tensor.inner: "inner",
    torch.dot: "dot",
    Tensor.dot: "dot",
    torch.vdot: "vdot",
    Tensor.vdot: "vdot",
    torch.linalg.vecdot: "vecdot",
    torch.mv: "mv",
    Tensor.mv: "mv",
    torch.addmv: "addmv",
    Tensor.addmv: "addmv",
    Tensor.addmv_: "addmv",
    torch.lstm: "lstm",
    torch.gru: "gru",
    torch.rnn_tanh: "rnn_tanh",
    torch.rnn_relu: "rnn_relu",
    torch.lstm_cell: "lstm_cell",
    torch.gru_cell: "gru_cell",
}
if hasattr(torch.ops.higher_order, "flex_attention"):
    UNSUPPORTED[torch.ops.higher_order.flex_attention] = "flex_attention"

# Fused inference kernels of whole layers. torch takes them only where no function mode is active; seeing one
# would mean that its products escaped.
FUSED = {
    getattr(torch, name)
    for name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
    if hasattr(torch, name)
}


def eagerly() -> AbstractContextManager[None]:
    """Run compiled functions as the Python they were made from, so that a function mode sees their calls.

    `flex_attention` compiles itself when called, and a compiled function shows a mode nothing. Only for the
    one pass that discovers the call sites: the switch is global, so threads must not share it.
    """
    # Importing the compiler takes seconds, and where nobody has imported it there is nothing compiled.
    compiling = {"torch._dynamo", "torch.nn.attention.flex_attention"} & sys.modules.keys()
    if compiling and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return, no-untyped-call]
    return nullcontext()


@functools.cache
def opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a Python function of ``torch.nn.functional`` whose inner calls reach the function mode.

    Such functions first hand themselves to an active mode; calling one from inside the mode would either
    recurse or run with the mode switched off. The copy has its own globals in which that test is false.
    """
    hidden = {
        name: (lambda *_: False) for name in function.__globals__ if name.startswith("has_torch_function")
    }
    scope = {**function.__globals__, **hidden}
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    on_map: Callable[[Tensor], Tensor],
) -> Tensor:
    """`scaled_dot_product_attention` as its definition reads, with `on_map` applied to the softmax map."""
    if enable_gqa:
        repeat = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeat, -3), value.repeat_interleave(repeat, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        rows, columns = scores.shape[-2:]
        keep = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~keep, float("-inf"))
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if masked else scores + attn_mask
    weights = torch.softmax(scores, dim=-1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # A row with nothing to attend to is 0, as in torch, not 0/0.
        weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)
    return torch.dropout(on_map(weights), dropout_p, dropout_p > 0) @ value


def two_operands(args: tuple[Any, ...]) -> bool:
    """Whether an einsum call has the form ``einsum(equation, a, b)``, the only one that is quantized."""
    return len(args) == 3 and isinstance(args[0], str) and all(isinstance(a, Tensor) for a in args[1:])
