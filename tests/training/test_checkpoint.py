"""Checkpoints: what travels, what is lost on the way, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sqlib.errors import DataError, InputError
from sqlib.training import CropPool, Execution, TrainConfig, checkpoint, train
from sqlib.training.loop import Run


def run_at(tiny: TrainConfig, pool: CropPool, steps: int) -> Run:
    run = Run(tiny, pool.fingerprint(), Execution())
    training, _ = pool.split(1)
    for _ in range(steps):
        run.advance(training)
    return run


def size(state: checkpoint.State, tmp_path: Path) -> int:
    checkpoint.save(state, tmp_path / "size.pt")
    return (tmp_path / "size.pt").stat().st_size


def test_the_richest_form_that_fits_is_carried(tmp_path: Path, tiny: TrainConfig, pool: CropPool) -> None:
    state = run_at(tiny, pool, 3).state()
    exact = size(state, tmp_path)
    # A file's name is stored inside it, so sizes differ by a percent.
    for limit, form, files in (
        (1.02 * exact, None, 1),
        (0.9 * exact, "light", 1),
        (0.1 * exact, "pieces", None),
    ):
        paths = checkpoint.carry(state, tmp_path / "out", tiny.name, int(limit))
        assert all(path.stat().st_size <= limit for path in paths)
        assert len(paths) == files if files else len(paths) > 0
        back = checkpoint.find(tmp_path / "out", tiny.name)
        assert back is not None and back["step"] == 3 and back["curve"] == state["curve"]
        assert [c["form"] for c in back["carried"]] == ([form] if form else [])
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in paths)


@pytest.mark.parametrize("divide", [1, 2, 12])
def test_every_form_continues(tmp_path: Path, tiny: TrainConfig, pool: CropPool, divide: int) -> None:
    run = run_at(tiny, pool, 3)
    state = run.state()
    limit = int(1.02 * size(state, tmp_path)) // divide
    checkpoint.carry(state, tmp_path / "run", tiny.name, limit)
    assert train(tiny, pool, tmp_path / "run", log=lambda _line: None)
    ended = checkpoint.read(tmp_path / "run" / checkpoint.FILE)
    whole = run_at(tiny, pool, tiny.steps).state()
    distance = max(float((ended["model"][k] - v).abs().max()) for k, v in whole["model"].items())
    if divide == 1:
        assert distance == 0
    else:
        assert 0 < distance < 4 * tiny.learning_rate * tiny.steps
    assert ended["step"] == tiny.steps


def test_missing_or_mixed_pieces_are_refused(tmp_path: Path, tiny: TrainConfig, pool: CropPool) -> None:
    state = run_at(tiny, pool, 1).state()
    paths = checkpoint.carry(state, tmp_path, tiny.name, size(state, tmp_path) // 16)
    (tmp_path / "size.pt").unlink()
    assert len(paths) > 1
    content = paths[0].read_bytes()
    paths[0].unlink()
    with pytest.raises(DataError, match=f"holds {len(paths) - 1} of {len(paths)} pieces"):
        checkpoint.find(tmp_path, tiny.name)
    paths[0].write_bytes(content)
    other = checkpoint.read(paths[1])
    checkpoint.save({**other, "step": 99}, paths[1])
    with pytest.raises(InputError, match="different checkpoints"):
        checkpoint.find(tmp_path, tiny.name)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path, tiny: TrainConfig, pool: CropPool) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        train(tiny, pool, tmp_path)
    torch.save({"step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="no training checkpoint of format"):
        train(tiny, pool, tmp_path)


def test_batch_statistics_reach_the_averaged_network(pool: CropPool) -> None:
    config = TrainConfig("srresnet", 2, steps=2, batch=1, patch=8, held_out=1)
    run = run_at(config, pool, 2)
    run.settle()
    means = [(k, v) for k, v in run.average.state_dict().items() if k.endswith("running_mean")]
    assert means and all(torch.equal(v, run.model.state_dict()[k]) for k, v in means)
    assert any(bool(v.abs().max() > 0) for _, v in means)
