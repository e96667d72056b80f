"""Training: schedule, batches, resume, refusal of what cannot work."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sqlib import models
from sqlib.errors import DataError, InputError
from sqlib.resize import downscale
from sqlib.training import CropPool, Execution, TrainConfig, config, load_images, train
from sqlib.training.cards import add_scores


def photos(count: int = 5, side: int = 48) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (f"set/{i}.png", rng.integers(0, 256, (side + 4 * i, side, 3), dtype=np.uint8)) for i in range(count)
    ]


TINY = TrainConfig("edsr-small", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)


def test_schedule_warms_up_then_falls_to_the_final_rate() -> None:
    c = config("edsr-small-x4")
    rates = [c.learning_rate_at(step) for step in range(c.steps + 1)]
    assert rates[0] == pytest.approx(c.learning_rate / c.warmup)
    assert max(rates) == rates[c.warmup] == c.learning_rate
    assert rates[c.steps] == pytest.approx(c.final_learning_rate)
    assert all(a >= b for a, b in zip(rates[c.warmup :], rates[c.warmup + 1 :], strict=False))


def test_at_a_restart_the_whole_schedule_begins_anew() -> None:
    first, second = (dataclasses.replace(TINY, steps=steps) for steps in (6, 9))
    both = dataclasses.replace(TINY, steps=15, restarts=(6,))
    rates = [both.learning_rate_at(step) for step in range(15)]
    assert rates[:6] == [first.learning_rate_at(step) for step in range(6)]
    assert rates[6:] == [second.learning_rate_at(step) for step in range(9)]
    assert both.learning_rate_at(15) == pytest.approx(both.final_learning_rate)
    assert TrainConfig(**json.loads(json.dumps(dataclasses.asdict(both)))) == both  # as a card gives it back


@pytest.mark.parametrize("restarts", [(0,), (6,), (4, 2), (3, 3), (-1,)])
def test_restarts_ascend_within_the_steps(restarts) -> None:
    with pytest.raises(InputError, match=r"cannot have restarts=.*ascending restarts"):
        dataclasses.replace(TINY, restarts=restarts)


def test_batches_depend_on_seed_and_step_alone_and_are_aligned() -> None:
    pool = CropPool.from_images(photos(), 2, seed=3)
    lr, hr = pool.batch(7, 4, 8)
    again = CropPool.from_images(photos(), 2, seed=3).batch(7, 4, 8)
    assert torch.equal(lr, again[0]) and torch.equal(hr, again[1])
    assert not torch.equal(lr, pool.batch(8, 4, 8)[0])
    assert lr.dtype == torch.uint8 and lr.shape == (4, 3, 8, 8) and hr.shape == (4, 3, 16, 16)
    # The LR crop is the degraded HR crop, away from the borders that the crop cut.
    for k in range(4):
        small = downscale(np.ascontiguousarray(hr[k].permute(1, 2, 0).numpy()), 2).astype(int)
        assert np.abs(small - lr[k].permute(1, 2, 0).numpy())[2:-2, 2:-2].max() <= 1


def test_what_others_draw_is_left_alone_and_decides_nothing(tmp_path) -> None:
    """Torch's own generator is where it was, and the same training in two parts is that in one."""
    pool, state = CropPool.from_images(photos(), 2, seed=3), torch.get_rng_state()
    for part, minutes in (("whole", (1,)), ("cut", (0, 1))):
        for limit in minutes:
            train(TINY, pool, tmp_path / part, minutes=limit, log=lambda line: None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12345)
    train(TINY, pool, tmp_path / "another state", minutes=1, log=lambda line: None)
    whole, *others = (
        models.load(tmp_path / part / "edsr-small-x2.safetensors", scale=2).weights_id
        for part in ("whole", "cut", "another state")
    )
    assert others == [whole, whole]


def test_held_out_images_are_never_trained_on() -> None:
    training, held_out = CropPool.from_images(photos(), 2, seed=3).split(2)
    assert len(held_out.names) == 2 and not set(training.names) & set(held_out.names)
    known = [
        (name, image) for part in (held_out.lr, held_out.hr) for name, image in zip("ab", part, strict=True)
    ]
    again = CropPool.from_images(photos(), 2, seed=3, inputs=[*known, ("e", training.lr[0])])
    assert again.split(2)[0].names == [*training.names, "e"]


class SlowClock:
    """A clock that advances one second each time it is read: time limits become step counts."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1.0
        return self.seconds


def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = CropPool.from_images(photos(), 2, seed=1)
    assert train(TINY, pool, tmp_path / "whole", every=4, log=lambda _line: None)
    clock = SlowClock()
    for module in ("fit.loop.loop", "training.run", "training.task"):
        monkeypatch.setattr(f"sqlib.{module}.time", clock)
    calls = 1
    while not train(TINY, pool, tmp_path / "cut", minutes=9 / 60, every=4, log=lambda _line: None):
        calls += 1
        assert calls < 10
    assert calls >= 3, "the training was meant to be interrupted"
    whole, cut = (
        models.load(tmp_path / run / "edsr-small-x2.safetensors", scale=2) for run in ("whole", "cut")
    )
    assert whole.weights_id == cut.weights_id


def test_checkpoint_of_another_configuration_or_data_is_refused(tmp_path: Path) -> None:
    pool = CropPool.from_images(photos(), 2, seed=1)
    train(TINY, pool, tmp_path, minutes=0, log=lambda _line: None)
    with pytest.raises(InputError, match="belongs to configuration"):
        train(TrainConfig("edsr-small", 2, steps=7, batch=2, patch=8, held_out=1), pool, tmp_path)
    with pytest.raises(InputError, match="belongs to images '"):
        train(TINY, CropPool.from_images(photos(4), 2, seed=1), tmp_path)


def test_nan_loss_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = CropPool.from_images(photos(), 2, seed=1)
    train(TINY, pool, tmp_path, minutes=0, log=lambda _line: None)
    good = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(
        "sqlib.training.task.functional.l1_loss", lambda a, b: (a - b).abs().mean() * float("nan")
    )
    with pytest.raises(InputError, match="stopped at step 0: the loss is nan; lower the learning rate"):
        train(TINY, pool, tmp_path, log=lambda _line: None)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


def test_cuda_asked_for_and_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        Execution("cuda")


def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = CropPool.from_images(photos(), 2, seed=1)
    train(TINY, pool, tmp_path, minutes=0, log=lambda _line: None)
    good = (tmp_path / "checkpoint.pt").read_bytes()

    class FullDisk(io.FileIO):
        def write(self, data: bytes) -> int:
            super().write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sqlib._files.open", FullDisk, raising=False)
    with pytest.raises(DataError, match=r"No space left on device.*The one before it is kept"):
        train(TINY, pool, tmp_path, every=1, log=lambda _line: None)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint.pt"]
    with pytest.raises(DataError, match="Nothing is kept so far"):  # at once, not after `every` steps
        train(TINY, pool, tmp_path / "new", minutes=0, log=lambda _line: None)


def test_folders_that_cannot_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_images(tmp_path / "absent", smallest=8)
    with pytest.raises(DataError, match="no usable image"):
        load_images(tmp_path, smallest=8)
    hidden = os.walk  # a folder that its owner does not show
    monkeypatch.setattr(
        os, "walk", lambda top, onerror: onerror(PermissionError(13, "Permission denied", top))
    )
    with pytest.raises(DataError, match=f"{tmp_path} cannot be listed .Permission denied."):
        load_images(tmp_path, smallest=8)
    monkeypatch.setattr(os, "walk", hidden)
    for name, image in photos(19):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "set" / "broken.png").write_bytes(b"\x89PNG nothing")
    images, skipped = load_images(tmp_path, smallest=8)
    assert len(images) == 19 and [name for name, _ in skipped] == ["set/broken.png"]
    for i in range(3):
        (tmp_path / "set" / f"broken{i}.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match="4 of 23 training files are unusable"):
        load_images(tmp_path, smallest=8)


def test_unknown_configuration() -> None:
    with pytest.raises(InputError, match="unknown training configuration"):
        config("edsr-small-x8")


def test_card_gets_scores_of_the_weights_it_describes(tmp_path: Path) -> None:
    pool = CropPool.from_images(photos(), 2, seed=1)
    train(TINY, pool, tmp_path, log=lambda _line: None)
    weights = tmp_path / "edsr-small-x2.safetensors"
    (tmp_path / "Set5" / "HR").mkdir(parents=True)
    for (_, image), name in zip(photos(), ("baby", "bird", "butterfly", "head", "woman"), strict=True):
        Image.fromarray(image).save(tmp_path / "Set5" / "HR" / f"{name}.png")
    card = add_scores(weights, ["set5"], data_dir=str(tmp_path))
    score = card["scores"]["set5"]
    assert score["n"] == 5 and 0 < score["psnr"] < 60 and score["protocol"].startswith("Y-BT601")
    assert card["data"]["images"] == 4 and card["curve"][-1]["step"] == TINY.steps
    other = models.create("edsr-small", scale=2).state_dict()
    save_file(other, weights, metadata={"name": "edsr-small"})
    with pytest.raises(InputError, match="is not what"):
        add_scores(weights, ["set5"], data_dir=str(tmp_path))
