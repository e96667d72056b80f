"""DOBI and least squares bounds through the error oracle, against quantizing the whole tensor per candidate.

Run: ``python benchmarks/bounds.py [--repeats N] [--bits 4] [--threads 2]``. 10^6 float32 values, 100
candidates, the same number of threads on both sides; every ratio is measured within one run. Aims: DOBI 100
times, the least squares pair 20 times as fast as the direct DOBI. Exits with 1 where the answers differ.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from _measure import compare, measure, show

from sqlib.codebook import fit_bounds
from sqlib.codebook.dobi import dobi_candidates

VALUES, STEPS = 10**6, 100
DIRECT, DOBI, MSE = "direct DOBI, 100 x torch", "fit_bounds, dobi", "fit_bounds, mse"
AIMS = {DOBI: 100, MSE: 20}


def data() -> dict[str, torch.Tensor]:
    """What SR networks feed their quantizers: symmetric, after a GELU, after a ReLU with a tail."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(VALUES, generator=generator) * 1.5
    tailed = torch.distributions.Laplace(0.0, 1.0).icdf(torch.rand(VALUES, generator=generator) * 0.999999)
    return {
        "normal": normal,
        "after GELU": torch.nn.functional.gelu(normal),
        "after ReLU": tailed.clamp(-12, 12).relu(),
    }


def direct(x: torch.Tensor, bits: int) -> tuple[float, float]:
    """DOBI as described: quantize the whole tensor per candidate, keep the smallest distance."""
    lower, upper = x.min(), x.max()
    step, last = (upper - lower) / (2 * STEPS), (1 << bits) - 1
    best, bounds = float("inf"), (0.0, 0.0)
    for i in range(STEPS):
        l, u = lower + i * step, upper - i * step  # noqa: E741 - as in the paper
        codes = torch.round((torch.clamp(x, l, u) - l) / (u - l) * last)
        error = float(torch.norm(x - ((u - l) / last * codes + l)))
        if error < best:
            best, bounds = error, (float(l), float(u))
    return bounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    threads, bits = options.threads, options.bits
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    failures = []
    for name, x in data().items():
        values = x.numpy()
        contenders = {
            DIRECT: lambda: direct(x, bits),  # noqa: B023 - called within the iteration
            DOBI: lambda: fit_bounds(values, bits, method="dobi", threads=threads),  # noqa: B023
            MSE: lambda: fit_bounds(values, bits, method="mse", threads=threads),  # noqa: B023
        }
        pair = direct(x, bits)
        dobi, mse = (fit_bounds(values, bits, method=m) for m in ("dobi", "mse"))
        candidates = dobi_candidates(float(x.min()), float(x.max()), STEPS)[0]
        chosen = [int(np.argmin(np.abs(candidates - lower))) for lower in (pair[0], float(dobi.lower))]
        seconds = measure(contenders, repeats=options.repeats, warmup=1)
        show(f"{name}: {VALUES:,} float32 values, {bits} bit, {threads} threads", seconds, DIRECT)
        ratio = float(mse.error / dobi.error)
        print(f"candidate: direct {chosen[0]}, oracle {chosen[1]}; squared error, mse over dobi: {ratio:.4f}")
        for key, aim in AIMS.items():
            compare("bounds", f"{name}, {bits} bit, {threads} threads", seconds, DIRECT, key, aim)
        if chosen[0] != chosen[1] or mse.error > dobi.error:
            failures.append(f"{name}: answers differ")
    if failures:
        sys.exit("; ".join(failures))


if __name__ == "__main__":
    main()
