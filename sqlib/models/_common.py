"""Parts that several super-resolution networks share."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from numbers import Integral

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1], printed in EDSR's and CARN's releases."""


class SRNetwork(nn.Module):
    """What the rest of sqlib expects of a super-resolution network.

    Input (N, 3, h, w) float RGB in [0, 1]; output (N, 3, scale * h, scale * w), unclamped. The range a paper
    computes in (0..255 for EDSR, 0..1 for CARN) is the network's own business, so that nobody can feed it
    the wrong one.
    """

    name: str
    scale: int
    default_skip: tuple[str, ...] = ()
    """``fnmatch`` patterns over module names that the papers leave in full precision."""
    weights_id: str = "random"
    """SHA-256 of the loaded state dict; ``"random"`` until weights are loaded."""
    licence: str | None = None
    """Licence of weights that a third party trained; None for ours."""


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
        if x.ndim != 4 or x.shape[1] != 3:  # broadcasting would make it three channels without a word
            raise InputError(f"the network takes RGB images (N, 3, H, W), but the input is {tuple(x.shape)}")
        return x * self.rgb_range - self.mean

    def add(self, x: Tensor) -> Tensor:
        return (x + self.mean) / self.rgb_range


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling (ESPCN): one x3 stage or log2(scale) x2 stages of convolution and PixelShuffle."""

    def __init__(self, scale: int, features: int) -> None:
        steps = [3] if scale == 3 else [2] * round(log2(scale))
        stages: list[nn.Module] = []
        for step in steps:
            stages += [nn.Conv2d(features, step * step * features, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*stages)


def check_scale(name: str, scale: object, allowed: Sequence[int] = (2, 3, 4)) -> int:
    """Return ``scale`` when the network exists at it, else raise InputError."""
    if not isinstance(scale, Integral) or scale not in allowed:
        raise InputError(
            f"{name} got scale {scale!r}; it exists for {', '.join(f'x{s}' for s in allowed)}: choose one"
        )
    return int(scale)
