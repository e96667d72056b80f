"""Starting from other weights, holding them still, leaving the border out; ending early."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from scipy.ndimage import gaussian_filter

from sqlib import models
from sqlib.errors import DataError, InputError
from sqlib.fit.loop import Loop, checkpoint
from sqlib.images import write_image
from sqlib.training import CropPool, Execution, TrainConfig, prepare, train
from sqlib.training.start import find_start, fitting
from sqlib.training.task import Training


def quiet(_line: str) -> None:
    """Log nothing."""


def test_tensors_that_fit_are_taken_and_the_rest_is_new(tiny: TrainConfig, pool: CropPool) -> None:
    start = models.pretrained("edsr-small", scale=4).state_dict()
    run = Training(tiny, Execution(), pool, pool, start=start)
    assert torch.equal(run.model.state_dict()["blocks.3.conv1.weight"], start["blocks.3.conv1.weight"])
    assert torch.equal(run.averaged.state_dict()["head.weight"], start["head.weight"])
    torch.manual_seed(tiny.seed)
    fresh = models.create("edsr-small", scale=2).state_dict()
    # x4 has two stages in its upsampler, x2 one: the first fits by name and shape.
    assert run.provenance["start"]["new"] == sorted(set(fresh) - set(run.taken)) == []
    with pytest.raises(InputError, match="none of the 1 tensors to start from fits edsr-small-x2"):
        Training(tiny, Execution(), pool, pool, start={"head.weight": torch.zeros(1, 3, 3, 3)})
    with pytest.raises(InputError, match="none of the"):  # one bias that fits by chance is no start
        Training(tiny, Execution(), pool, pool, start={"head.bias": torch.zeros(32)})


def test_srresnet_begins_with_the_function_of_edsr() -> None:
    """Far from the border it computes the same, evaluating or training on the images of its statistics."""
    rng = np.random.default_rng(0)
    images = [gaussian_filter(rng.uniform(0, 255, (96, 96, 3)), 1.5).astype(np.uint8) for _ in range(4)]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    source = models.pretrained("edsr-small", scale=4)
    network = models.create("srresnet-small", scale=4)
    start = find_start("edsr-small-x4", "srresnet-small", 4, images=images)
    assert start.function
    network.load_state_dict(start.tensors)
    with torch.inference_mode():
        expected = source(x)
        evaluating, training = network.eval()(x), network.train()(x)
    middle = (..., slice(184, 200), slice(184, 200))
    # 32 channels cannot make all 48 constants of the output exactly.
    assert float((evaluating - expected)[middle].abs().max()) < 1e-4
    assert float((training - evaluating).abs().max()) < 1e-4
    with pytest.raises(InputError, match="no images were given"):
        find_start("edsr-small-x4", "srresnet-small", 4, images=[])


def test_srresnet_of_another_size_takes_what_fits_of_edsr() -> None:
    x2 = models.pretrained("edsr-small", scale=2).state_dict()
    start = find_start("edsr-small-x2", "srresnet-small", 4, images=[])
    assert start.tensors.keys() == x2.keys() and not start.function
    with pytest.raises(InputError, match="fits srresnet-x4"):
        find_start("edsr-small-x4", "srresnet", 4, images=[])


def test_a_file_brings_its_function_too(tmp_path: Path) -> None:
    """Whatever it is called, in our names or those of the release."""
    model = models.pretrained("edsr-small", scale=4)
    layout = models.spec("edsr-small").official((), model)
    image = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (32, 32, 3)), 1.5).astype(np.uint8)
    by_name = find_start("edsr-small-x4", "srresnet-small", 4, images=[image])
    for file, names in (("own.pt", str), ("release.pt", layout.theirs)):
        torch.save({names(name): value for name, value in model.state_dict().items()}, tmp_path / file)
        start = find_start(str(tmp_path / file), "srresnet-small", 4, images=[image])
        assert start.function
        assert all(torch.equal(value, by_name.tensors[name]) for name, value in start.tensors.items())
    ours = models.create("srresnet-small", scale=4).state_dict()
    torch.save(ours, tmp_path / "srresnet.pt")
    start = find_start(str(tmp_path / "srresnet.pt"), "srresnet-small", 4, images=[image])
    assert not start.function and start.tensors.keys() == ours.keys()
    with pytest.raises(DataError, match="absent"):
        find_start(str(tmp_path / "absent.pt"), "srresnet-small", 4, images=[image])


def test_what_was_taken_stays_until_it_thaws(tiny: TrainConfig, pool: CropPool, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, start="edsr-small-x4", frozen=4, clip=1.0)
    start = {
        k: v for k, v in models.pretrained("edsr-small", scale=4).state_dict().items() if "upsampler" not in k
    }
    run = Training(config, Execution(), *pool.split(1), start=start)
    loop = Loop(run, clip=config.clip)
    for step in range(6):
        before = {k: v.clone() for k, v in run.model.state_dict().items()}
        loop.advance()
        moved = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
        assert moved == (set(before) - set(start) if step < 4 else set(before))
    # The same through train(), interrupted while frozen.
    assert not train(config, pool, tmp_path, minutes=0, execution=Execution(), start=start, log=quiet)
    assert train(config, pool, tmp_path, log=quiet)
    ended = models.load(tmp_path / "edsr-small-x2.safetensors", scale=2).state_dict()
    assert all(torch.equal(ended[k], v) for k, v in run.averaged.state_dict().items())


def test_the_border_is_left_out_of_the_loss(tiny: TrainConfig, pool: CropPool) -> None:
    """A target that is wrong at the border only: with border=2 (4 pixels at x2) the gradient is the same."""
    gradients = {}
    for border in (0, 2):
        for spoilt in (False, True):
            config = dataclasses.replace(tiny, border=border)
            run = Training(config, Execution("cpu", "fp32"), pool, pool)
            lr, hr = pool.batch(0, 2, 8)
            hr = hr.clone()
            if spoilt:
                hr[..., :4, :] = hr[..., -4:, :] = 0
            run.batch = lambda _step, lr=lr, hr=hr: (lr, hr)  # type: ignore[method-assign]
            Loop(run).advance()
            gradients[border, spoilt] = run.model.tail.weight.grad.clone()
    assert torch.equal(gradients[2, False], gradients[2, True])
    assert not torch.equal(gradients[0, False], gradients[0, True])


def test_later_crops_have_other_sizes(tiny: TrainConfig, pool: CropPool) -> None:
    config = dataclasses.replace(tiny, later=((3, 1, 12), (5, 3, 4)))
    assert [config.crops_at(step) for step in range(6)] == [(2, 8)] * 3 + [(1, 12)] * 2 + [(3, 4)]
    assert config.largest_patch == 12
    run = Training(config, Execution(), pool, pool)
    for step in range(6):
        batch, patch = config.crops_at(step)
        assert run.batch(step)[0].shape == (batch, 3, patch, patch)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"batch": 0},
        {"border": 4},
        {"border": -1},
        {"teacher_share": 1.5},
        {"frozen": 2},
        {"ema": 1.0},
        {"learning_rate": 0.0},
        {"clip": -1.0},
        {"held_out": 0},
        {"later": ((2, 0, 8),)},
        {"later": ((2, 2, -3),)},
        {"later": ((2, 1.5, 8),)},
        {"later": ((2, 2),)},
        {"later": ((4, 2, 8), (1, 1, 8))},
        {"later": ((6, 2, 8),)},
        {"later": ((2, 2, 4),), "border": 3},
    ],
)
def test_impossible_configurations(tiny: TrainConfig, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="a training configuration cannot have"):
        dataclasses.replace(tiny, **options)


def test_the_names_of_a_release_are_a_start(tmp_path: Path) -> None:
    """With the scale's own tensors new, and colours shifted by another mean."""
    model = models.create("edsr-small", scale=4)
    layout = models.spec("edsr-small").official((), model)
    state = {layout.theirs(name): value for name, value in model.state_dict().items()}
    assert "body.0.body.0.weight" in state and "blocks.0.conv1.weight" not in state
    bias = torch.tensor([-1.0, -2.0, -3.0])
    state |= {"sub_mean.weight": torch.eye(3).reshape(3, 3, 1, 1), "sub_mean.bias": bias}
    torch.save(state, tmp_path / "release.pt")
    start = find_start(str(tmp_path / "release.pt"), "edsr-small", 2, images=[])
    taken = fitting(start.tensors, models.create("edsr-small", scale=2))[0]
    assert len(taken) >= len(model.state_dict()) - 4
    assert torch.equal(taken["blocks.0.conv1.weight"], model.state_dict()["blocks.0.conv1.weight"])


def test_what_was_taken_is_said(tiny: TrainConfig, pool: CropPool, tmp_path: Path) -> None:
    lines: list[str] = []
    start = {"head.weight": models.pretrained("edsr-small", scale=2).state_dict()["head.weight"]}
    train(tiny, pool, tmp_path, start=start, log=lines.append)
    new = len(models.create("edsr-small", scale=2).state_dict()) - 1
    first = f"edsr-small-x2: starts with 1 tensors of what was given; {new} are new (blocks.0.conv1.bias, "
    assert lines[0].startswith(first)


def test_a_training_goes_on_from_where_it_began(tiny: TrainConfig, pool: CropPool, tmp_path: Path) -> None:
    start = models.pretrained("edsr-small", scale=2).state_dict()
    first, other = ({"start": {"from": name}} for name in "AB")
    assert not train(tiny, pool, tmp_path, minutes=0, start=start, provenance=first, log=quiet)
    with pytest.raises(InputError, match="started from A, not from B; continue it without a start"):
        train(tiny, pool, tmp_path, start=start, provenance=other, log=quiet)
    assert train(tiny, pool, tmp_path, start=start, provenance=first, log=quiet)


def test_frozen_steps_that_would_train_nothing(tiny: TrainConfig, pool: CropPool) -> None:
    config = dataclasses.replace(tiny, start="edsr-small-x2", frozen=2)
    with pytest.raises(InputError, match="train nothing; use frozen=0"):
        Training(config, Execution(), pool, pool, start=models.pretrained("edsr-small", scale=2).state_dict())


def test_a_start_is_looked_at_before_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        write_image(tmp_path / "images" / f"{i}.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    torch.save({"other.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    module = importlib.import_module("sqlib.training.prepare")  # the package has a function of this name
    monkeypatch.setattr(module, "teacher_targets", lambda *_, **__: pytest.fail("too early"))
    config = TrainConfig("edsr-small", 2, steps=6, patch=8, teacher="edsr-baseline")
    with pytest.raises(InputError, match="none of the 1 tensors to start from fits"):
        prepare(config, [tmp_path / "images"], start=str(tmp_path / "other.pt"))


def test_images_a_second_count_the_crops_that_were(
    tiny: TrainConfig, pool: CropPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(tiny, batch=64, later=((1, 1, 8),))
    state = Training(config, Execution(), pool, pool)
    state.step, state._began = 6, 90.0
    monkeypatch.setattr("sqlib.training.task.time", SimpleNamespace(monotonic=lambda: 100.0))
    state.judge(6, [0.0])
    assert state.bursts[0]["images_per_second"] == 6.9  # 64 + 5 crops in 10 seconds


def test_targets_and_configuration_must_agree(tiny: TrainConfig, pool: CropPool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has teacher='bsrn', but the images come without a teacher's"):
        train(dataclasses.replace(tiny, teacher="bsrn"), pool, tmp_path)
    photo = ("b", np.full((20, 20, 3), 7, np.uint8))
    mixed = CropPool.from_images([("a", np.zeros((40, 40, 3), np.uint8))] * 2, 2, 1, inputs=[photo])
    with pytest.raises(InputError, match="some have no original"):
        train(tiny, mixed, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_the_step_at_hand(
    tiny: TrainConfig, pool: CropPool, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the first validation, and bit for bit what an undisturbed one has."""
    stepped, said = Training.stepped, []

    def interrupted(self: Training) -> None:
        stepped(self)
        if self.step == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Training, "stepped", interrupted)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        train(tiny, pool, tmp_path / "cut", log=said.append)
    assert "interrupted; step 3 of 6 is in" in said[-1]
    assert checkpoint.read(tmp_path / "cut" / "checkpoint.pt")["step"] == 3
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    monkeypatch.setattr(Training, "stepped", stepped)
    assert train(tiny, pool, tmp_path / "cut", log=quiet)
    assert train(tiny, pool, tmp_path / "whole", log=quiet)
    whole, cut = (models.load(tmp_path / n / "edsr-small-x2.safetensors", scale=2) for n in ("whole", "cut"))
    assert whole.weights_id == cut.weights_id


def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_step(
    tiny: TrainConfig, pool: CropPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "loss", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner", Path("/proc/sqlib")):
        with pytest.raises(DataError, match=r"cannot be written .*; choose another folder"):
            train(tiny, pool, folder, log=quiet)


def test_one_training_a_folder(tiny: TrainConfig, pool: CropPool, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"):
        with pytest.raises(InputError, match="another training runs in"):
            train(tiny, pool, tmp_path)
        assert not (tmp_path / "checkpoint.pt").exists()
    # Outside the main thread there are no signals to catch; the training runs all the same.
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(train(tiny, pool, tmp_path, log=quiet)))
    thread.start()
    thread.join()
    assert done == [True]
