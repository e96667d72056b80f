"""Weights of a network: found by identity, named, and fake-quantized once until something changes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def plain_storage(t: Tensor) -> bool:
    """Whether the tensor has memory of its own to compare addresses of (fake and meta tensors have none)."""
    return type(t) in (Tensor, nn.Parameter) and t.device.type != "meta"


class Names:
    """Names of a network's parameters and buffers and of views into them.

    A parameter is found by identity. A view ("chunk" of a packed projection, a transpose) is found by its
    storage and named ``parameter[offset,shape,strides]``, so that each part has a quantizer of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._scan()

    def _scan(self) -> None:
        # The tensors are kept, so that an id cannot be reused while it is in the table.
        found = [*self._network.named_parameters(), *self._network.named_buffers()]
        self._by_id = {id(t): (name, t) for name, t in found}
        self._by_storage: dict[int, str] = {}
        for name, t in found:
            if plain_storage(t) and t.numel():
                self._by_storage.setdefault(t.untyped_storage().data_ptr(), name)

    def find(self, t: Tensor) -> str | None:
        """Name of a parameter, buffer or view of one; None for anything computed."""
        found = self._by_id.get(id(t))
        if found is not None:
            return found[0]
        if not plain_storage(t) or not t.numel():
            return None
        name = self._view(t)
        if name is None and isinstance(t, nn.Parameter):
            self._scan()  # a parameter was replaced, or moved to other memory
            found = self._by_id.get(id(t))
            name = found[0] if found is not None else None
        return name

    def _view(self, t: Tensor) -> str | None:
        name = self._by_storage.get(t.untyped_storage().data_ptr())
        if name is None:
            return None
        shape, strides = "x".join(map(str, t.shape)), "x".join(map(str, t.stride()))
        return f"{name}[{t.storage_offset()},{shape},{strides}]"

    def __deepcopy__(self, memo: dict[int, Any]) -> Names:
        raise TypeError("Names belongs to one network")  # its owner makes a new one for its copy


class Cache:
    """Fake-quantized weights, remembered while weight and quantizer stay what they were.

    Changes are seen through torch's version counters: optimizer steps, ``load_state_dict`` and in-place
    operations count; writes through ``.data`` do not (see `QuantizedModel.refresh`).
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, Tensor, Tensor]] = {}

    def fake(self, key: str, weight: Tensor, quantizer: nn.Module) -> Tensor:
        """The quantized weight, without gradient."""
        if weight.is_inference():
            return quantizer(weight)  # type: ignore[no-any-return]
        state = (
            weight.data_ptr(),
            weight._version,
            weight.dtype,
            weight.shape,
            weight.stride(),
            _state(quantizer),
        )
        found = self._found.get(key)
        if found is not None and found[0] == state:
            return found[2]
        with torch.no_grad(), torch.inference_mode(False):
            fake: Tensor = quantizer(weight.detach())
        # Keeping the weight alive keeps its address from being given to another tensor.
        self._found[key] = (state, weight.detach(), fake)
        return fake

    def clear(self) -> None:
        """Forget everything."""
        self._found = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        return Cache()

    def __reduce__(self) -> Any:
        return Cache, ()


def _state(module: nn.Module) -> tuple[Any, ...]:
    tensors = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    own = tuple((t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors)
    return own + tuple(_state(m) for m in module._modules.values() if m is not None)


def trains(weight: Tensor, quantizer: nn.Module) -> bool:
    """Whether a gradient has to flow through this quantized weight."""
    if not torch.is_grad_enabled():
        return False
    return weight.requires_grad or any(
        p is not None and p.requires_grad for p in quantizer._parameters.values()
    )


def sqnr_db(weight: Tensor, fake: Tensor) -> float:
    """Signal to quantization noise ratio 10 log10(sum w^2 / sum (w - w_hat)^2) in dB; inf without error."""
    w, q = weight.detach().double(), fake.detach().double()
    noise = float((w - q).square().sum())
    signal = float(w.square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
