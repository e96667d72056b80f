"""EDSR (Lim et al., CVPR Workshops 2017): residual blocks without batch normalization.

Removing the normalization is what made EDSR accurate, and what makes it hard to quantize: nothing keeps the
activations of its channels on one scale. The body computes in 0..255, as in the official release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn

from sqlib.models._common import RGBMean, SRNetwork, Upsampler, check_scale
from sqlib.models._layout import Layout, check_mean


class ResidualBlock(nn.Module):
    """``x + residual_scale * conv2(relu(conv1(x)))``; both convolutions are 3x3 and keep the width."""

    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(self.relu(self.conv1(x)))
        return x + residual * self.residual_scale if self.residual_scale != 1.0 else x + residual


class EDSR(SRNetwork):
    """EDSR at one scale.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
    blocks, features : int
        16 and 64 for the baseline, 32 and 256 for the large network.
    residual_scale : float
        1 for the baseline, 0.1 for the large network (keeps wide residual sums stable while training).
    """

    # Every paper here quantizes the residual blocks only (DFSQ section 4.1, PAMS, DDTB, CADyQ).
    default_skip = ("head", "body_end", "upsampler.*", "tail")

    def __init__(
        self, name: str, scale: int, *, blocks: int = 16, features: int = 64, residual_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.name, self.scale = name, check_scale(name, scale)
        self.rgb_mean = RGBMean(rgb_range=255.0)
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(features, residual_scale) for _ in range(blocks))
        self.body_end = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = Upsampler(scale, features)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head(self.rgb_mean.subtract(x))
        deep = shallow
        for block in self.blocks:
            deep = block(deep)
        features = self.upsampler(self.body_end(deep) + shallow)
        return self.rgb_mean.add(self.tail(features))


def official(names: Iterable[str], network: EDSR | None = None) -> Layout:
    """The names of the EDSR-PyTorch release; its ``body`` ends with the closing convolution.

    ``names`` are those of a file; they give the number of blocks where there is no ``network``.
    """
    indices = (int(name.split(".")[1]) for name in names if re.match(r"body\.\d+\.", name))
    closing = max(indices, default=0) if network is None else len(network.blocks)
    return Layout(
        {
            "head.0": "head",
            f"body.{closing}": "body_end",
            "body.*.body.0": "blocks.*.conv1",
            "body.*.body.2": "blocks.*.conv2",
            "tail.0": "upsampler",
            "tail.1": "tail",
        },
        ("sub_mean.*", "add_mean.*"),
        partial(check_mean, rgb_range=255.0),
    )


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the EDSR-PyTorch layout to ours; unknown names pass through."""
    return official(state).translate(state)
