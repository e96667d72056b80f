"""RDN (Zhang et al., CVPR 2018), configuration B: residual dense blocks whose outputs are fused globally.

Inside a block every convolution reads all feature maps made so far, so one quantizer meets maps of very
different ranges, side by side as channels of one tensor. As in the code line of PAMS, DDTB and DFSQ the
network computes in 0..255 and subtracts no mean.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn

from sqlib.models._common import DISTILLED, SRNetwork, check_scale, rgb, upsampling_steps
from sqlib.models._layout import Layout
from sqlib.models._spec import Spec, WeightsFile

RGB_RANGE = 255.0


class ResidualDenseBlock(nn.Module):
    """``x + fusion(concat(x, d_1, ..., d_C))`` where ``d_c = relu(conv_c(concat(x, d_1, ..., d_{c-1})))``.

    Parameters
    ----------
    features : int
        Channels of ``x`` and of the output (G0 in the paper).
    growth : int
        Channels of every ``d_c`` (G).
    layers : int
        Number of 3x3 convolutions (C); ``fusion`` is the 1x1 convolution of local feature fusion (LFF).
    """

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(features + i * growth, growth, 3, padding=1) for i in range(layers)
        )
        self.relu = nn.ReLU()
        self.fusion = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        dense = x
        for conv in self.convs:
            dense = torch.cat([dense, self.relu(conv(dense))], dim=1)
        return x + cast(Tensor, self.fusion(dense))


class RDN(SRNetwork):
    """RDN at one scale; the defaults are configuration B.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
        22,123,395, 22,308,035 and 22,271,107 parameters in configuration B.
    blocks, layers, growth, features : int
        D, C, G and G0 in the paper: 16, 8, 64 and 64.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        *,
        blocks: int = 16,
        layers: int = 8,
        growth: int = 64,
        features: int = 64,
    ) -> None:
        super().__init__()
        self.name, self.scale = name, check_scale(name, scale)
        self.shallow1 = nn.Conv2d(3, features, 3, padding=1)
        self.shallow2 = nn.Conv2d(features, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth, layers) for _ in range(blocks))
        self.fusion1 = nn.Conv2d(blocks * features, features, 1)
        self.fusion2 = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = _upsampler(scale, features, growth)
        self.tail = nn.Conv2d(growth, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow1(rgb(x) * RGB_RANGE)
        deep, outputs = self.shallow2(shallow), []
        for block in self.blocks:
            deep = block(deep)
            outputs.append(deep)
        features = self.fusion2(self.fusion1(torch.cat(outputs, dim=1))) + shallow
        return cast(Tensor, self.tail(self.upsampler(features))) / RGB_RANGE


def _upsampler(scale: int, features: int, growth: int) -> nn.Sequential:
    """Sub-pixel upsampling that leaves ``growth`` channels: one x3 stage or one or two x2 stages."""
    stages: list[nn.Module] = []
    width = features
    for step in upsampling_steps(scale):
        stages += [nn.Conv2d(width, step * step * growth, 3, padding=1), nn.PixelShuffle(step)]
        width = growth
    return nn.Sequential(*stages)


def official(names: Collection[str], network: RDN) -> Layout:
    """The names of the EDSR-PyTorch layout (``RDBs.0.convs.0.conv.0.weight``), or of torchSR's.

    In the former ``UPNet`` holds the upsampler and, last, the closing convolution; its colour shifts were
    never used. The latter (``rdbs.0.layers.0.conv.weight``) computes in 0..1.
    """
    if "sfe1.weight" in names:
        return Layout(
            {
                "sfe1": "shallow1",
                "sfe2": "shallow2",
                "rdbs.*.layers.*.conv": "blocks.*.convs.*",
                "rdbs.*.lff": "blocks.*.fusion",
                "gff.0": "fusion1",
                "gff.1": "fusion2",
                "upscale": "upsampler",
                "output": "tail",
            },
            biases=RGB_RANGE,
        )
    return Layout(
        {
            "SFENet1": "shallow1",
            "SFENet2": "shallow2",
            "RDBs.*.convs.*.conv.0": "blocks.*.convs.*",
            "RDBs.*.LFF": "blocks.*.fusion",
            "GFF.0": "fusion1",
            "GFF.1": "fusion2",
            f"UPNet.{len(network.upsampler)}": "tail",
            "UPNet": "upsampler",
        },
        ("sub_mean.*", "add_mean.*"),
    )


def _released(scale: int) -> WeightsFile:
    # The authors' files are Torch7's, which nothing here reads. The addresses stand in torchsr/models/rdn.py.
    source = "https://github.com/Coloquinte/torchSR"
    url = f"{source}/releases/download/v1.0.3/rdn_x{scale}.pt"
    trained = f"{source}, trained by https://github.com/yjn870/RDN-pytorch"
    return WeightsFile("rdn", (scale,), f"rdn_x{scale}.pt", "MIT", trained, url)


_SHARED = dict(DISTILLED, batch=8, learning_rate=2e-4)

SPEC = Spec(
    network=RDN,
    names={"rdn": {}},
    # DFSQ's release quantizes the blocks (3x3 and 1x1) and both global fusions.
    skip=("shallow1", "shallow2", "upsampler.*", "tail"),
    blocks="blocks.*",
    official=official,
    files=(_released(2), _released(3), _released(4)),
    training={
        ("rdn", 4): dict(_SHARED, steps=20_000),
        ("rdn", 2): dict(_SHARED, steps=9_000, start="rdn-x4"),
    },
)
