"""DFSQ's normalized fake-quantization against torch operations; its cost in EDSR-baseline.

Run: ``python benchmarks/subset.py [--repeats N]``. One thread; every ratio is measured within one run. All
contenders include the statistics (mean, centring, largest magnitude, de-normalization), and all are checked
to give the same result but for values next to a midpoint.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _measure import compare, measure, show
from torch import Tensor

import sqlib
from sqlib.codebook import Codebook, universal
from sqlib.codebook.nearest import nearest_table
from sqlib.kernels.normalized import fake_quantize_normalized
from sqlib.quantizers import SubsetQuantizer

FUSED = "fused kernel, out="
#: How many times as fast the fused kernel is to be; a seventh of a copy's speed is seven copies' time.
AIMS = {
    "arg-min per channel (release)": 40.0,
    "torch.bucketize per channel": 25.0,
    "torch gather on a lattice table": 5.0,
    "copy": 1 / 7,
}

FIRST_CALL = """
import time, torch, numpy as np
from sqlib.codebook import Codebook
from sqlib.quantizers import SubsetQuantizer
torch.set_num_threads(1)
nan = np.array(np.nan)
points = np.arange(-8, 8) * 100
x = torch.randn(1, 4, 32, 32)
start = time.perf_counter()
SubsetQuantizer(Codebook(points / 1024, nan, nan, "x", points, 1024))(x)
print(time.perf_counter() - start)
"""


def codebook_of(channels: int, levels: int) -> Codebook:
    rng = np.random.default_rng(0)
    numerators = universal(4).numerators
    chosen = np.sort([rng.choice(numerators, levels, replace=False) for _ in range(channels)], axis=1)
    nan = np.array(np.nan)
    return Codebook(chosen / 1024, nan, nan, "random", chosen, 1024, 0)


def activations(channels: int, height: int, width: int) -> Tensor:
    """Heavy tails and a scale per channel, as EDSR's body has them."""
    rng = np.random.default_rng(1)
    scale = np.exp(rng.normal(size=(1, channels, 1, 1)))
    return torch.from_numpy((rng.laplace(size=(1, channels, height, width)) * scale).astype(np.float32))


def normalized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean((2, 3), keepdim=True)
    y = x - mean
    spread = y.abs().amax((2, 3), keepdim=True) + 1e-8
    return y / spread, spread, mean


def argmin_loop(x: Tensor, points: Tensor) -> Tensor:
    """As DFSQ's release works: channel by channel, the arg-min over all points."""
    hat, spread, mean = normalized(x)
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        nearest = (hat[:, c, ..., None] - points[c]).abs().argmin(-1)
        out[:, c] = points[c][nearest]
    return out * spread + mean


def bucketize(x: Tensor, points: Tensor, middle: Tensor) -> Tensor:
    hat, spread, mean = normalized(x)
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        out[:, c] = points[c][torch.bucketize(hat[:, c], middle[c])]
    return out * spread + mean


def gather(x: Tensor, table: Tensor) -> Tensor:
    """Lattice table in torch operations: the best a user would do without a kernel."""
    hat, spread, mean = normalized(x)
    index = torch.ceil(hat * 2048).clamp_(-2048, 2048).long().add_(2048)
    found = torch.gather(table, 1, index.reshape(x.shape[1], -1)).reshape(x.shape)
    return found * spread + mean


def compare_kernels(repeats: int, levels: int, height: int, width: int) -> None:
    x = activations(64, height, width)
    out = torch.empty_like(x)
    codebook = codebook_of(64, levels)
    points = torch.from_numpy(codebook.points).float()
    middle = torch.from_numpy(codebook.midpoints(np.float32))
    table = nearest_table(codebook, np.float32)
    lattice = torch.from_numpy(np.take_along_axis(codebook.points, table.first.astype(int), 1)).float()
    quantizer = SubsetQuantizer(codebook)
    free = SubsetQuantizer(Codebook(codebook.points, codebook.error, codebook.gap, "free", axis=0))
    planes, target = x.reshape(1, 64, -1).numpy(), out.reshape(1, 64, -1).numpy()
    contenders = {
        "copy": lambda: out.copy_(x),
        FUSED: lambda: fake_quantize_normalized(planes, table, out=target),
        "SubsetQuantizer": lambda: quantizer(x),
        "the same, points on no lattice": lambda: free(x),
        "torch gather on a lattice table": lambda: gather(x, lattice),
        "SubsetQuantizer, torch path": lambda: quantizer.fake_torch(x),
        "torch.bucketize per channel": lambda: bucketize(x, points, middle),
    }
    slow = {"arg-min per channel (release)": lambda: argmin_loop(x, points)}
    want = quantizer(x)
    for name, call in {**contenders, **slow}.items():
        if not name.startswith(("copy", "fused")):
            differ = int((~torch.isclose(call(), want, rtol=1e-4, atol=1e-5)).sum())
            if differ > 20:
                raise SystemExit(f"{name} differs from the kernel on {differ} of {x.numel()} values")
    seconds = measure(contenders, repeats=repeats)
    beside = measure({**slow, FUSED: contenders[FUSED]}, repeats=max(3, repeats // 8))
    title = f"(1, 64, {height}, {width}) float32, {levels} points a channel, one thread"
    show(title, {**seconds, **{name: beside[name] for name in slow}}, "copy")
    case = f"{height} x {width}, {levels} points, 1 thread"
    for name, aim in AIMS.items():
        # The aims are of 4 bits.
        compare(
            "subset", case, beside if name in slow else seconds, name, FUSED, aim if levels == 16 else None
        )


def compare_networks(repeats: int) -> None:
    torch.manual_seed(0)
    network = sqlib.models.create("edsr-baseline", scale=4)
    data = [torch.rand(1, 3, 48, 48) for _ in range(2)]
    quantized = sqlib.quantize_model(network, sqlib.recipes.DFSQ(bits=4, selector="exact"), data)
    uniform = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=4), data)
    print(f"\nEDSR-baseline x4: {int(quantized.report().quantized.sum())} convolutions at 4 bit")
    # A calibration crop, the size of the kernel benchmark, and 1280 x 720 enlarged from 320 x 180.
    for height, width in ((48, 48), (128, 128), (180, 320)):
        image = torch.rand(1, 3, height, width)
        turns = max(3, repeats * 48 * 48 // (height * width))
        contenders = {
            "FP32": lambda: network(image),  # noqa: B023 - called within the iteration
            "DFSQ": lambda: quantized(image),  # noqa: B023
            "Min-Max": lambda: uniform(image),  # noqa: B023
        }
        title = f"EDSR-baseline x4, {height} x {width} input"
        seconds = measure(contenders, repeats=turns, warmup=1)
        show(title, seconds, "FP32")
        # At most 1.1 times the time of full precision.
        compare("subset", f"EDSR-baseline x4, {height} x {width}, 1 thread", seconds, "FP32", "DFSQ", 1 / 1.1)


def first_call() -> None:
    found = [
        float(
            subprocess.run(
                [sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    ]
    print(f"\nfirst call in a new process, kernels in the cache: {min(found):.2f} s (best of {len(found)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for levels, height, width in ((16, 128, 128), (16, 180, 320), (256, 128, 128)):
        compare_kernels(repeats, levels, height, width)
    compare_networks(max(3, repeats // 6))
    first_call()


if __name__ == "__main__":
    main()
