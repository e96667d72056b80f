"""SRResNet (Ledig et al., CVPR 2017): residual blocks with batch normalization.

The normalization keeps the channels of a layer on similar scales, which is why this network is easier to
quantize than EDSR, its successor without it. This is the variant that DDTB, DFSQ and RefQSR quantize: no
convolution has a bias, every PReLU has one slope, and the body computes in 0..255 with no mean subtracted.

In evaluation mode, which quantization always uses, batch normalization applies its running statistics: a
fixed affine map per channel. They are buffers and part of the state dict, not of the parameter count.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import Tensor, nn

from sqlib.models._common import DISTILLED, SRNetwork, check_scale, rgb, upsampling_steps
from sqlib.models._layout import Layout
from sqlib.models._spec import Spec

RGB_RANGE = 255.0
# Normalized features have a variance of 1 and are added to features in 0..255, beside which they would be
# nothing for the first thousands of steps: Adam moves a factor by no more than the learning rate.
_RESIDUAL_RANGE = 25.0


class ResidualBlock(nn.Module):
    """``x + norm2(conv2(prelu(norm1(conv1(x)))))``; both convolutions are 3x3 and keep the width."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.prelu(self.norm1(self.conv1(x)))
        return x + cast(Tensor, self.norm2(self.conv2(residual)))


class Upsampler(nn.Sequential):
    """Per x2 or x3 step: convolution without bias, PixelShuffle, PReLU."""

    def __init__(self, scale: int, features: int) -> None:
        stages: list[nn.Module] = []
        for step in upsampling_steps(scale):
            conv = nn.Conv2d(features, step * step * features, 3, padding=1, bias=False)
            stages += [conv, nn.PixelShuffle(step), nn.PReLU()]
        super().__init__(*stages)


class SRResNet(SRNetwork):
    """SRResNet at one scale.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
        The papers use x4: 1,546,771 parameters, 19 of them PReLU slopes (1 behind the head, 16 in the blocks,
        2 in the upsampler). The other scales follow EDSR's upsampler.
    blocks, features : int
        16 and 64 in the papers.
    """

    def __init__(self, name: str, scale: int, *, blocks: int = 16, features: int = 64) -> None:
        super().__init__()
        self.name, self.scale = name, check_scale(name, scale)
        self.head = nn.Conv2d(3, features, 9, padding=4, bias=False)
        self.head_prelu = nn.PReLU()
        self.blocks = nn.ModuleList(ResidualBlock(features) for _ in range(blocks))
        self.body_end = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.body_end_norm = nn.BatchNorm2d(features)
        self.upsampler = Upsampler(scale, features)
        self.tail = nn.Conv2d(features, 3, 9, padding=4, bias=False)

    def begin(self) -> None:
        """Give residuals about the range of the features that they are added to."""
        for norm in (*(block.norm2 for block in self.blocks), self.body_end_norm):
            nn.init.constant_(cast(nn.BatchNorm2d, norm).weight, _RESIDUAL_RANGE)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head_prelu(self.head(rgb(x) * RGB_RANGE))
        deep = shallow
        for block in self.blocks:
            deep = block(deep)
        features = self.upsampler(self.body_end_norm(self.body_end(deep)) + shallow)
        return cast(Tensor, self.tail(features)) / RGB_RANGE


def official(names: Collection[str], network: SRResNet) -> Layout:
    """The names of pytorch-SRResNet (``residual.0.bn1.weight``).

    SRResNet has no official PyTorch release; this is the layout of the widely used re-implementation, with
    PReLU slopes in place of its fixed leaky ones. Its upsampler is ``upscale4x``, or so called for the scale.
    """
    first = {name.split(".")[0] for name in names}
    found = first.intersection(("upscale2x", "upscale3x", "upscale4x"))
    upscale = found.pop() if len(found) == 1 else f"upscale{network.scale}x"
    return Layout(
        {
            "conv_input": "head",
            "relu": "head_prelu",
            "residual.*.bn1": "blocks.*.norm1",
            "residual.*.bn2": "blocks.*.norm2",
            "residual.*.relu": "blocks.*.prelu",
            "residual": "blocks",
            "conv_mid": "body_end",
            "bn_mid": "body_end_norm",
            upscale: "upsampler",
            "conv_output": "tail",
        }
    )


SPEC = Spec(
    network=SRResNet,
    names={"srresnet": {}, "srresnet-small": dict(blocks=8, features=32)},
    # Quantized are the two convolutions of every block: DFSQ (release), RefQSR's count of 32 layers.
    skip=("head", "body_end", "upsampler.*", "tail"),
    blocks="blocks.*",
    replaced=2,
    official=official,
    training={
        ("srresnet", 4): dict(
            DISTILLED, batch=8, border=0, learning_rate=1e-4, steps=3_000, start="edsr-baseline-x4"
        ),
        ("srresnet-small", 4): dict(DISTILLED, steps=6_000),
    },
)
