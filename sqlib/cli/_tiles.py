"""How commands cut an image, and how ``sqlib upscale`` cuts one so that no seam shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlib.cli._common import UsageError
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sqlib.patches import Tiling

WHOLE = 2**18
"""Low-resolution pixels of the largest image that is not cut by itself: 512 x 512, 2 to 3 GB."""

_SIDE = 257  # smallest tile of an automatic cut: `sqlib.evaluate` takes such one at a time
_LARGEST = 80_000  # pixels of its largest tile: 0.8 GB with EDSR-baseline, x4


def seamless_overlap(model: nn.Module) -> int | None:
    """Overlap with which patches meet without a seam; None where no overlap does it.

    They give the pixels of the whole image if every activation of a quantized network has fixed levels. Where
    some are quantized by statistics of the image, these come from a first pass, and the pixels come close
    (`sqlib.patches.image_statistics`). Bits that depend on the image, or levels a gate moves, are those of
    a patch.
    """
    from sqlib import QuantizedModel, models
    from sqlib.patches.image_statistics import measuring

    network: Any = model
    if isinstance(model, QuantizedModel):
        gathered = measuring(model)
        if model.together is not None or not all(
            _fixed(q) or q in gathered for q in model.activations.values()
        ):
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


def why_not(model: nn.Module) -> str:
    """What of a network without a `seamless_overlap` sees all of an image."""
    from sqlib import QuantizedModel
    from sqlib.patches.image_statistics import measuring

    if isinstance(model, QuantizedModel):
        if model.together is not None:
            return f"{type(model.recipe).__name__} treats the patches of an image together"
        gathered = measuring(model)
        seen = [
            key.replace("/", ".")
            for key, q in model.activations.items()
            if not _fixed(q) and q not in gathered
        ]
        if seen:
            return (
                f"{type(model.recipe).__name__} looks at every image anew (for levels or bits of {len(seen)} "
                f"activations, {seen[0]!r} first), and a patch looks at itself"
            )
    return "the network has windows, pooling or statistics of the image"


def with_overlap(tile: int, overlap: int | None, model: nn.Module) -> Tiling:
    """``--tile`` without ``--overlap``: with the overlap that leaves no seam."""
    from sqlib.patches import Tiling

    if overlap is None:
        raise UsageError(
            f"no overlap avoids seams, because {why_not(model)}: say with --overlap how many pixels tiles "
            "share"
        )
    if overlap >= tile:
        raise UsageError(
            f"--tile {tile} is not larger than the overlap of {overlap} pixels that leaves no seam: give a "
            "larger one, or a smaller --overlap, with which seams may show"
        )
    return Tiling(tile, overlap)


def automatic(height: int, width: int, overlap: int) -> Tiling:
    """The cut that computes least, of those whose largest tile is not too large for the memory."""
    from sqlib.patches import Grid, Tiling

    def cost(tile: int) -> tuple[int, int]:
        grid = Grid(height, width, tile, overlap)
        rows, columns = ([end - start for start, end in spans] for spans in (grid.rows, grid.columns))
        return max(max(rows) * max(columns), _LARGEST), sum(rows) * sum(columns)

    side = max(_SIDE, 2 * overlap)  # below, most of what is computed would be thrown away
    return Tiling(min(range(side, side + _SIDE // 4), key=cost), overlap)
