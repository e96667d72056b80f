"""Kill a training with SIGKILL again and again: it ends with the weights of an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib import models
from sqlib.fit.loop import checkpoint
from sqlib.training import CropPool, TrainConfig, train

# A separate process trains on the same images, one checkpoint a step.
CHILD = """
import sys
import torch
torch.set_num_threads(1)
from sqlib.training import CropPool, TrainConfig, load_images, train
config = TrainConfig("edsr-small", 2, steps=40, batch=2, patch=8, warmup=2, held_out=1)
pool = CropPool.from_images(load_images(sys.argv[1], smallest=16)[0], 2, seed=1)
train(config, pool, sys.argv[2], every=1, log=lambda line: print(line, flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_killed_at_any_moment_it_resumes_to_the_same_weights(
    tmp_path: Path, pool: CropPool, photos: list[tuple[str, np.ndarray]]
) -> None:
    import torch

    for name, image in photos:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / name)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "images"), str(tmp_path / "killed")]
    kills, reached = 0, []
    while True:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(6)]
        time.sleep(0.003 * kills)  # somewhere else in the step each time
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if not lines[-1]:
            break  # it ended by itself: the schedule was complete
        kills += 1
        state = checkpoint.read(tmp_path / "killed" / checkpoint.FILE)
        reached.append(state["step"])
        assert kills < 20
    assert kills >= 3 and reached == sorted(reached)
    config = TrainConfig("edsr-small", 2, steps=40, batch=2, patch=8, warmup=2, held_out=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bit for bit needs the same number of threads
    try:
        assert train(config, pool, tmp_path / "killed", log=lambda _line: None)
        assert train(config, pool, tmp_path / "whole", every=1, log=lambda _line: None)
    finally:
        torch.set_num_threads(threads)
    whole, killed = (
        models.load(tmp_path / run / "edsr-small-x2.safetensors", scale=2) for run in ("whole", "killed")
    )
    assert whole.weights_id == killed.weights_id
