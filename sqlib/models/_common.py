"""Parts that several super-resolution networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

if TYPE_CHECKING:
    from sqlib.models._spec import Spec

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1], printed in EDSR's and CARN's releases."""

# Targets of BSRN: with some 590 images and hours, the noise of the originals is what limits a network.
DISTILLED: Mapping[str, Any] = dict(
    batch=16, patch=32, learning_rate=6e-4, warmup=300, clip=1.0, border=3, teacher="bsrn"
)
"""Options of `sqlib.training.TrainConfig` that several networks share."""


class SRNetwork(nn.Module):
    """What the rest of sqlib expects of a super-resolution network.

    Input (N, 3, h, w) float RGB in [0, 1]; output (N, 3, scale * h, scale * w), unclamped. The range a paper
    computes in (0..255 for EDSR, 0..1 for CARN) is the network's own business, so that nobody can feed it
    the wrong one.
    """

    name: str
    scale: int
    spec: ClassVar[Spec | None] = None
    """What else is known about the network; set by :func:`sqlib.models.register`."""
    default_skip: tuple[str, ...] = ()
    """``fnmatch`` patterns over module names that stay in full precision: ``skip`` of its SPEC."""
    weights_id: str = "random"
    """SHA-256 of the loaded state dict; ``"random"`` until weights are loaded."""
    licence: str | None = None
    """Licence of weights that a third party trained; None for ours, and where none is on record."""

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what the network computes on, for such an input: more where it pads it."""
        return height, width

    def begin(self) -> None:
        """What a training does to random weights before its first step; nothing, but where a network says."""


class RGBMean(nn.Module):
    """A fixed colour shift: ``range * x - range * mean`` going in, the inverse going out.

    Official releases store it as two frozen 1x1 convolutions (12 numbers each); here it is one buffer of 3.
    """

    mean: Tensor

    def __init__(self, mean: Sequence[float] = DIV2K_MEAN, rgb_range: float = 1.0) -> None:
        super().__init__()
        self.rgb_range = rgb_range
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * rgb_range, persistent=False)

    def subtract(self, x: Tensor) -> Tensor:
        return rgb(x) * self.rgb_range - self.mean

    def add(self, x: Tensor) -> Tensor:
        return (x + self.mean) / self.rgb_range


def rgb(x: Tensor) -> Tensor:
    """``x`` itself, if it is what an `SRNetwork` takes; what broadcasting or a cast would hide is refused."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise InputError(f"the network takes RGB images (N, 3, H, W), but the input is {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(
            f"the network takes floating-point images in 0..1, but the input is {x.dtype}; divide bytes "
            "by 255"
        )
    return x


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling (ESPCN): one x3 stage or log2(scale) x2 stages of convolution and PixelShuffle."""

    def __init__(self, scale: int, features: int) -> None:
        stages: list[nn.Module] = []
        for step in upsampling_steps(scale):
            stages += [nn.Conv2d(features, step * step * features, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*stages)


def upsampling_steps(scale: int) -> tuple[int, ...]:
    """Factors of the stages that enlarge by ``scale``: one of 3, or one or two of 2."""
    return {2: (2,), 3: (3,), 4: (2, 2)}[scale]


def check_scale(name: str, scale: object, allowed: Sequence[int] = (2, 3, 4)) -> int:
    """Return ``scale`` when the network exists at it, else raise InputError."""
    if not isinstance(scale, Integral) or scale not in allowed:
        raise InputError(
            f"{name} got scale {scale!r}; it exists for {', '.join(f'x{s}' for s in allowed)}: choose one"
        )
    return int(scale)
