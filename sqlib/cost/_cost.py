"""What one image costs: the products of all its patches, their bits, the size of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlib.cost import _passes
from sqlib.cost._bits import Numbers
from sqlib.cost._price import price, walked
from sqlib.cost._results import Cost
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sqlib.engine.context import Context


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
    model : nn.Module
        A network, or what `quantize_model` made of one; then its real bits count, per call site and operand.
    image_size : iterable of int
        Width and height of the *output*, in pixels, multiples of the scale.
    patch, overlap : (int or None), int
        Side of a patch and pixels shared by neighbours, in low-resolution pixels (see
        `sqlib.cost.patch_sizes`). Default: the image in one piece.
    scale : int or None
        Upscaling factor; default ``model.scale``.
    bits : int or tuple of int, mapping of str to int or tuple of int or None
        Planned bits of a network that is not quantized yet: one number or (weight bits, activation bits),
        1 to 16, or 32; or these by pattern of call sites, as in ``{"blocks.0": 8, "*": (8, 4)}``, where the
        first that fits holds. Default 32.
    skip : iterable of str, str or None
        Call sites that stay in full precision, as for `quantize_model`, whose default rules hold. By default
        what the papers leave in full precision does so, too (``unquantized`` of the network's SPEC): of CARN
        the 1x1 fusions, of ELAN the attention maps.
    layers : str
        ``"body"``: BitOPs of the quantized sites only, as RefQSR counts (also at 32 bits). ``"all"``: of
        every product, as CADyQ counts.
    counting : str
        ``"printed"``: products as the papers' tables count them, of the pixels of the image and its patches,
        without a network's own padding, and with the fixed convolutions of its release (``fixed`` of its
        SPEC; ELAN's shift). ``"run"``: products as this network runs them, on padded patches.
    channels : int
        Of the input image.
    images
        Low-resolution images (C, H, W) or batches (N, C, H, W) of the size that ``image_size`` asks for, with
        values as the network takes them; cut into patches as asked for, and run.
    context : Context, iterable of Context or None
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
    _check(layers, counting)
    image = walked(model, image_size, patch, overlap, scale, channels, images)
    used = _passes.used(image.quantized, image.pieces, context)
    return price(image, bits, skip, layers, counting, used)


def by_bits(
    model: nn.Module,
    image_size: Iterable[int],
    bits: Iterable[Numbers | Mapping[str, Numbers]],
    *,
    patch: int | None = None,
    overlap: int = 0,
    scale: int | None = None,
    skip: Iterable[str] | str | None = None,
    layers: str = "body",
    counting: str = "printed",
    channels: int = 3,
) -> list[Cost]:
    """`cost` at several planned bits, from one walk: parameters as there, ``bits`` a list of such.

    Raises
    ------
    InputError
        As `cost`; a model that is quantized already.
    """
    _check(layers, counting)
    image = walked(model, image_size, patch, overlap, scale, channels, None)
    if image.quantized is not None:
        raise InputError(
            "by_bits plans bits of a network, and this model is quantized: its own count in cost()"
        )
    return [price(image, planned, skip, layers, counting, None) for planned in bits]


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


def _check(layers: str, counting: str) -> None:
    if layers not in ("body", "all"):
        raise InputError(f"layers={layers!r}: expected 'body' or 'all'")
    if counting not in ("printed", "run"):
        raise InputError(f"counting={counting!r}: expected 'printed' or 'run'")
