"""The network that is to be quantized: checked, and copied into ordinary tensors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

# Functions of torch that cannot be copied, and need not be.
_SHARED = (
    torch.jit.ScriptFunction,
    torch._library.custom_ops.CustomOpDef,
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
)


def check_network(model: nn.Module) -> None:
    """Refuse what cannot be quantized.

    Raises
    ------
    InputError
        Compiled modules; parameters or buffers without values, shape or density; weights that are not finite.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
            raise InputError(
                f"module {path or type(module).__name__!r} is compiled, so its calls cannot be seen; "
                "give the original network"
            )
    for kind, found in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in found:
            _check_tensor(f"{kind} {name!r}", tensor)


def _check_tensor(name: str, tensor: Tensor) -> None:
    if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)):
        raise InputError(f"{name} has no shape yet; run the network once before quantizing it")
    if tensor.device.type == "meta":
        raise InputError(
            f"{name} is on the meta device, which holds no values; load weights into it "
            "(load_state_dict(..., assign=True)) before quantizing the network"
        )
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized already" if tensor.is_quantized else f"stored as {tensor.layout}"
        raise InputError(f"{name} is {kind}; expected an ordinary dense tensor (tensor.to_dense())")
    # a buffer may well hold infinities: attention masks do
    if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise InputError(
            f"{name}: {bad} of {tensor.numel()} values are NaN or infinite; check the weights file"
        )


def copied(model: nn.Module) -> nn.Module:
    """Deep copy, also where a module keeps a tensor computed from parameters (old weight_norm), which torch
    refuses to copy: those become plain values, recomputed by the network's own hooks. Compiled functions and
    operators are shared, as Python's functions are."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
            elif isinstance(value, _SHARED):
                memo[id(value)] = value
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, pickle.PickleError) as error:
        name = next((f"{p or 'the network'}.{a}" for p, m in model.named_modules() for a in _fixed(m)), "")
        raise InputError(
            f"{type(model).__name__} cannot be copied, and quantize_model never changes its argument: {error}"
            f"{name and f', in {name}'}; keep such objects out of modules, or give their class a __deepcopy__"
        ) from error


def _fixed(module: nn.Module) -> Iterator[str]:
    """Attributes that cannot be copied."""
    for name, value in vars(module).items():
        if name.startswith("_") and name in vars(nn.Module()):
            continue
        try:
            copy.deepcopy(value)
        except (TypeError, pickle.PickleError, RuntimeError):
            yield name


@contextmanager
def ordinary_tensors(model: nn.Module) -> Iterator[None]:
    """No inference mode, whose tensors are of no use outside; no autocast, which would round statistics."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in {"cpu", *(p.device.type for p in model.parameters())}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
