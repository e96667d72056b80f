"""Images per second of the ways to run a training step, measured in turns on the machine at hand."""

from __future__ import annotations

import time

import torch

from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool, DeviceCrops
from sqlib.training.execution import Execution
from sqlib.training.loop import Run


def variants(device: str) -> list[Execution]:
    """float32, bf16 and, on CUDA, both compiled (CUDA graphs)."""
    kinds = [("fp32", False), ("bf16", False)]
    if torch.device(device).type == "cuda":
        kinds += [("fp32", True), ("bf16", True)]
    return [Execution(device, precision, compiled) for precision, compiled in kinds]


def measure(config: TrainConfig, pool: CropPool, *, device: str = "cpu", seconds: float = 5.0) -> list[str]:
    """One line per variant: images per second over ``seconds``, after three unmeasured steps; nothing is
    kept.

    The channels_last layout is always on; its gain is measured in ``benchmarks/training.py``.
    """
    training, _ = pool.split(config.held_out)
    lines = []
    for execution in variants(device):
        run = Run(config, "measurement", execution)
        batches = DeviceCrops(training, execution.torch_device) if execution.is_cuda else training
        began = time.monotonic()
        for _ in range(3):
            run.advance(batches)
        execution.synchronize()
        ready = time.monotonic()
        steps = 0
        while time.monotonic() - ready < seconds:
            for _ in range(5):
                run.advance(batches)
            execution.synchronize()
            steps += 5
        rate = steps * config.batch / (time.monotonic() - ready)
        name = execution.precision + (", compiled" if execution.compiled else "")
        lines.append(
            f"{config.name} {device} {name}: {rate:.1f} images/s (ready after {ready - began:.1f} s)"
        )
    return lines
