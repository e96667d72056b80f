"""Checkpoints: what is refused; batch statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sqlib.errors import InputError
from sqlib.fit.loop import Loop
from sqlib.training import CropPool, Execution, TrainConfig, train
from sqlib.training.task import Training


def test_damaged_and_foreign_files_are_refused(tmp_path: Path, tiny: TrainConfig, pool: CropPool) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        train(tiny, pool, tmp_path)
    torch.save({"step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="no training checkpoint of format"):
        train(tiny, pool, tmp_path)


def test_batch_statistics_reach_the_averaged_network(pool: CropPool) -> None:
    config = TrainConfig("srresnet", 2, steps=2, batch=1, patch=8, held_out=1)
    run = Training(config, Execution(), *pool.split(1))
    loop = Loop(run)
    for _ in range(2):
        loop.advance()
    run.settle()
    means = [(k, v) for k, v in run.averaged.state_dict().items() if k.endswith("running_mean")]
    assert means and all(torch.equal(v, run.model.state_dict()[k]) for k, v in means)
    assert any(bool(v.abs().max() > 0) for _, v in means)
