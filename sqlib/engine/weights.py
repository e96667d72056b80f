"""Weights of a network: found by identity, named, and fake-quantized once until something changes."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib.quantizers.bank import QuantizerBank


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
    """Fake-quantized weights, computed again whenever the weight or its quantizer differs in any bit.

    Torch's version counters are no evidence of that: they start anew in copies, and fused optimizers, writes
    through ``.data`` and writes through NumPy do not move them. So the numbers themselves are compared with a
    copy of those that were quantized, which takes a fifth to two thirds of the time of quantizing them. Only
    on the CPU; elsewhere a comparison would wait for the device, and quantizing again does not.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[_Source, Tensor]] = {}

    def fake(self, key: Hashable, weight: Tensor, quantizer: nn.Module) -> Tensor:
        """The quantized weight, without gradient; `key` names weight and bits."""
        source = _Source.of(weight, quantizer)
        if source is None:
            with torch.no_grad():
                return quantizer(weight.detach())  # type: ignore[no-any-return]
        found = self._found.get(key)
        if found is not None and found[0].same(source):
            return found[1]
        kept = source.copy()  # before quantizing: another thread may write meanwhile
        with torch.no_grad(), torch.inference_mode(False):
            fake: Tensor = quantizer(weight.detach())
        self._found[key] = kept, fake
        return fake

    def clear(self) -> None:
        """Give the memory back."""
        self._found = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        return Cache()

    def __reduce__(self) -> Any:
        return Cache, ()


class _Source(NamedTuple):
    """Everything that a quantized weight is computed from: arrays of bits, and what is not in them."""

    arrays: list[NDArray[Any]]
    rest: list[Any]

    @classmethod
    def of(cls, weight: Tensor, quantizer: nn.Module) -> _Source | None:
        """A view of the present state; None where there is something that cannot be compared."""
        arrays: list[NDArray[Any]] = []
        rest: list[Any] = []
        tensors: list[tuple[str, Tensor]] = [("weight", weight)]
        for module in quantizer.modules():
            rest += [type(module), dict(module._forward_pre_hooks), dict(module._forward_hooks)]
            own = [(name, value) for name, value in vars(module).items() if name not in _NO_SETTINGS]
            if not all(_plain(value) for _, value in own):
                return None
            rest += own
            stores = (*module._parameters.items(), *module._buffers.items())
            tensors += [(name, t) for name, t in stores if t is not None]
        for name, t in tensors:
            if not plain_storage(t) or t.device.type != "cpu" or t.element_size() not in _BITS:
                return None
            arrays.append(t.detach().view(_BITS[t.element_size()]).numpy())
            rest.append((name, t.dtype, t.shape, t.stride()))
        return cls(arrays, rest)

    def copy(self) -> _Source:
        """The same, which no write to the tensors reaches."""
        return _Source([a.copy() for a in self.arrays], self.rest)

    def same(self, other: _Source) -> bool:
        """Whether all of it is equal, bit by bit."""
        return self.rest == other.rest and all(
            np.array_equal(a, b) for a, b in zip(self.arrays, other.arrays, strict=True)
        )


# By their bits two numbers differ where the numbers do: -0.0 from 0.0, and one NaN from another.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NO_SETTINGS = {*vars(nn.Module()), "_known"} - {"training"}


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic, torch.dtype, torch.device))


def trains(weight: Tensor, quantizer: nn.Module) -> bool:
    """Whether a gradient has to flow through this quantized weight."""
    if not torch.is_grad_enabled():
        return False
    return weight.requires_grad or any(
        t.requires_grad for t in (*quantizer.parameters(), *quantizer.buffers())
    )


def sqnr_db(weight: Tensor, fake: Tensor) -> float:
    """Signal to quantization noise ratio 10 log10(sum w^2 / sum (w - w_hat)^2) in dB; inf without error."""
    w, q = weight.detach().double(), fake.detach().double()
    noise = float((w - q).square().sum())
    signal = float(w.square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def noise_db(weight: Tensor, quantizer: nn.Module) -> float:
    """`sqnr_db` of a quantized weight; of a bank, that of its worst quantizer."""
    parts = quantizer.quantizers.values() if isinstance(quantizer, QuantizerBank) else (quantizer,)
    with torch.no_grad():
        return min(sqnr_db(weight, part(weight.detach())) for part in parts)
