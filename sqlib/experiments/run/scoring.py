"""Scores of a network on an image set, and what each of its images costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sqlib.datasets import Dataset, Pair
    from sqlib.engine import Context, QuantizedModel
    from sqlib.metrics import Protocol


@dataclass(frozen=True)
class _One:
    """A set of one image."""

    name: str
    pair: Pair

    def __len__(self) -> int:
        return 1

    def pairs(self, scale: int) -> Iterator[Pair]:
        yield self.pair


def scored(
    network: nn.Module,
    dataset: Dataset,
    *,
    scale: int,
    protocol: Protocol,
    device: str,
    counted: str | None = None,
) -> list[dict[str, Any]]:
    """Name and metrics of every image.

    Parameters
    ----------
    network : nn.Module
        Quantized or not.
    dataset, scale, protocol, device
        As for `sqlib.evaluate.evaluate`.
    counted : str or None
        An output size such as ``"1280x720"``: metrics have ``bitops_g`` of an image of that size, cut into
        patches as the protocol says, and ``fqr``, at the bits that this image used.

    Raises
    ------
    InputError
        As `evaluate`.
    """
    from sqlib.cost import cost
    from sqlib.cost._passes import used
    from sqlib.cost._price import price, walked
    from sqlib.engine import QuantizedModel
    from sqlib.evaluate import evaluate

    if counted is None:
        return evaluate(network, dataset, scale=scale, protocol=protocol, device=device).images
    size = output_size(counted)
    tiling = protocol.tiling
    patch, overlap = (None, 0) if tiling is None else (tiling.patch, tiling.overlap)
    if not (isinstance(network, QuantizedModel) and network.has_banks):
        once = cost(network, size, scale=scale, patch=patch, overlap=overlap)
        prices = {"bitops_g": once.bitops / 1e9, "fqr": once.fqr}
        found = evaluate(network, dataset, scale=scale, protocol=protocol, device=device).images
        return [{**image, **prices} for image in found]
    walks = walked(network, size, patch, overlap, scale, 3, None)
    images = []
    for pair in dataset.pairs(scale):
        with network.passes() as passes:
            one = _One(dataset.name, pair)
            (image,) = evaluate(network, one, scale=scale, protocol=protocol, device=device).images
        spent = price(walks, None, None, "body", "printed", used(network, None, passes))
        images.append({**image, "bitops_g": spent.bitops / 1e9, "fqr": fqr(passes, network)})
    return images


def fqr(passes: Iterable[Context], network: QuantizedModel) -> float:
    """Mean bits of the quantized activations over the patches of some passes, whatever the patches' size."""
    import torch

    from sqlib.cost._bits import in_fqr

    each = []
    for context in passes:
        quantized = [
            bits.double()
            for (site, operand), bits in context.operands.items()
            if in_fqr(network, network.sites[site], operand)
        ]
        each.append(torch.stack(quantized).mean(0))
    return float(torch.cat(each).mean())


def output_size(text: str) -> tuple[int, int]:
    """``"1280x720"`` -> (1280, 720)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError(f"size {text!r}: expected WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)
