"""What one image costs: the products of all its patches, their bits, the size of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlib._checks import FULL_PRECISION
from sqlib.cost import _bits
from sqlib.cost._bits import Numbers
from sqlib.cost._patches import patch_sizes
from sqlib.cost._storage import Stored, quantizer_bytes, storage
from sqlib.cost._walk import walk
from sqlib.engine.site import Site
from sqlib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class LayerCost:
    """One product of the network, over all patches of the image.

    Attributes
    ----------
    site, op, kind
        As in `sqlib.cost.Product`; kind "norm" counts elements, not products.
    quantized
        Whether the site is one of those that are quantized; the papers count these only.
    macs
        Multiply-accumulates.
    left_bits, right_bits
        Bits of the two factors: activation and weight, or two activations; 32 is full precision.
    """

    site: str
    op: str
    kind: str
    quantized: bool
    macs: int
    left_bits: int
    right_bits: int

    @property
    def bitops(self) -> float:
        r"""RefQSR's BitOPs, :math:`2\,\mathrm{MACs}\,b_l b_r/32^2`, in 32-bit operations."""
        return 2 * self.macs * self.left_bits * self.right_bits / FULL_PRECISION**2


@dataclass(frozen=True)
class Cost:
    """The cost of one image; made by `sqlib.cost.cost`.

    Attributes
    ----------
    network
        Class name of the network.
    scale
        Its upscaling factor.
    image_size
        Width and height of the output, in pixels.
    patches
        Number of patches (1: the whole image at once).
    pixels
        Low-resolution pixels that the network sees, overlaps counted every time.
    params
        Learnable parameters, whatever their bits.
    packed_bytes
        Weights at their bits, everything else as the network holds it (4 bytes a float32).
    quantizer_bytes
        Bounds, scales and points of a quantized model's quantizers, 4 bytes each, beside the codes, which are
        in `packed_bytes`; 0 where bits are planned.
    macs
        Multiply-accumulates of all convolutions, linear layers and matrix products, quantized or not. One
        multiplication with its addition is one; papers that count operations count two.
    bitops
        Sum of `LayerCost.bitops` over the layers that were asked for; not in thousands of millions.
    fqr
        Feature quantization ratio: mean bits of the activation operands of quantized sites, every operand
        alike (CADyQ).
    peak_bytes
        Packed weights, and the most bytes of activations that are alive at once in the pass over the largest
        patch, held in the network's own type: what a fake-quantized network needs.
    uncounted
        Call sites whose products sqlib cannot count (recurrent layers and the like).
    layers
        The products, in the order of the calls.
    stored
        The tensors that make up `packed_bytes`.
    """

    network: str
    scale: int
    image_size: tuple[int, int]
    patches: int
    pixels: int
    params: int
    packed_bytes: int
    quantizer_bytes: int
    macs: int
    bitops: float
    fqr: float
    peak_bytes: int
    uncounted: tuple[str, ...]
    layers: tuple[LayerCost, ...]
    stored: tuple[Stored, ...]

    def frame(self) -> pd.DataFrame:
        """One row per product: the fields of `LayerCost` and its bitops."""
        import pandas as pd

        rows = [{**asdict(layer), "bitops": layer.bitops} for layer in self.layers]
        return pd.DataFrame(rows)

    def storage(self) -> pd.DataFrame:
        """One row per stored tensor: the fields of `Stored`."""
        import pandas as pd

        return pd.DataFrame([asdict(tensor) for tensor in self.stored])


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
    channels: int = 3,
) -> Cost:
    r"""Count operations, bits and bytes of super-resolving one image.

    The network itself is walked, with shapes instead of values: nothing here knows an architecture.

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
        Call sites that stay in full precision, as for `quantize_model`, whose default rules hold; of CARN the
        1x1 fusions are left out, too, as in the papers that quantize it.
    layers
        ``"body"``: BitOPs of the quantized sites only, as RefQSR counts (also at 32 bits). ``"all"``: of
        every product, as CADyQ counts.
    channels
        Of the input image.

    Returns
    -------
    Cost

    Raises
    ------
    InputError
        Sizes that do not divide by the scale, a patch larger than the image, bits out of range, bits or skip
        for a model that is quantized already, a network that does not run on such an image.

    Notes
    -----
    .. math:: \mathrm{BitOPs} = \sum_i 2\,\mathrm{MACs}_i\,\frac{b_{w,i}\,b_{a,i}}{32^2}

    (derived from RefQSR's tables, whose full-precision rows fix the factor 2; bias, normalization and
    activation functions are not counted). G means :math:`10^9` here and in the papers, never 2^30. RefQSR
    multiplies the two bit-widths; 2DQuant counts linearly (`sqlib.cost.operations`), so that the papers'
    figures cannot be compared with one another.

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
    if not hasattr(model, "named_parameters"):
        raise InputError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    quantized = model if isinstance(model, QuantizedModel) else None
    network = model if quantized is None else quantized.network
    if quantized is not None and (bits is not None or skip is not None):
        raise InputError("the model is quantized, so its own bits and sites count: leave bits= and skip= out")
    size = _size(image_size, "image_size")
    factor = _scale(scale, model)
    cuts = patch_sizes(_lr_size(size, factor), patch, overlap)

    walks = {cut: walk(network, cut, channels) for cut in cuts}
    first = walks[next(iter(walks))]
    sites = {site.name: site for found in walks.values() for site in found.sites}
    ordered = sorted(sites.values(), key=lambda site: site.order)
    width_of = _bits.planned(bits, ordered) if quantized is None else _bits.actual(quantized)
    if quantized is None:
        _bits.mark(ordered, first.upsampler, network, skip)
    else:
        _bits.mark_like(ordered, quantized)
    macs: dict[tuple[str, str, str, str, str], int] = {}
    for cut, found in walks.items():
        for p in found.products:
            key = (p.site, p.op, p.kind, p.left, p.right)
            macs[key] = macs.get(key, 0) + cuts[cut] * p.macs
    counted = tuple(_layer(key, n, sites, width_of) for key, n in macs.items())
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
        fqr=_fqr(list(macs), sites, width_of),
        peak_bytes=packed + max(found.live_bytes for found in walks.values()),
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
) -> float:
    """BitOPs of super-resolving one image: ``cost(...).bitops``, with the parameters of `sqlib.cost.cost`.

    Divide by 1e9 for the G of the papers.
    """
    found = cost(
        model, image_size, patch=patch, overlap=overlap, scale=scale, bits=bits, skip=skip, layers=layers
    )
    return found.bitops


def _size(value: Any, name: str) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
        raise InputError(f"{name}={value!r}: expected (width, height) in pixels, such as (1280, 720)")
    return cast("tuple[int, int]", sides)


def _scale(scale: Any, model: nn.Module) -> int:
    own = getattr(model, "scale", None)
    scale = own if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise InputError(
            f"scale={scale!r}: expected an integer of 1 or more"
            + ("" if own is not None else "; the model has none of its own, so pass scale=")
        )
    if isinstance(own, int) and own != scale:
        raise InputError(f"scale={scale}, but the model is for x{own}; leave scale= out")
    return scale


def _lr_size(size: tuple[int, int], scale: int) -> tuple[int, int]:
    width, height = size
    if width % scale or height % scale:
        near = (width - width % scale, height - height % scale)
        raise InputError(
            f"image_size={width}x{height} (width x height of the output) does not divide by the scale {scale}"
            + (f"; {near[0]}x{near[1]} does" if all(near) else "")
        )
    return width // scale, height // scale


def _layer(
    key: tuple[str, str, str, str, str], macs: int, sites: dict[str, Site], width_of: _bits.Bits
) -> LayerCost:
    name, op, kind, left, right = key
    if kind == "norm":
        return LayerCost(name, op, kind, False, macs, FULL_PRECISION, FULL_PRECISION)
    site = sites[name]
    return LayerCost(name, op, kind, site.active, macs, width_of(site, left), width_of(site, right))


def _fqr(keys: list[tuple[str, str, str, str, str]], sites: dict[str, Site], width_of: _bits.Bits) -> float:
    widths = [
        width_of(sites[name], role)
        for name, _, kind, left, right in keys
        if kind != "norm" and sites[name].active
        for role in (left, right)
        if role != sites[name].weight_role
    ]
    return sum(widths) / len(widths) if widths else float(FULL_PRECISION)
