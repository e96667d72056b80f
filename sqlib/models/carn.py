"""CARN and CARN-M (Ahn et al., ECCV 2018): cascades of residual blocks, fused by 1x1 convolutions.

The mobile variant CARN-M uses grouped 3x3 convolutions and runs one residual block three times in every
cascade: the same weights see three different activation distributions.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from sqlib.models._common import DISTILLED, RGBMean, SRNetwork, check_scale, upsampling_steps
from sqlib.models._layout import Layout, check_mean
from sqlib.models._spec import Spec, WeightsFile

WIDTH = 64


class ResidualBlock(nn.Module):
    """CARN: ``relu(x + conv(relu(conv(x))))`` with plain 3x3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.relu(x + self.conv2(self.relu(self.conv1(x)))))


class EfficientResidualBlock(nn.Module):
    """CARN-M: two grouped 3x3 convolutions and a pointwise one that mixes the groups again."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=groups)
        self.pointwise = nn.Conv2d(WIDTH, WIDTH, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.conv2(self.relu(self.conv1(x))))
        return cast(Tensor, self.relu(x + self.pointwise(residual)))


class Fusion(nn.Module):
    """``relu(conv1x1(concat))``: what each cascade has produced so far, mixed back to WIDTH channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs * WIDTH, WIDTH, 1)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.relu(self.conv(features)))


class Cascade(nn.Module):
    """Apply stages in turn; after stage i fuse the input and the outputs of stages 1..i.

    Used twice: three residual blocks form a cascading block, three cascading blocks form the network's body.
    ``stages`` may hold one shared module (CARN-M), which is then applied three times.
    """

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.fusions = nn.ModuleList(Fusion(i) for i in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        gathered, out = x, x
        for i, fusion in enumerate(self.fusions):
            stage = self.stages[i % len(self.stages)]
            gathered = torch.cat([gathered, stage(out)], dim=1)
            out = fusion(gathered)
        return out


class Upsample(nn.Sequential):
    """Per x2 or x3 step: convolution, ReLU, PixelShuffle (the ReLU is CARN's own)."""

    def __init__(self, scale: int, groups: int) -> None:
        stages: list[nn.Module] = []
        for step in upsampling_steps(scale):
            conv = nn.Conv2d(WIDTH, step * step * WIDTH, 3, padding=1, groups=groups)
            stages += [conv, nn.ReLU(), nn.PixelShuffle(step)]
        super().__init__(*stages)


class CARN(SRNetwork):
    """CARN at one scale, holding the upsamplers of several.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
        The upsampler that ``forward`` uses.
    mobile : bool
        CARN-M: ``groups``-wise convolutions and one shared residual block per cascade.
    groups : int
    scales : tuple of int or None
        Upsamplers to hold; the official weights are trained jointly for (2, 3, 4). None: that of ``scale``.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        *,
        mobile: bool = False,
        groups: int = 1,
        scales: tuple[int, ...] | None = (2, 3, 4),
    ) -> None:
        super().__init__()
        self.name, self.scale = name, check_scale(name, scale, scales or (2, 3, 4))
        self.rgb_mean = RGBMean(rgb_range=1.0)
        self.entry = nn.Conv2d(3, WIDTH, 3, padding=1)

        def cascading_block() -> Cascade:
            if mobile:
                return Cascade([EfficientResidualBlock(groups)])
            return Cascade([ResidualBlock() for _ in range(3)])

        self.body = Cascade([cascading_block() for _ in range(3)])
        self.upsample = nn.ModuleDict({f"x{s}": Upsample(s, groups) for s in scales or (scale,)})
        self.exit = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(self.entry(self.rgb_mean.subtract(x)))
        return self.rgb_mean.add(self.exit(self.upsample[f"x{self.scale}"](features)))


def official(names: Collection[str], network: CARN) -> Layout:
    """The names of the CARN-pytorch release (``b1.b1.body.0.weight``).

    Files for several scales hold ``upsample.up2``, ``up3`` and ``up4``, those for one scale ``upsample.up``.
    """
    table: dict[str, str | tuple[str, ...]] = {}
    for i in range(3):
        outer = f"body.stages.{i}"
        for j in range(3):
            for theirs, ours in (("0", "conv1"), ("2", "conv2"), ("4", "pointwise")):
                table[f"b{i + 1}.b{j + 1}.body.{theirs}"] = f"{outer}.stages.{j}.{ours}"
            table[f"b{i + 1}.c{j + 1}.body.0"] = f"{outer}.fusions.{j}.conv"
        table[f"c{i + 1}.body.0"] = f"body.fusions.{i}.conv"
    if any(name.startswith("upsample.up.body") for name in names):
        table["upsample.up.body"] = f"upsample.x{network.scale}"
    else:
        table |= {f"upsample.up{scale}.body": f"upsample.x{scale}" for scale in (2, 3, 4)}
    return Layout(table, ("sub_mean.*", "add_mean.*"), partial(check_mean, rgb_range=1.0))


_SOURCE = "https://github.com/nmhkahn/CARN-pytorch"
_COMMIT = "40d3514f81cccd680d846cd5ab07af35f2c8e0e2"

SPEC = Spec(
    network=CARN,
    names={"carn": {}, "carn-single": dict(scales=None), "carn-m": dict(mobile=True, groups=4)},
    skip=("entry", "upsample.*", "exit"),
    blocks="body.stages.*.stages.*",
    # CADyQ, CABM and RefQSR leave the 1x1 fusions alone.
    unquantized=dict.fromkeys(("carn", "carn-single"), ("body*.fusions*",)),
    replaced=1,
    official=official,
    files=(
        WeightsFile(
            "carn-m",
            (2, 3, 4),
            "carn_m.pth",
            "MIT",
            _SOURCE,
            f"{_SOURCE}/raw/{_COMMIT}/checkpoint/carn_m.pth",
            "d48a759a84509351facb6b7c6d5bd6edec98b98519b8c464ee4ab44d2ba964ff",
        ),
        # Released for another framework, converted to our names by this project: no address loads.
        WeightsFile(
            "carn-single",
            (2,),
            "carn_x2.pth",
            "MIT",
            f"{_SOURCE}, converted from https://github.com/WolframRhodium/Super-Resolution-Zoo",
            sha256="721022257b1ad9f8d846f8ffb9f90c73005af0198c53f5b4a5d2b5644e7e1726",
        ),
        # `sqlib train carn-single-x4` makes such a file: the trunk is the release's, so ours has no address.
        WeightsFile(
            "carn-single",
            (4,),
            "carn_x4_prototype.safetensors",
            "MIT",
            f"{_SOURCE}, its x2 trunk converted from there and trained on by this project",
            sha256="cf62281a500102ed3b6eaadf7ee9d9186ec85f68d463e2c49ab0440457618278",
        ),
        # The release's README offers its folder checkpoint; scripts of others name the file beside CARN-M's.
        WeightsFile(
            "carn", (2, 3, 4), "carn.pth", "MIT", _SOURCE, f"{_SOURCE}/raw/master/checkpoint/carn.pth"
        ),
    ),
    training={
        ("carn-single", 4): dict(DISTILLED, steps=12_000, start="carn-single-x2", frozen=2_500),
    },
)
