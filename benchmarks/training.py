"""Training steps per second: memory layout, precision, and drawing the batch, side by side.

Run: ``python benchmarks/training.py [--config edsr-small-x4] [--threads 2] [--repeats 5]``. On seeded
noise: the contents of the images do not change the work.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _measure import measure, show
from torch.nn import functional

from sqlib import models
from sqlib.training import CropPool, Execution, config
from sqlib.training.loop import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="edsr-small-x4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trained = config(args.config)
    side = trained.patch * trained.scale
    rng = np.random.default_rng(0)
    images = [(f"{i}", rng.integers(0, 256, (2 * side, 2 * side, 3), dtype=np.uint8)) for i in range(14)]
    training, _ = CropPool.from_images(images, trained.scale, trained.seed).split(trained.held_out)

    plain = models.create(trained.network, scale=trained.scale).train()
    adam = torch.optim.Adam(plain.parameters())

    def contiguous() -> None:
        lr, hr = (t.contiguous().float() / 255 for t in training.batch(0, trained.batch, trained.patch))
        adam.zero_grad(set_to_none=True)
        functional.l1_loss(plain(lr), hr).backward()
        adam.step()

    shipped = Run(trained, "", Execution("cpu", "fp32"))
    half = Run(trained, "", Execution("cpu", "bf16"))
    seconds = measure(
        {
            "channels_last, float32 (what train does)": lambda: shipped.advance(training),
            "the default layout, float32": contiguous,
            "channels_last, bf16 autocast": lambda: half.advance(training),
            "drawing and cutting the batch alone": lambda: training.batch(0, trained.batch, trained.patch),
        },
        repeats=args.repeats,
        warmup=1,
    )
    baseline = "channels_last, float32 (what train does)"
    show(f"{trained.name}, one step of {trained.batch} crops, {args.threads} threads", seconds, baseline)
    print(f"{trained.batch / min(seconds[baseline]):.1f} images/s")


if __name__ == "__main__":
    main()
