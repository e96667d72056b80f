"""How far a network looks: the overlap with which patches give the pixels of the whole image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from sqlib.models._common import SRNetwork

_SHORT = 16  # pixels across the strips that are tried: what the smallest network of ours takes
_LENGTHS: tuple[int, ...] = (64, 128, 256, 512, 1024)
_SAME = 1e-9  # of float64 values that were added up in another order


def receptive_radius(network: SRNetwork) -> int | None:
    """Low-resolution pixels in each direction on which an upscaled pixel depends at most.

    Patches that overlap by twice as many give the pixels of the whole image, up to float rounding.

    Returns
    -------
    int or None
        None for a network of which that is not true, or that sees more than some 500 pixels: one with
        statistics of its whole input (channel attention), with windows, or with pooling and strides, whose
        result depends on where a patch begins.

    Notes
    -----
    Found by trying, in float64 on strips of the two directions. A NaN in one pixel spreads to all that
    depends on it, whatever the weights (0 times NaN is NaN), which gives the radius. A strip without its
    first row or column must then give the same values beyond the radius, or the network is not the same
    everywhere.
    """
    probe = copy.deepcopy(network).cpu().double().eval()
    radii, lengths = [], _LENGTHS
    with torch.inference_mode():
        for axis in (2, 3):
            strips = (_strip(axis, length) for length in lengths)
            tried = ((x, _spread(probe, x, axis)) for x in strips)
            x, radius = next(((x, radius) for x, radius in tried if radius is not None), (None, None))
            if x is None or radius is None or not _same_everywhere(probe, x, axis, radius):
                return None
            radii.append(radius)
            lengths = tuple(length for length in lengths if length >= x.shape[axis])
    return max(radii)


def _strip(axis: int, length: int) -> Tensor:
    size = (length, _SHORT) if axis == 2 else (_SHORT, length)
    return torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _spread(network: SRNetwork, x: Tensor, axis: int) -> int | None:
    """How far a NaN in the middle spreads along an axis; None if that is to an end."""
    marked = x.clone()
    marked[:, :, x.shape[2] // 2, x.shape[3] // 2] = torch.nan
    reached = network(marked).isnan().sum([other for other in range(4) if other != axis]).nonzero()
    first, last = int(reached.min()) // network.scale, int(reached.max()) // network.scale
    middle, length = x.shape[axis] // 2, x.shape[axis]
    return None if first == 0 or last == length - 1 else max(middle - first, last - middle)


def _same_everywhere(network: SRNetwork, x: Tensor, axis: int, radius: int) -> bool:
    """Whether a strip without its first line gives the values of the whole one beyond the radius."""
    scale, kept = network.scale, x.shape[axis] - 1
    whole = network(x).narrow(axis, scale, scale * kept)
    cut = network(x.narrow(axis, 1, kept))
    beyond = scale * radius, scale * (kept - radius)
    return torch.allclose(whole.narrow(axis, *beyond), cut.narrow(axis, *beyond), rtol=0, atol=_SAME)
