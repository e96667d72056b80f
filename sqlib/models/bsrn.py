"""BSRN (Li et al., CVPR Workshops 2022): blueprint separable convolutions, distilled step by step.

With 352,400 parameters at x4 it is more accurate than EDSR-baseline with 1,517,571, which makes it the
teacher of the networks that this project trains. It computes in 0..1 and subtracts no mean. The module names
are those of the release, so its checkpoints load as they are.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlib.models._common import SRNetwork, check_scale, rgb
from sqlib.models._spec import Spec, WeightsFile


class BlueprintConv(nn.Module):
    """Blueprint separable convolution (BSConvU): point-wise without bias, then depth-wise 3x3 with bias."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dw = nn.Conv2d(outputs, outputs, 3, stride, padding, groups=outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.dw(self.pw(x)))


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA): ``y * m`` with a mask m made from a coarse view of y.

    The coarse view is a stride-2 convolution and a max pooling of 7 with stride 3; on maps too small for it
    (inputs below 15 pixels) the window is as large as the map.
    """

    def __init__(self, features: int, inner: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = BlueprintConv(inner, inner, stride=2, padding=0)
        self.conv_max = BlueprintConv(inner, inner)
        self.conv3 = BlueprintConv(inner, inner)
        self.conv3_ = BlueprintConv(inner, inner)
        self.conv4 = nn.Conv2d(inner, features, 1)

    def forward(self, y: Tensor) -> Tensor:
        reduced = self.conv1(y)
        strided = self.conv2(reduced)
        coarse = F.max_pool2d(strided, min(7, *strided.shape[2:]), stride=3)
        coarse = self.conv3_(F.gelu(self.conv3(F.gelu(self.conv_max(coarse)))))
        wide = F.interpolate(coarse, y.shape[2:], mode="bilinear", align_corners=False)
        return y * torch.sigmoid(self.conv4(wide + self.conv_f(reduced)))


class ChannelAttention(nn.Module):
    """Contrast-aware channel attention (CCA): weighs channels by standard deviation + mean of their plane."""

    def __init__(self, features: int, reduction: int = 16) -> None:
        super().__init__()
        inner = features // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(features, inner, 1), nn.ReLU(), nn.Conv2d(inner, features, 1), nn.Sigmoid()
        )

    def forward(self, y: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(y, dim=(2, 3), correction=0, keepdim=True)
        return y * self.conv_du(deviation + mean)


class DistillationBlock(nn.Module):
    r"""Three steps that each keep half of the channels (``c?_d``) and refine all (``c?_r``), then fusion.

    .. math:: d_i = g(D_i r_{i-1}), \quad r_i = g(B_i r_{i-1} + r_{i-1}), \quad d_4 = g(B_4 r_3)

    with g = GELU and :math:`r_0 = x`; the output is ``x + cca(esa(c5 [d_1, d_2, d_3, d_4]))``.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.c1_d, self.c1_r = nn.Conv2d(features, half, 1), BlueprintConv(features, features)
        self.c2_d, self.c2_r = nn.Conv2d(features, half, 1), BlueprintConv(features, features)
        self.c3_d, self.c3_r = nn.Conv2d(features, half, 1), BlueprintConv(features, features)
        self.c4 = BlueprintConv(features, half)
        self.c5 = nn.Conv2d(4 * half, features, 1)
        self.esa = SpatialAttention(features)
        self.cca = ChannelAttention(features)

    def forward(self, x: Tensor) -> Tensor:
        refined, kept = x, []
        for distill, refine in (
            (self.c1_d, self.c1_r),
            (self.c2_d, self.c2_r),
            (self.c3_d, self.c3_r),
        ):
            kept.append(F.gelu(distill(refined)))
            refined = F.gelu(refine(refined) + refined)
        kept.append(F.gelu(self.c4(refined)))
        return x + cast(Tensor, self.cca(self.esa(self.c5(torch.cat(kept, dim=1)))))


class BSRN(SRNetwork):
    """BSRN at one scale.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
    features : int
    blocks : int
    """

    def __init__(self, name: str, scale: int, *, features: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.name, self.scale, self.blocks = name, check_scale(name, scale), blocks
        self.fea_conv = BlueprintConv(12, features)
        for i in range(blocks):
            self.add_module(f"B{i + 1}", DistillationBlock(features))
        self.c1 = nn.Conv2d(blocks * features, features, 1)
        self.c2 = BlueprintConv(features, features)
        step = nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.upsampler = nn.ModuleDict({"upsampleOneStep": step})

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.fea_conv(rgb(x).repeat(1, 4, 1, 1))
        deep, outputs = shallow, []
        for i in range(self.blocks):
            deep = self.get_submodule(f"B{i + 1}")(deep)
            outputs.append(deep)
        features = self.c2(F.gelu(self.c1(torch.cat(outputs, dim=1)))) + shallow
        return cast(Tensor, self.upsampler["upsampleOneStep"](features))


_SOURCE = "https://github.com/xiaom233/BSRN"
_MODELS = f"{_SOURCE}/raw/2d63d5239c9fa9810b9c1aea93e98d42ece09efc/experiments/pretrained_models"
_SHA256 = {
    2: "09bd1f85e017c7902e65a9c9770ee592efe3d013f6b5cf1fe7de8cabac4ba37d",
    3: "6eb73a300aaec5029bc0de7f5ae85c02b8dcd8fdaf438c77f90272939fecca7e",
    4: "47518e0f549f5696da0c84ca2d65bf50d789c7ac20e621909f5fd6c8c8d70bcb",
}

SPEC = Spec(
    network=BSRN,
    names={"bsrn": {}},
    skip=("fea_conv.*", "upsampler.*"),
    blocks="B?",
    files=tuple(
        WeightsFile(
            "bsrn", (s,), f"bsrn_x{s}.pth", "MIT", _SOURCE, f"{_MODELS}/net_g_BSRN_x{s}.pth", _SHA256[s]
        )
        for s in (2, 3, 4)
    ),
)
