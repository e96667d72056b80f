"""The uniform fake-quantizer against torch.fake_quantize_per_tensor_affine and a copy; its cost in a network.

Run: ``python benchmarks/uniform.py [--repeats N]``. One thread; every ratio is measured within one run.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from _measure import compare, measure, show
from torch import nn

import sqlib
from sqlib.codebook import fit_bounds
from sqlib.kernels import fake_quantize
from sqlib.quantizers import UniformQuantizer

FUSED, TORCH = "fused kernel, out=", "torch.fake_quantize_per_tensor_affine"


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(n, n, 3, padding=1), nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(F.relu(self.a(x)))


def small_edsr() -> nn.Module:
    """8 blocks x 32 features, x4."""
    n = 32
    up = [nn.Conv2d(n, 4 * n, 3, padding=1), nn.PixelShuffle(2)] * 2
    head, tail = nn.Conv2d(3, n, 3, padding=1), nn.Conv2d(n, 3, 3, padding=1)
    return nn.Sequential(head, *[Block(n) for _ in range(8)], nn.Conv2d(n, n, 3, padding=1), *up, tail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)

    x = torch.randn(1, 64, 128, 128)
    out = torch.empty_like(x)
    bounds = fit_bounds(x.numpy(), 4, method="minmax")
    quantizer = UniformQuantizer(bounds)
    channels = UniformQuantizer(fit_bounds(x.numpy(), 4, axis=1, method="minmax"))
    grid = bounds.grid(np.float32)
    scale = float(bounds.scale)
    zero = int(np.rint(-float(bounds.lower) / scale))
    seconds = measure(
        {
            "copy": lambda: out.copy_(x),
            "copy to fresh memory": x.clone,
            FUSED: lambda: fake_quantize(x.numpy(), *grid, out=out.numpy()),
            "UniformQuantizer, per tensor": lambda: quantizer(x),
            "UniformQuantizer, per channel": lambda: channels(x),
            "the same in torch operations": lambda: quantizer.fake_torch(x),
            TORCH: lambda: torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 15),
        },
        repeats=repeats,
    )
    show("(1, 64, 128, 128) float32, 4 bit, one thread", seconds, "copy")
    # At most 1.3 times a copy's time.
    compare("uniform", "128 x 128, 4 bit, 1 thread", seconds, "copy", FUSED, 1 / 1.3)
    compare("uniform", "128 x 128, 4 bit, 1 thread", seconds, TORCH, FUSED)

    network = small_edsr().eval()
    quantized = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=4), [torch.rand(2, 3, 48, 48)])
    every = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=4), [torch.rand(2, 3, 48, 48)], skip=[])
    none = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=4), [torch.rand(2, 3, 48, 48)], skip="*")
    for size in (48, 128):
        image = torch.rand(1, 3, size, size)
        contenders = {
            "FP32": lambda: network(image),  # noqa: B023 - called within the iteration
            "interception only (all skipped)": lambda: none(image),  # noqa: B023
            "Min-Max 4 bit, default skip": lambda: quantized(image),  # noqa: B023
            "Min-Max 4 bit, every call site": lambda: every(image),  # noqa: B023
        }
        seconds = measure(contenders, repeats=max(3, repeats // 5), warmup=1)
        show(f"EDSR 8 x 32, x4, {size} x {size} input, one thread", seconds, "FP32")
        compare(
            "uniform",
            f"EDSR 8 x 32, x4, {size} x {size}, 1 thread",
            seconds,
            "FP32",
            "Min-Max 4 bit, default skip",
        )


if __name__ == "__main__":
    main()
