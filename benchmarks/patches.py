"""Patches of one image with bits of their own: all of a size as one batch, against one pass for each patch.

Run: ``python benchmarks/patches.py [--network carn] [--threads 2] [--repeats 3]``. The network has random
weights, which change nothing of the work, and a choice of 4, 6 or 8 bits for every activation and patch. It
upscales 512 x 270 pixels of a photograph to 2048 x 1080, in patches of 96 that share 6. Aim: 3 times the
images a second of one pass for each patch in the manner of CADyQ's release, outputs equal bit for bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from _measure import QUICK, compare, measure, show
from torch import Tensor, nn

from sqlib import datasets, models, quantize_model
from sqlib.cost import cost
from sqlib.engine import QuantizedModel, Recipe
from sqlib.evaluate import super_resolve
from sqlib.patches import Grid, Tiling, merge, split
from sqlib.quantizers import QuantizerBank, RangeObserver
from sqlib.quantizers.bank import Choice
from sqlib.recipes import MinMax

AIM = 3.0
WIDTHS = (4, 6, 8)
TILING = Tiling(96, 6)
BATCH, ALONE = "a batch per size of patch", "a pass per patch"
RELEASE = "a pass per patch, every width, weights anew"


class ByContrast(nn.Module):
    """More bits for a larger deviation of the channels, the mean over them against two edges."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.register_buffer("edges", edges)

    def forward(self, x: Tensor, site: object, context: object) -> list[int]:
        deviations = x.flatten(2).std(2).mean(1)
        return [WIDTHS[k] for k in torch.bucketize(deviations, self.edges).tolist()]


class Mixed(QuantizerBank):
    """Computes every width, and the sum of them weighted by zeros and a one."""

    def forward(self, x: Tensor, choice: Choice | None = None) -> Tensor:
        widths, _ = self.choose(x) if choice is None else choice
        chosen = torch.as_tensor(widths).expand(len(x))
        out = torch.zeros_like(x)
        for width in self.widths:
            share = (chosen == width).to(x.dtype).view(-1, 1, 1, 1)
            out = out + share * self.at(width).fake_torch(x)
        return out


class Widths(RangeObserver):
    """A bank with the edges between a third of what was seen each."""

    def __init__(self, bank: type[QuantizerBank]) -> None:
        super().__init__(8)
        self.bank = bank
        self.deviations: list[Tensor] = []

    def update(self, x: Tensor, number: int = 0) -> None:
        super().update(x, number)
        self.deviations.append(x.flatten(2).std(2).mean(1))

    def finish(self) -> nn.Module:
        quantizers = {}
        for width in WIDTHS:
            self.bits = width
            quantizers[width] = super().finish()
        edges = torch.cat(self.deviations).quantile(torch.tensor([1 / 3, 2 / 3]))
        return self.bank(quantizers, ByContrast(edges))


@dataclass(frozen=True)
class Banked(Recipe):
    """Weights of 8 bits, a bank for every activation."""

    bank: type[QuantizerBank] = QuantizerBank

    def weight_quantizer(self, weight: np.ndarray, site: object) -> nn.Module | None:
        return MinMax(8).weight_quantizer(weight, site)

    def activation_observer(self, site: object, operand: str) -> Widths:
        return Widths(self.bank)


def one_by_one(model: QuantizedModel, lr: np.ndarray, anew: bool) -> np.ndarray:
    """A loop over the patches; with `anew`, nothing that a pass computed of the weights is kept."""
    x = torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1), dtype=np.float32))[None] / 255
    grid = Grid(x.shape[2], x.shape[3], TILING.patch, TILING.overlap)
    found = []
    with torch.inference_mode():
        for patch in split(x, grid):
            if anew:
                model.refresh()
            found.append(model(patch))
    return np.ascontiguousarray((merge(found, grid, 4)[0] * 255).permute(1, 2, 0).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", default="carn", choices=["srresnet", "carn"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    photos = datasets.load("builtin")
    height, width = (108, 204) if QUICK else (270, 512)
    lr = np.ascontiguousarray(photos.hr(photos.names.index("china"))[-height:, :width])
    torch.manual_seed(0)
    network = models.create(args.network, scale=4).eval()
    patches = split(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255, Grid(height, width, 48))
    crops = [torch.cat([patch[..., :48, :48] for patch in patches])[:16]]
    ours, release = (quantize_model(network, Banked(bank=bank), crops) for bank in (QuantizerBank, Mixed))

    contenders: dict[str, Callable[[], np.ndarray]] = {
        RELEASE: partial(one_by_one, release, lr, True),
        ALONE: partial(one_by_one, ours, lr, False),
        BATCH: partial(super_resolve, ours, lr, tiling=TILING),
    }
    with ours.passes() as passes:
        expected = contenders[BATCH]()
    for name, call in contenders.items():
        assert np.array_equal(call(), expected), f"{name}: other outputs than {BATCH}"
    found = cost(ours, (4 * width, 4 * height), patch=96, overlap=6, context=passes)
    print(f"{args.network} x4, {found.patches} patches in {len(passes)} batches, FQR {found.fqr:.2f}")
    seconds = measure(contenders, repeats=args.repeats, warmup=0)
    case = f"{args.network} x4, {4 * width} x {4 * height}, {args.threads} threads"
    show(case, seconds, RELEASE)
    compare("patches", case, seconds, RELEASE, BATCH, AIM)
    compare("patches", case, seconds, ALONE, BATCH)


if __name__ == "__main__":
    main()
