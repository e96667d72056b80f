"""A recipe and selectors with bits per sample, small enough to be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlib.engine import Recipe
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.quantizers import QuantizerBank, RangeObserver, StaticBits, saved_as
from sqlib.recipes import MinMax

WIDTHS = (4, 6, 8)


def rows(x: Tensor, context: Any) -> Tensor:
    """The values of each sample as a row."""
    samples = x.shape[0] if context is None else context.samples
    return x.reshape(samples, -1)


@saved_as("toy-by-variance")
class ByVariance(nn.Module):
    """More bits for a larger variance of the activation."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.register_buffer("edges", edges)

    def options(self) -> dict[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, options: Any, tensors: Any) -> ByVariance:
        return cls(tensors["edges"].clone())

    def forward(self, x: Tensor, site: Any, context: Any) -> Tensor:
        chosen = torch.bucketize(rows(x, context).detach().var(1), self.edges.to(x))
        return torch.tensor(WIDTHS, device=x.device)[chosen]


@saved_as("toy-learned")
class Learned(nn.Module):
    """Shares from the variance of the activation, by a linear layer; leaves them for a loss."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.register_buffer("edges", edges)
        self.linear = nn.Linear(1, len(WIDTHS))
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-1.0], [0.2], [1.0]]))
            self.linear.bias.copy_(torch.tensor([0.0, 0.1, 0.0]))

    def options(self) -> dict[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, options: Any, tensors: Any) -> Learned:
        made = cls(tensors["edges"].clone())
        made.load_state_dict(tensors)
        return made

    def forward(self, x: Tensor, site: Any, context: Any) -> Tensor:
        feature = torch.log(rows(x, context).var(1, keepdim=True) / self.edges[1].to(x))
        shares = torch.softmax(self.linear(feature), 1)
        if context is not None:
            context.data.setdefault("shares", {})[site.name] = shares
        return shares


class Spread(RangeObserver):
    """Ranges for all widths, and the variances that separate them."""

    def __init__(self, selector: Callable[[Tensor], nn.Module]) -> None:
        super().__init__(8)
        self.selector, self.variances = selector, []

    def update(self, x: Tensor, number: int = 0) -> None:
        super().update(x, number)
        self.variances.append(float(x.var()))

    def finish(self) -> nn.Module:
        made = {}
        for width in WIDTHS:
            self.bits = width
            made[width] = super().finish()
        edges = np.mean(self.variances) * torch.tensor([0.3, 1.0], dtype=torch.float64)
        return QuantizerBank(made, self.selector(edges))


@dataclass(frozen=True)
class Banked(Recipe):
    """Every activation has a bank; weights have one where `weights` makes their selector."""

    selector: Any = ByVariance
    weights: Any = None

    def weight_quantizer(self, weight, site):
        if self.weights is None:
            return MinMax(8).weight_quantizer(weight, site)
        made = {width: MinMax(width).weight_quantizer(weight, site) for width in WIDTHS}
        return QuantizerBank(made, self.weights())

    def activation_observer(self, site, operand):
        return Spread(self.selector)

    def to_dict(self):
        return {"name": "toy-banked", "version": 1, "bits": 8}


def SixBits() -> nn.Module:
    """Of a bank's widths always the middle one."""
    return StaticBits(6)


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return EDSR("tiny", 2, blocks=2, features=6).eval()


def swin(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SwinIR("tiny", 2, features=8, depths=(2,), heads=2, window=4).eval()


NETWORKS = {"cnn": cnn, "swin": swin}


def patches(samples: int = 6, side: int = 12, seed: int = 3) -> Tensor:
    """Patches of very different contrast, none like its neighbour."""
    x = torch.rand(samples, 3, side, side, generator=torch.Generator().manual_seed(seed))
    contrast = torch.tensor([0.1, 1.0, 0.5, 1.0, 0.05, 0.7]).repeat(samples)[:samples]
    return 0.5 + (x - 0.5) * contrast.view(-1, 1, 1, 1)
