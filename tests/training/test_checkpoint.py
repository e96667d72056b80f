"""Checkpoints: what is refused; batch statistics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sqlib import models
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
    for incomplete in ({"format": 4, "step": 1}, {"format": 4}, {"format": 3}):
        torch.save(incomplete, tmp_path / "checkpoint.pt")
        with pytest.raises(InputError, match="an incomplete or foreign checkpoint: it has no '"):
            train(tiny, pool, tmp_path)


def test_a_checkpoint_of_the_format_before_continues(tmp_path: Path, pool: CropPool) -> None:
    """A training that began with it ends with the same weights, batch statistics and card."""
    config = TrainConfig("srresnet", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)
    assert train(config, pool, tmp_path / "whole", log=lambda _line: None)
    file = tmp_path / "cut" / "checkpoint.pt"
    batch = CropPool.batch

    def stop(self: CropPool, step: int, *sizes: int) -> tuple[torch.Tensor, torch.Tensor]:
        if step == 4:
            raise RuntimeError("stopped")
        return batch(self, step, *sizes)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(RuntimeError, match="stopped"):
        patched.setattr(CropPool, "batch", stop)
        train(config, pool, tmp_path / "cut", every=2, log=lambda _line: None)
    state = torch.load(file, weights_only=True)
    assert state["step"] == 4
    names = [name for name, _ in models.create("srresnet", scale=2).named_parameters()]
    average = {**state["task"]["model"], **dict(zip(names, state["average"], strict=True))}
    known = {"config": dataclasses.asdict(config), "data_id": state["identity"]["images"], "format": 3}
    torch.save({**state["task"], **known, "average": average, "optimizer": state["optimizer"]}, file)
    said: list[str] = []
    assert train(config, pool, tmp_path / "cut", log=said.append)
    assert said[0] == "srresnet-x2: continuing at step 4 of 6"
    whole, cut = (models.load(tmp_path / n / "srresnet-x2.safetensors", scale=2) for n in ("whole", "cut"))
    assert whole.weights_id == cut.weights_id
    assert torch.load(file, weights_only=True)["format"] == 4
    with pytest.raises(InputError, match="belongs to images"):
        torch.save({**state["task"], **known, "data_id": "?", "average": average, "optimizer": {}}, file)
        train(config, pool, tmp_path / "cut", log=said.append)


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
