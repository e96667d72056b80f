"""How far networks look, and that it is neither more nor less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqlib import models
from sqlib.evaluate import super_resolve
from sqlib.models import SRNetwork
from sqlib.models.edsr import EDSR
from sqlib.patches import Tiling


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_twice_the_radius_is_the_overlap_that_changes_nothing(photo: np.ndarray, scale: int) -> None:
    torch.manual_seed(0)
    network = EDSR("tiny", scale, blocks=1, features=8).eval().double()
    radius = models.receptive_radius(network)
    assert radius is not None
    whole = super_resolve(network, photo)
    for overlap, equal in ((2 * radius, True), (2 * radius - 2, False)):
        tiled = super_resolve(network, photo, tiling=Tiling(24, overlap))
        assert (np.abs(tiled - whole).max() <= 2**-15) == equal


def test_it_is_that_of_the_weights_that_are_zero_as_well() -> None:
    network = EDSR("tiny", 2, blocks=1, features=8).eval()
    radius = models.receptive_radius(network)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert models.receptive_radius(network) == radius == 6
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


class Other(SRNetwork):
    """A wide convolution, and beside it what does not go with patches."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.name, self.scale, self.kind = "other", 1, kind
        self.wide = nn.Conv2d(3, 3, 31, padding=15)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "statistics":
            return self.wide(x) * x.mean((2, 3), keepdim=True)
        if self.kind == "pooling":  # looks less far than the convolution, but from where it begins
            pooled = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
            return self.wide(x) + nn.functional.interpolate(pooled, size=x.shape[2:])
        return self.wide(x)


@pytest.mark.parametrize(("kind", "radius"), [("plain", 15), ("statistics", None), ("pooling", None)])
def test_networks_that_are_not_the_same_everywhere(kind: str, radius: int | None) -> None:
    torch.manual_seed(0)
    assert models.receptive_radius(Other(kind)) == radius


@pytest.mark.parametrize(("name", "radius"), [("carn-m", 21), ("edsr-small", 20), ("swinir-small", None)])
def test_networks_of_the_book(name: str, radius: int | None) -> None:
    assert models.receptive_radius(models.create(name, scale=4)) == radius
