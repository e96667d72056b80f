"""How many bytes a network takes when its quantized weights are packed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from torch import nn

from sqlib._checks import FULL_PRECISION
from sqlib.cost._bits import Bits
from sqlib.engine.site import Site

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


@dataclass(frozen=True)
class Stored:
    """One tensor as it is stored.

    Attributes
    ----------
    name : str
        Its name in the network's state dict.
    numel : int
        Number of values.
    bits : int
        Bits of each quantized value; 32 (of a half-precision network 16) where none is.
    quantized : int
        How many of the values are quantized.
    bytes : int
        Size, rounded up to whole bytes; bounds and scales of the quantizers not included.
    parameter : bool
        False for a buffer, such as the running mean of a batch normalization.
    """

    name: str
    numel: int
    bits: int
    quantized: int
    bytes: int
    parameter: bool


def storage(network: nn.Module, sites: Iterable[Site], bits: Bits) -> tuple[Stored, ...]:
    """Every parameter and every floating-point buffer of the state dict, in its order.

    A weight that the network computes in its pass (weight normalization) counts as what it is computed from,
    in full precision. A part of a packed weight has the bits of the site that uses it.
    """
    parts: dict[str, dict[str, tuple[int, int]]] = {}
    for site in sites:
        if site.weight is None or site.weight_role is None or site.weight_shape is None:
            continue
        width = bits(site, site.weight_role)
        if width >= FULL_PRECISION:
            continue
        views = parts.setdefault(site.weight.partition("[")[0], {})
        known = views.get(site.weight, (0, 0))[1]
        views[site.weight] = (prod(site.weight_shape), max(width, known))
    named = dict(network.named_parameters())
    rows = []
    for name, tensor in network.state_dict(keep_vars=True).items():
        if name not in named and not tensor.is_floating_point():
            continue
        full = 8 * tensor.element_size()
        views = parts.get(name, {})
        quantized = min(tensor.numel(), sum(n for n, _ in views.values()))
        used = sum(n * b for n, b in views.values()) + (tensor.numel() - quantized) * full
        widest = max((b for _, b in views.values()), default=full)
        rows.append(Stored(name, tensor.numel(), widest, quantized, -(-used // 8), name in named))
    return tuple(rows)


def quantizer_bytes(model: QuantizedModel) -> int:
    """Size of what the quantizers need beside the codes: their bounds, scales and points, 4 bytes each.

    Stored codes of a weight are the weight, which `storage` counts at its bits.
    """
    return sum(
        4 * tensor.numel()
        for home in (model.weights, model.activations)
        for module in home.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and name not in getattr(module, "packed", ())
    )
