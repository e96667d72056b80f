r"""How much there is to see in each patch of a batch: what selectors decide by before a network has run.

CADyQ (Hong et al., ECCV 2022) looks at the mean gradient of the gray patch, CABM (Tian et al., CVPR 2023) at
its mean Laplacian in 8 bits:

.. math::
    g_x = \operatorname{mean} |S_x * y|, \quad g_y = \operatorname{mean} |S_x^T * y|, \qquad
    e = \operatorname{mean} \min(|L * \operatorname{rint}(255 y)|, 255)

with Sobel's :math:`S_x = \frac18 (1, 2, 1)^T (-1, 0, 1)`, borders replicated, and OpenCV's 3x3 Laplacian
:math:`L = \begin{pmatrix} 2 & 0 & 2 \\ 0 & -8 & 0 \\ 2 & 0 & 2 \end{pmatrix}`, borders reflected without the
border pixel itself ("reflect101").

Every step is elementwise or sums the pixels of one patch, so that a patch has the same values in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sqlib.errors import InputError
from sqlib.quantizers._readable import readable

LUMA = (0.299, 0.587, 0.114)
LUMA_15 = (9798, 19235, 3735)
"""The same in units of 2^-15, as OpenCV makes gray pixels of 8-bit ones."""


def picture(context: Any) -> Tensor:
    """The batch of images that a pass was given, (N, 1 or 3, H, W).

    Raises
    ------
    InputError
        No pass, or one without such images.
    """
    given = () if context is None else (*context.args, *context.kwargs.values())
    found = next((t for t in given if isinstance(t, Tensor) and t.ndim == 4), None)
    if found is None or found.shape[1] not in (1, 3) or not found.is_floating_point():
        shapes = ", ".join(str(tuple(t.shape)) for t in given if isinstance(t, Tensor)) or "none"
        raise InputError(
            "bits are chosen by the edges of the images in a pass, gray or RGB (N, 1 or 3, H, W); its "
            f"tensors are {shapes}"
        )
    return found.detach()


@torch.no_grad()
def image_gradients(x: Tensor) -> Tensor:
    """Mean absolute Sobel derivatives of gray patches.

    Parameters
    ----------
    x : Tensor
        (N, 1 or 3, H, W), floating; 0..1 in the papers.

    Returns
    -------
    Tensor
        (N, 2): along x and along y, per unit of `x`, float32 or float64.
    """
    y = _padded(_gray(x.to(torch.promote_types(x.dtype, torch.float32))), replicate=True)
    across, down = y[..., 2:] - y[..., :-2], y[..., 2:, :] - y[..., :-2, :]
    gx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.stack([(g / 8).abs().flatten(1).mean(1) for g in (gx, gy)], 1)


@torch.no_grad()
def edge_scores(x: Tensor, *, data_range: float = 1.0, saturated: bool = False) -> Tensor:
    """CABM's score of each patch, in hundredths.

    Parameters
    ----------
    x : Tensor
        (N, 1 or 3, H, W), floating; values outside of 0..`data_range` are clipped.
    data_range : float
        The value of white.
    saturated : bool
        As in the release, which takes an image in 0..255 for one in 0..1: almost every pixel becomes white.

    Returns
    -------
    Tensor
        int64 (N,): 100 times the mean, rounded (of two equally near integers to the even one).

    Raises
    ------
    InputError
        Values that are not finite. (Not looked for on other devices than the CPU.)
    """
    if readable(x) and not bool(torch.isfinite(x).all()):
        raise InputError("the images have values that are not finite, so that they have no edge score")
    unit = x.double() / data_range
    levels = torch.round(255 * (255 * unit if saturated else unit).clamp(0, 1)).long()
    y = _padded(_gray_levels(levels), replicate=False)
    corners = y[..., :-2, :-2] + y[..., :-2, 2:] + y[..., 2:, :-2] + y[..., 2:, 2:]
    seen = (2 * corners - 8 * y[..., 1:-1, 1:-1]).abs().clamp(max=255).flatten(1)
    return torch.round(100 * seen.sum(1).double() / seen.shape[1]).long()


def _gray(x: Tensor) -> Tensor:
    """(N, H, W)."""
    return x[:, 0] if x.shape[1] == 1 else sum(w * x[:, i] for i, w in enumerate(LUMA))  # type: ignore[return-value]


def _gray_levels(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x[:, 0]
    return (sum(w * x[:, i] for i, w in enumerate(LUMA_15)) + (1 << 14)) >> 15  # type: ignore[return-value]


def _padded(y: Tensor, *, replicate: bool) -> Tensor:
    """One more pixel on each side; a side of one pixel has nothing else to reflect."""
    for axis in (-2, -1):
        n = y.shape[axis]
        inner = 0 if replicate or n == 1 else 1
        y = torch.cat([y.narrow(axis, inner, 1), y, y.narrow(axis, n - 1 - inner, 1)], axis)
    return y
