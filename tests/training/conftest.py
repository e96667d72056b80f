"""Tiny photographs and a tiny configuration that trains in a blink."""

from __future__ import annotations

import numpy as np
import pytest

from sqlib.training import CropPool, TrainConfig


@pytest.fixture
def photos() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(f"set/{i}.png", rng.integers(0, 256, (48 + 4 * i, 48, 3), dtype=np.uint8)) for i in range(5)]


@pytest.fixture
def pool(photos: list[tuple[str, np.ndarray]]) -> CropPool:
    return CropPool.from_images(photos, 2, seed=1)


@pytest.fixture
def tiny() -> TrainConfig:
    return TrainConfig("edsr-small", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)
