"""What one image costs: the products of all its patches, their bits, the size of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlib._checks import FULL_PRECISION
from sqlib.cost import _bits, _counting, _passes, _sizes
from sqlib.cost._bits import Numbers
from sqlib.cost._passes import Widths
from sqlib.cost._patches import patch_sizes
from sqlib.cost._results import Cost, LayerCost
from sqlib.cost._storage import quantizer_bytes, storage
from sqlib.cost._walk import NeedsImage, Walk, walk
from sqlib.engine.site import Site
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib.engine.context import Context

#: Of a product: site, op, kind, and roles of the two factors.
Key: TypeAlias = tuple[str, str, str, str, str]


def cost(
    model: nn.Module,
    image_size: Iterable[int],
    *,
    patch: int | None = None,
    overlap: int = 0,
    scale: int | None = None,
    bits: Numbers | Mapping[str, Numbers] | None = None,
    skip: Iterable[str] | str | None = None,
    layers: str = "body",
    counting: str = "printed",
    channels: int = 3,
    images: Any = None,
    context: Context | Iterable[Context] | None = None,
) -> Cost:
    r"""Count operations, bits and bytes of super-resolving one image.

    The network itself is walked, with shapes instead of values: nothing here knows an architecture. Where the
    values of an image decide what it costs, because the network looks at them or a bank of quantizers chooses
    bits, it needs images, and the result is their mean.

    Parameters
    ----------
    model
        A network, or what `quantize_model` made of one; then its real bits count, per call site and operand.
    image_size
        Width and height of the *output*, in pixels, multiples of the scale.
    patch, overlap
        Side of a patch and pixels shared by neighbours, in low-resolution pixels (see
        `sqlib.cost.patch_sizes`). Default: the image in one piece.
    scale
        Upscaling factor; default ``model.scale``.
    bits
        Planned bits of a network that is not quantized yet: one number or (weight bits, activation bits),
        1 to 16, or 32; or these by pattern of call sites, as in ``{"blocks.0": 8, "*": (8, 4)}``, where the
        first that fits holds. Default 32.
    skip
        Call sites that stay in full precision, as for `quantize_model`, whose default rules hold. By default
        what the papers leave in full precision does so, too (``unquantized`` of the network's SPEC): of CARN
        the 1x1 fusions, of ELAN the attention maps.
    layers
        ``"body"``: BitOPs of the quantized sites only, as RefQSR counts (also at 32 bits). ``"all"``: of
        every product, as CADyQ counts.
    counting
        ``"printed"``: products as the papers' tables count them, of the pixels of the image and its patches,
        without a network's own padding, and with the fixed convolutions of its release (``fixed`` of its
        SPEC; ELAN's shift). ``"run"``: products as this network runs them, on padded patches.
    channels
        Of the input image.
    images
        Low-resolution images (C, H, W) or batches (N, C, H, W) of the size that ``image_size`` asks for, with
        values as the network takes them; cut into patches as asked for, and run.
    context
        Where the bits come from instead: passes of the quantized model (`QuantizedModel.context`,
        `QuantizedModel.passes`), whose samples are patches. Patches of each size cost what those of this size
        used in the mean; of a size that no pass had, what all of them did. Only contexts have roles.

    Returns
    -------
    Cost

    Raises
    ------
    InputError
        Sizes that do not divide by the scale, a patch larger than the image, bits out of range, bits or skip
        for a model that is quantized already, a network that does not run on such an image, or whose cost
        depends on images that are not given.

    Notes
    -----
    .. math:: \mathrm{BitOPs} = \sum_i 2\,\mathrm{MACs}_i\,\frac{b_{w,i}\,b_{a,i}}{32^2}

    (derived from RefQSR's tables, whose full-precision rows fix the factor 2; bias, normalization and
    activation functions are not counted). G means :math:`10^9` here and in the papers, never 2^30. RefQSR
    multiplies the two bit-widths; 2DQuant counts linearly (`sqlib.cost.operations`), so that the papers'
    figures cannot be compared with one another. What bit selectors compute is not counted, as in the papers.

    Examples
    --------
    >>> from sqlib import cost, models
    >>> network = models.create("srresnet", scale=4)
    >>> round(cost.cost(network, (1280, 720), patch=72, overlap=6).bitops / 1e9, 2)
    148.32
    """
    from sqlib.engine.model import QuantizedModel

    if layers not in ("body", "all"):
        raise InputError(f"layers={layers!r}: expected 'body' or 'all'")
    if counting not in ("printed", "run"):
        raise InputError(f"counting={counting!r}: expected 'printed' or 'run'")
    if not hasattr(model, "named_parameters"):
        raise InputError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    quantized = model if isinstance(model, QuantizedModel) else None
    network = model if quantized is None else quantized.network
    if quantized is not None and (bits is not None or skip is not None):
        raise InputError("the model is quantized, so its own bits and sites count: leave bits= and skip= out")
    size = _sizes.image_size(image_size, "image_size")
    factor = _sizes.upscaling(scale, model)
    low = _sizes.low_resolution(size, factor)
    cuts = patch_sizes(low, patch, overlap)
    pieces = None if images is None else _passes.patches(images, low, patch, overlap)

    used = _passes.used(quantized, pieces, context)
    walks = list(_walks(network, cuts, channels, pieces))
    sites = {site.name: site for _, found, _ in walks for site in found.sites}
    ordered = sorted(sites.values(), key=lambda site: site.order)
    if quantized is None:
        unquantized = () if skip is not None else _counting.unquantized(network)
        width_of = _bits.planned(bits, ordered, unquantized)
        _bits.mark(ordered, walks[0][1].upsampler, network, skip, unquantized)
    else:
        width_of = _bits.actual(quantized)
        _bits.mark_like(ordered, quantized)
    widths = _passes.Static(width_of) if used is None else used
    macs: dict[Key, dict[tuple[int, int], Fraction]] = {}
    for cut, found, count in walks:
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
        scale=factor,
        image_size=size,
        patches=sum(cuts.values()),
        pixels=sum(n * w * h for (w, h), n in cuts.items()),
        params=sum(p.numel() for p in network.parameters()),
        packed_bytes=packed,
        quantizer_bytes=0 if quantized is None else quantizer_bytes(quantized),
        macs=sum(layer.macs for layer in products),
        bitops=sum(layer.bitops for layer in products if layer.quantized or layers == "all"),
        fqr=_fqr(_bits.quantized_activations(macs, sites, width_of, quantized), widths, cuts),
        peak_bytes=packed + max(found.live_bytes for _, found, _ in walks),
        uncounted=tuple(site.name for site in ordered if not site.supported),
        layers=counted,
        stored=stored,
    )


def bitops(
    model: nn.Module,
    image_size: Iterable[int],
    *,
    patch: int | None = None,
    overlap: int = 0,
    scale: int | None = None,
    bits: Numbers | Mapping[str, Numbers] | None = None,
    skip: Iterable[str] | str | None = None,
    layers: str = "body",
    counting: str = "printed",
    images: Any = None,
    context: Context | Iterable[Context] | None = None,
) -> float:
    """BitOPs of super-resolving one image: ``cost(...).bitops``, with the parameters of `sqlib.cost.cost`.

    Divide by 1e9 for the G of the papers.
    """
    found = cost(
        model,
        image_size,
        patch=patch,
        overlap=overlap,
        scale=scale,
        bits=bits,
        skip=skip,
        layers=layers,
        counting=counting,
        images=images,
        context=context,
    )
    return found.bitops


def _walks(
    network: nn.Module,
    cuts: Mapping[tuple[int, int], int],
    channels: int,
    pieces: Mapping[tuple[int, int], list[Tensor]] | None,
) -> Iterator[tuple[tuple[int, int], Walk, Fraction]]:
    """(size of a patch, a walk over one, how many patches of an image it stands for)."""
    for cut, count in cuts.items():
        own = None if pieces is None else pieces[cut]
        try:
            yield cut, walk(network, cut, channels if own is None else own[0].shape[1]), Fraction(count)
        except NeedsImage:
            if own is None:
                raise
            for piece in own:
                yield cut, walk(network, cut, image=piece), Fraction(count, len(own))


def _layer(
    key: Key,
    by_cut: Mapping[tuple[int, int], Fraction],
    sites: Mapping[str, Site],
    widths: Widths,
    cuts: Mapping[tuple[int, int], int],
) -> LayerCost:
    name, op, kind, left, right = key
    macs = round(sum(by_cut.values()))
    if kind == "norm":
        return LayerCost(name, op, kind, False, macs, FULL_PRECISION, FULL_PRECISION, 2.0 * macs)
    site = sites[name]
    bitops = sum(2 * n * widths.mean(site, (left, right), cut) for cut, n in by_cut.items())
    bits = (widths.over((site, left), cuts), widths.over((site, right), cuts))
    return LayerCost(name, op, kind, site.active, macs, *bits, float(bitops / FULL_PRECISION**2))


def _fqr(operands: list[tuple[Site, str]], widths: Widths, cuts: Mapping[tuple[int, int], int]) -> float:
    found = [widths.over(operand, cuts) for operand in operands]
    return sum(found) / len(found) if found else float(FULL_PRECISION)
