"""EDSR (Lim et al., CVPR Workshops 2017): residual blocks without batch normalization.

Removing the normalization is what made EDSR accurate, and what makes it hard to quantize: nothing keeps the
activations of its channels on one scale. The body computes in 0..255, as in the official release.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from torch import Tensor, nn

from sqlib.models._common import DISTILLED, RGBMean, SRNetwork, Upsampler, check_scale
from sqlib.models._layout import Layout, check_mean
from sqlib.models._spec import Spec, WeightsFile


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


def official(names: Collection[str], network: EDSR) -> Layout:
    """The names of the EDSR-PyTorch release; its ``body`` ends with the closing convolution."""
    return Layout(
        {
            "head.0": "head",
            f"body.{len(network.blocks)}": "body_end",
            "body.*.body.0": "blocks.*.conv1",
            "body.*.body.2": "blocks.*.conv2",
            "tail.0": "upsampler",
            "tail.1": "tail",
        },
        ("sub_mean.*", "add_mean.*"),
        partial(check_mean, rgb_range=255.0),
    )


def _released(name: str, scale: int, file: str) -> WeightsFile:
    # The addresses stand in src/model/edsr.py of the release.
    source = "https://github.com/sanghyun-son/EDSR-PyTorch"
    return WeightsFile(
        name, (scale,), file, "MIT", source, f"https://cv.snu.ac.kr/research/EDSR/models/{file}"
    )


SPEC = Spec(
    network=EDSR,
    names={
        "edsr-baseline": {},
        "edsr-large": dict(blocks=32, features=256, residual_scale=0.1),
        "edsr-small": dict(blocks=8, features=32),
        "edsr-8x64": dict(blocks=8),
    },
    # Every paper here quantizes the residual blocks only (DFSQ section 4.1, PAMS, DDTB, CADyQ).
    skip=("head", "body_end", "upsampler.*", "tail"),
    blocks="blocks.*",
    # A tenth of the blocks, as in RefQSR's networks.
    replaced=2,
    official=official,
    files=(
        _released("edsr-baseline", 2, "edsr_baseline_x2-1bc95232.pt"),
        _released("edsr-baseline", 3, "edsr_baseline_x3-abf2a44e.pt"),
        _released("edsr-baseline", 4, "edsr_baseline_x4-6b446fab.pt"),
        _released("edsr-large", 2, "edsr_x2-0edfb8a3.pt"),
        _released("edsr-large", 3, "edsr_x3-ea3ef2c6.pt"),
        _released("edsr-large", 4, "edsr_x4-4f62e9ef.pt"),
        # Released for another framework, converted to our names by this project: no address loads.
        WeightsFile(
            "edsr-8x64",
            (2,),
            "edsr_8x64_x2.pth",
            "Apache-2.0",
            "https://github.com/krasserm/wdsr, converted from "
            "https://github.com/WolframRhodium/Super-Resolution-Zoo",
            sha256="b21731038d7987a9cac1a5fa344b638f839b2478dd8e8b370f0327570c958bd6",
        ),
    ),
    training={
        # Sized for one to two hours on two CPU cores.
        ("edsr-small", 4): dict(steps=9000, batch=16, patch=32, learning_rate=6e-4),
        ("edsr-small", 2): dict(steps=9000, batch=16, patch=32, learning_rate=6e-4),
        # Sized for hours on two CPU cores with bf16.
        ("edsr-baseline", 4): dict(DISTILLED, steps=12_000, later=((7_200, 8, 48),)),
        ("edsr-baseline", 2): dict(DISTILLED, steps=12_000, start="edsr-baseline-x4"),
    },
)
