"""Walks over the patches of one image, and what they cost at given bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlib._checks import FULL_PRECISION
from sqlib.cost import _bits, _counting, _passes, _sizes
from sqlib.cost._bits import Numbers
from sqlib.cost._passes import Pieces, Widths
from sqlib.cost._patches import patch_sizes
from sqlib.cost._results import Cost, LayerCost
from sqlib.cost._storage import quantizer_bytes, storage
from sqlib.cost._walk import NeedsImage, Walk, walk
from sqlib.engine.site import Site
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sqlib.engine.model import QuantizedModel

#: Of a product: site, op, kind, and roles of the two factors.
Key: TypeAlias = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Image:
    """Walks over the patches of an image, before any bits are known."""

    network: nn.Module
    quantized: QuantizedModel | None
    scale: int
    size: tuple[int, int]
    cuts: Mapping[tuple[int, int], int]
    pieces: Pieces | None
    walks: tuple[tuple[tuple[int, int], Walk, Fraction], ...]


def walked(
    model: nn.Module,
    image_size: Iterable[int],
    patch: int | None,
    overlap: int,
    scale: int | None,
    channels: int,
    images: Any,
) -> Image:
    """Walk over one patch of each size; arguments as of `sqlib.cost.cost`."""
    from sqlib.engine.model import QuantizedModel

    if not hasattr(model, "named_parameters"):
        raise InputError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    quantized = model if isinstance(model, QuantizedModel) else None
    network = model if quantized is None else quantized.network
    size = _sizes.image_size(image_size, "image_size")
    factor = _sizes.upscaling(scale, model)
    low = _sizes.low_resolution(size, factor)
    cuts = patch_sizes(low, patch, overlap)
    pieces = None if images is None else _passes.patches(images, low, patch, overlap)
    watching = nullcontext if quantized is None else quantized.recipe.watching
    walks = tuple(_walks(network, cuts, channels, pieces, watching))
    return Image(network, quantized, factor, size, cuts, pieces, walks)


def price(
    image: Image,
    bits: Numbers | Mapping[str, Numbers] | None,
    skip: Iterable[str] | str | None,
    layers: str,
    counting: str,
    used: Widths | None,
) -> Cost:
    """What the walks cost at planned bits, at the model's own, or at those that passes `used`."""
    network, quantized, cuts = image.network, image.quantized, image.cuts
    if quantized is not None and (bits is not None or skip is not None):
        raise InputError("the model is quantized, so its own bits and sites count: leave bits= and skip= out")
    sites = {site.name: site for _, found, _ in image.walks for site in found.sites}
    ordered = sorted(sites.values(), key=lambda site: site.order)
    if quantized is None:
        unquantized = () if skip is not None else _counting.unquantized(network)
        width_of = _bits.planned(bits, ordered, unquantized)
        _bits.mark(ordered, image.walks[0][1].upsampler, network, skip, unquantized)
    else:
        width_of = _bits.actual(quantized)
        _bits.mark_like(ordered, quantized)
    widths = _passes.Static(width_of) if used is None else used
    macs: dict[Key, dict[tuple[int, int], Fraction]] = {}
    for cut, found, count in image.walks:
        printed = counting == "printed"
        counts = _counting.as_printed(found, network, cut) if printed else _counting.as_run(found)
        for p, number in counts:
            by_cut = macs.setdefault((p.site, p.op, p.kind, p.left, p.right), {})
            by_cut[cut] = by_cut.get(cut, Fraction(0)) + count * number
    counted = tuple(_layer(key, by_cut, sites, widths, cuts) for key, by_cut in macs.items())
    stored = storage(network, ordered, width_of)
    packed = sum(tensor.bytes for tensor in stored)
    products = [layer for layer in counted if layer.kind != "norm"]
    return Cost(
        network=type(network).__name__,
        scale=image.scale,
        image_size=image.size,
        patches=sum(cuts.values()),
        pixels=sum(n * w * h for (w, h), n in cuts.items()),
        params=sum(p.numel() for p in network.parameters()),
        packed_bytes=packed,
        quantizer_bytes=0 if quantized is None else quantizer_bytes(quantized),
        macs=sum(layer.macs for layer in products),
        bitops=sum(layer.bitops for layer in products if layer.quantized or layers == "all"),
        fqr=_fqr(_bits.quantized_activations(macs, sites, width_of, quantized), widths, cuts),
        peak_bytes=packed + max(found.live_bytes for _, found, _ in image.walks),
        uncounted=tuple(site.name for site in ordered if not site.supported),
        layers=counted,
        stored=stored,
    )


def _walks(
    network: nn.Module,
    cuts: Mapping[tuple[int, int], int],
    channels: int,
    pieces: Pieces | None,
    watching: Callable[[], AbstractContextManager[None]],
) -> Iterator[tuple[tuple[int, int], Walk, Fraction]]:
    """(size of a patch, a walk over one, how many patches of an image it stands for)."""
    of_size = None if pieces is None else _passes.by_size(pieces)
    for cut, count in cuts.items():
        own = None if of_size is None else of_size[cut]
        try:
            channels_of = channels if own is None else own[0].shape[1]
            with watching():
                found = walk(network, cut, channels_of)
            yield cut, found, Fraction(count)
        except NeedsImage:
            if own is None:
                raise
            for piece in own:
                with watching():
                    found = walk(network, cut, image=piece)
                yield cut, found, Fraction(count, len(own))


def _layer(
    key: Key,
    by_cut: Mapping[tuple[int, int], Fraction],
    sites: Mapping[str, Site],
    widths: Widths,
    cuts: Mapping[tuple[int, int], int],
) -> LayerCost:
    name, op, kind, left, right = key
    if kind == "norm":
        macs = round(sum(by_cut.values()))
        return LayerCost(name, op, kind, False, macs, FULL_PRECISION, FULL_PRECISION, 2.0 * macs)
    site = sites[name]
    reached = {cut: n * Fraction(widths.share(site, cut)) for cut, n in by_cut.items()}
    macs = round(sum(reached.values()))
    bitops = sum(2 * n * widths.mean(site, (left, right), cut) for cut, n in reached.items() if n)
    bits = (widths.over((site, left), cuts), widths.over((site, right), cuts))
    return LayerCost(name, op, kind, site.active, macs, *bits, float(bitops / FULL_PRECISION**2))


def _fqr(operands: list[tuple[Site, str]], widths: Widths, cuts: Mapping[tuple[int, int], int]) -> float:
    """Mean bits of the operands that a patch reaches, over patches of all sizes."""
    total = 0.0
    for cut, count in cuts.items():
        shares = [widths.share(site, cut) for site, _ in operands]
        if not sum(shares):
            return float(FULL_PRECISION)
        bits = [s and s * widths.mean(site, (role,), cut) for s, (site, role) in zip(shares, operands)]
        total += count * sum(bits) / sum(shares)
    return total / sum(cuts.values())
