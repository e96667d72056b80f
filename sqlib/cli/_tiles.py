"""How commands cut an image, and how ``sqlib upscale`` cuts one so that no pixel changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlib.cli._common import UsageError
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sqlib.patches import Tiling

WHOLE = 2**18
"""Low-resolution pixels of the largest image that is not cut by itself: 512 x 512, some 2 GB."""

_PATCH = (
    2**17
)  # pixels of the largest patch that an automatic cut makes: `sqlib.evaluate` takes one at a time


def exact_overlap(model: nn.Module) -> int | None:
    """Overlap with which patches give the pixels of the whole image; None where none does.

    Of a quantized network, every activation must besides be quantized by fixed levels: not by statistics
    of the image, nor in bits that depend on it.
    """
    from sqlib import QuantizedModel, models

    network: Any = model
    if isinstance(model, QuantizedModel):
        if model.together is not None or not all(map(_fixed, model.activations.values())):
            return None
        network = model.network
    radius = models.receptive_radius(network)
    return None if radius is None else 2 * radius


def _fixed(quantizer: nn.Module) -> bool:
    """Whether a quantizer does to a value the same in any image. What is not known here does not."""
    from torch import nn

    from sqlib.quantizers import GatedQuantizer, SubsetQuantizer, SymmetricQuantizer, UniformQuantizer

    if isinstance(quantizer, SubsetQuantizer):
        return quantizer.fixed_scale
    if isinstance(quantizer, GatedQuantizer):
        return not quantizer.on
    return type(quantizer) in (nn.Identity, UniformQuantizer, SymmetricQuantizer)


def asked(side: int | None, overlap: int | None, option: str) -> Tiling | None:
    """What ``option`` (the side) and ``--overlap`` say; a usage error where they do not fit."""
    from sqlib.patches import Tiling

    if side is None:
        if overlap is not None:
            raise UsageError(f"--overlap needs {option}")
        return None
    try:
        return Tiling(side, overlap or 0)
    except InputError as error:
        raise UsageError(str(error)) from None


def with_overlap(tile: int, overlap: int | None) -> Tiling:
    """``--tile`` without ``--overlap``: with the overlap that changes no pixel."""
    from sqlib.patches import Tiling

    if overlap is None:
        raise UsageError(
            "with this network no overlap gives the pixels of the whole image (it has windows, pooling or "
            "statistics of the image): say with --overlap how many pixels tiles share"
        )
    if overlap >= tile:
        raise UsageError(
            f"--tile {tile} is not larger than the overlap of {overlap} pixels that gives the pixels of the "
            "whole image: give a larger one, or a smaller --overlap, with which seams may show"
        )
    return Tiling(tile, overlap)


def automatic(height: int, width: int, overlap: int) -> Tiling:
    """The cut that computes least, of those whose largest patch is not too large for the memory."""
    from sqlib.patches import Grid, Tiling

    best: tuple[int, int] | None = None
    for patch in range(overlap + 1, int(_PATCH**0.5) + 1):
        grid = Grid(height, width, patch, overlap)
        rows, columns = ([end - start for start, end in spans] for spans in (grid.rows, grid.columns))
        if max(rows) * max(columns) <= _PATCH:
            best = min(filter(None, (best, (sum(rows) * sum(columns), patch))))
    return Tiling(2 * overlap if best is None else best[1], overlap)
