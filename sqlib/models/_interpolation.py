"""Bilinear enlargement as a network: the score that needs no weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sqlib.models._common import SRNetwork, check_scale, rgb


class Bilinear(SRNetwork):
    """Every output pixel from the nearest 2 x 2 input pixels; pixel centres aligned, edges repeated.

    It has nothing to learn and nothing to quantize. 2DQuant's Table 3 prints its scores under "Bicubic"
    (the first chapter of the book shows it).
    """

    weights_id = "none"

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.name, self.scale = "bilinear", check_scale("bilinear", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) to (N, 3, scale * h, scale * w)."""
        return F.interpolate(rgb(x), scale_factor=self.scale, mode="bilinear", align_corners=False)
