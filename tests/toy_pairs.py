"""Pairs of low and high resolution, and small networks of every kind to train on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sqlib.engine import QuantizedModel
from sqlib.models.carn import CARN
from sqlib.models.edsr import EDSR
from sqlib.models.elan import ELAN
from sqlib.models.srresnet import SRResNet


def pairs(scale: int = 2, n: int = 6, side: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    high = torch.rand(n, 3, scale * side, scale * side, generator=generator)
    return [(nn.functional.avg_pool2d(high, scale), high)]


def refilled(n: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """The same pictures, one at a time in one buffer, as some loaders give them."""
    low, high = pairs(n=n)[0]
    buffer = torch.zeros_like(low[:1]), torch.zeros_like(high[:1])
    for pair in zip(low, high, strict=True):
        for place, x in zip(buffer, pair, strict=True):
            place.copy_(x)
        yield buffer


def crops() -> list[Tensor]:
    return [pairs()[0][0]]


class Own(nn.Module):
    """Somebody's network."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.last(self.middle(self.first(x))), 2)


def elan() -> nn.Module:
    """As it begins, its softmax is saturated, and nothing behind it learns."""
    made = ELAN("elan-light", 2, blocks=2, features=12, windows=(4, 8))
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "project_in.weight" in name:
                p.mul_(0.01)
    return made


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return {
        "edsr": lambda: EDSR("edsr-small", 2, blocks=2, features=8),
        "srresnet": lambda: SRResNet("srresnet", 2, blocks=2, features=8),
        "carn": lambda: CARN("carn-single", 2, scales=None),
        "elan": elan,
        "own": Own,
    }[kind]()


@torch.no_grad()
def check_each_alone(model: QuantizedModel, x: Tensor) -> None:
    """A batch uses the bits, and gives the values, of each of its samples alone.

    Values are compared in float64, where the order of sums in a convolution decides no level.
    """
    model, x = copy.deepcopy(model).double(), x.double()
    with model.context() as context:
        whole = model(x)
    for n in range(len(x)):
        with model.context() as single:
            torch.testing.assert_close(model(x[n : n + 1])[0], whole[n], rtol=0, atol=1e-10)
        assert {operand: widths[n].item() for operand, widths in context.operands.items()} == {
            operand: widths.item() for operand, widths in single.operands.items()
        }
