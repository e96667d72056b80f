"""The training loop: L1 loss, Adam, cosine schedule, averaged weights; stops and resumes at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sqlib.errors import InputError
from sqlib.metrics import psnr
from sqlib.training import checkpoint
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool
from sqlib.training.execution import Execution
from sqlib.training.guards import Interruption, only_one_in
from sqlib.training.run import Run

# Reading the loss makes the CPU wait for a GPU; a CPU has nothing to wait for.
LOSS_CHECK_EVERY = {"cpu": 1, "cuda": 50}


def validate(model: nn.Module, pool: CropPool, device: torch.device) -> float:
    """Mean PSNR in dB (default protocol) of ``model`` on the whole images of ``pool``."""
    scores = []
    for lr, hr in zip(pool.lr, pool.hr, strict=True):
        assert hr is not None  # only images with an original are held out
        x = torch.from_numpy(lr).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            sr = model(x)[0].permute(1, 2, 0).mul(255).float().cpu().numpy()
        scores.append(psnr(sr, hr, scale=pool.scale))
    return sum(scores) / len(scores)


def train(
    config: TrainConfig,
    pool: CropPool,
    folder: str | Path,
    *,
    minutes: float = 60.0,
    execution: Execution | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
    provenance: Mapping[str, Any] | None = None,
    every: int = 250,
    log: Callable[[str], None] = print,
    started: float | None = None,
) -> bool:
    """Train, or continue training, for at most ``minutes``.

    Ctrl-C and SIGTERM end it after the step at hand, with a checkpoint of that step.

    Parameters
    ----------
    config : TrainConfig
    pool : CropPool
        All images, with the teacher's targets where the configuration names a teacher (:func:`prepare` makes
        it); ``config.held_out`` of them are set aside for validation.
    folder : where ``checkpoint.pt`` lives; continued from when present. When the schedule is complete
        ``<name>.safetensors`` (averaged weights) and ``<name>.json`` (its card) are written there.
    minutes : wall-clock limit, from ``started``; what a validation and a checkpoint last took is kept in
        reserve
    execution : device, precision, compilation
    start : tensors to start from; those that fit the network by name and shape are taken, the rest is new
    provenance : what the card says of teacher and start
    every : steps between validations and checkpoints
    started : ``time.monotonic()`` at which the clock began, when loading the data is to count; default: now

    Returns
    -------
    bool : whether the schedule is complete.

    Raises
    ------
    InputError
        The checkpoint belongs to another configuration or other images; another training runs in ``folder``;
        ``start`` fits nothing; the pool lacks targets; or the loss is not finite: the checkpoint then is the
        last good state.
    DataError
        ``folder`` cannot be written.
    """
    entered = time.monotonic()
    execution = execution or Execution()
    deadline = (entered if started is None else started) + 60 * minutes
    folder = Path(folder)
    training, held_out = pool.split(config.held_out)
    if not training.lr or not held_out.lr:
        raise InputError(f"{len(pool.hr)} images are too few to hold {config.held_out} out; add images")
    orphans = any(image is None for image in training.hr)
    if bool(config.teacher) != bool(pool.taught) or (orphans and not pool.taught):
        raise InputError(
            f"{config.name} has teacher={config.teacher!r}, but the images come "
            f"{'with' if pool.taught else 'without'} a teacher's targets"
            + (" and some have no original" if orphans else "")
            + "; make them with sqlib.training.prepare"
        )
    with only_one_in(folder), Interruption() as interruption:
        run = Run(config, pool.fingerprint(), execution, start, provenance)
        if (folder / checkpoint.FILE).exists():
            run.restore(checkpoint.read(folder / checkpoint.FILE), str(folder))
            log(f"{config.name}: continuing at step {run.step} of {config.steps}")
        else:
            # Now rather than after the first hour: a folder that cannot be written.
            checkpoint.save(run.state(), folder / checkpoint.FILE)
        _advance(run, training, held_out, folder, deadline, entered, every, log, interruption)
        if run.step < config.steps:
            return False
        from sqlib.training.cards import export

        export(run, folder, training, held_out)
        return True


def _advance(
    run: Run,
    training: CropPool,
    held_out: CropPool,
    folder: Path,
    deadline: float,
    entered: float,
    every: int,
    log: Callable[[str], None],
    interruption: Interruption,
) -> None:
    """Step until the schedule, the time or the user's patience ends; leaves a checkpoint of the last step."""
    config, execution = run.config, run.execution
    burst = {**execution.describe(), "from_step": run.step}
    earlier = run.seconds
    reserve, marked = 0.0, (time.monotonic(), run.step)
    losses: list[torch.Tensor] = []

    def note() -> float:
        """Bring the clock and this call's entry up to date; returns steps per second since training began."""
        run.seconds = earlier + time.monotonic() - entered
        rate = (run.step - burst["from_step"]) / max(1e-9, time.monotonic() - marked[0])
        entry = {**burst, "to_step": run.step, "seconds": round(time.monotonic() - entered, 1)}
        entry["images_per_second"] = round(rate * config.batch, 1)
        if run.bursts and run.bursts[-1]["from_step"] == burst["from_step"]:
            run.bursts.pop()
        if run.step > burst["from_step"]:
            run.bursts.append(entry)
        return rate

    check_every = LOSS_CHECK_EVERY[execution.torch_device.type]
    while run.step < config.steps and not interruption.asked:
        slowest_step = (time.monotonic() - marked[0]) / max(1, run.step - marked[1])
        if time.monotonic() + reserve + slowest_step >= deadline:
            break
        losses.append(run.advance(training))
        if run.step % check_every == 0 and not bool(torch.isfinite(losses[-1])):
            raise InputError(
                f"loss became {float(losses[-1])} at step {run.step - 1}; the last good state is in "
                f"{folder / checkpoint.FILE}. Lower the learning rate"
            )
        if run.step % every == 0 or run.step == config.steps:
            execution.synchronize()
            loss = float(torch.stack(losses).mean()) * 255
            if not math.isfinite(loss):
                raise InputError(
                    f"loss became {loss} before step {run.step}; the last good state is in "
                    f"{folder / checkpoint.FILE}. Lower the learning rate"
                )
            before = time.monotonic()
            run.settle()
            score = validate(run.average, held_out, execution.torch_device)
            rate = note()
            run.curve.append({"step": run.step, "l1": loss, "psnr": score, "seconds": run.seconds})
            losses.clear()
            checkpoint.save(run.state(), folder / checkpoint.FILE)
            reserve = 1.5 * (time.monotonic() - before)
            log(
                f"{config.name} {run.step}/{config.steps}  L1 {loss:.3f}  held-out {score:.3f} dB  "
                f"{rate * config.batch:.1f} images/s  ETA {(config.steps - run.step) / rate / 60:.0f} min"
            )
    note()
    run.settle()
    if losses and not bool(torch.isfinite(torch.stack(losses)).all()):
        raise InputError(f"loss became infinite or NaN; the last good state is in {folder / checkpoint.FILE}")
    checkpoint.save(run.state(), folder / checkpoint.FILE)
    if interruption.asked:
        log(f"{config.name}: interrupted; step {run.step} of {config.steps} is in {folder / checkpoint.FILE}")
        raise KeyboardInterrupt
