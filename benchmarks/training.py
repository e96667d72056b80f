"""Training steps per second: precision, memory layout, and cutting the batch, side by side.

Run: ``python benchmarks/training.py [--config edsr-baseline-x4] [--threads 2] [--repeats 5]``. On seeded
noise: the contents of the images do not change the work. Aim: bf16 1.8 times as fast as float32, on a
processor that has it.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch
from _measure import compare, measure, show
from torch.nn import functional

from sqlib import models
from sqlib.fit.loop import Loop
from sqlib.training import CropPool, Execution, config, has_bf16
from sqlib.training.task import Training

AIM = 1.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="edsr-baseline-x4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Neither a teacher nor a start changes the work of a step.
    trained = dataclasses.replace(config(args.config), teacher="", start="", frozen=0, later=())
    side = trained.patch * trained.scale
    rng = np.random.default_rng(0)
    images = [(f"{i}", rng.integers(0, 256, (2 * side, 2 * side, 3), dtype=np.uint8)) for i in range(14)]
    training, held_out = CropPool.from_images(images, trained.scale, trained.seed).split(trained.held_out)

    plain = models.create(trained.network, scale=trained.scale).train()
    adam = torch.optim.Adam(plain.parameters())

    def contiguous() -> None:
        lr, hr = (t.contiguous().float() / 255 for t in training.batch(0, trained.batch, trained.patch))
        adam.zero_grad(set_to_none=True)
        functional.l1_loss(plain(lr), hr).backward()
        adam.step()

    single, half = (
        Loop(Training(trained, Execution("cpu", precision), training, held_out))
        for precision in ("fp32", "bf16")
    )
    baseline, bf16 = "channels_last, float32", "channels_last, bf16 autocast"
    seconds = measure(
        {
            baseline: single.advance,
            bf16: half.advance,
            "the default layout, float32": contiguous,
            "cutting the batch alone": lambda: training.batch(0, trained.batch, trained.patch),
        },
        repeats=args.repeats,
        warmup=1,
    )
    case = f"{trained.name}, one step of {trained.batch} crops, {args.threads} threads"
    show(case, seconds, baseline)
    for name in (baseline, bf16):
        print(f"{name}: {trained.batch / np.median(seconds[name]):.1f} images/s")
    # Without the instructions bf16 is emulated, and training does not choose it.
    compare("training", case, seconds, baseline, bf16, AIM if has_bf16() else None)


if __name__ == "__main__":
    main()
