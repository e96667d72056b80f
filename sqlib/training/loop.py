"""The training loop: L1 loss, Adam, cosine schedule, averaged weights; stops and resumes at any step."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sqlib import models
from sqlib.errors import InputError
from sqlib.metrics import psnr
from sqlib.models import SRNetwork
from sqlib.training import checkpoint
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool, DeviceCrops
from sqlib.training.execution import Execution

# Reading the loss makes the CPU wait for a GPU; a CPU has nothing to wait for.
LOSS_CHECK_EVERY = {"cpu": 1, "cuda": 50}


def validate(model: nn.Module, pool: CropPool, device: torch.device) -> float:
    """Mean PSNR in dB (default protocol) of ``model`` on the whole images of ``pool``."""
    scores = []
    for lr, hr in zip(pool.lr, pool.hr, strict=True):
        x = torch.from_numpy(lr).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            sr = model(x)[0].permute(1, 2, 0).mul(255).float().cpu().numpy()
        scores.append(psnr(sr, hr, scale=pool.scale))
    return sum(scores) / len(scores)


class Run:
    """One training in progress: what a checkpoint holds, and the step that advances it."""

    def __init__(self, config: TrainConfig, data_id: str, execution: Execution) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data_id, self.execution = config, data_id, execution
        device = execution.torch_device
        self.model: SRNetwork = models.create(config.network, scale=config.scale).to(device).train()
        # Measured on two CPU cores: 1.6 times the images per second of the default layout.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True if execution.is_cuda else None
        )
        self.forward = execution.wrap(self.model)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.bursts: list[dict[str, Any]] = []
        self.carried: list[dict[str, Any]] = []

    def state(self) -> checkpoint.State:
        """Everything a checkpoint holds, on the CPU."""
        return {
            "config": dataclasses.asdict(self.config),
            "data_id": self.data_id,
            "model": {k: v.detach().cpu() for k, v in self.model.state_dict().items()},
            "average": {k: v.detach().cpu() for k, v in self.average.state_dict().items()},
            "optimizer": _to_cpu(self.optimizer.state_dict()),
            "random": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "bursts": self.bursts,
            "carried": self.carried,
        }

    def restore(self, state: checkpoint.State, source: str) -> None:
        """Continue from a checkpoint; raises InputError when it belongs to another configuration or other
        data.
        """
        if state["config"] != dataclasses.asdict(self.config):
            raise InputError(
                f"{source} belongs to configuration {state['config']}, not to "
                f"{dataclasses.asdict(self.config)}; resume with that configuration, or choose another folder"
            )
        if state["data_id"] != self.data_id:
            raise InputError(
                f"{source} was trained on other images; resume with the same --data, or choose another folder"
            )
        self.average.load_state_dict(state["average"])
        if state["model"] is None:  # carried in pieces: the averaged weights are all there is
            self.model.load_state_dict(state["average"])
        else:
            self.model.load_state_dict(state["model"])
            like = self.optimizer.state_dict()
            self.optimizer.load_state_dict(checkpoint.restore_moments(state["optimizer"], like))
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve, self.bursts, self.carried = state["curve"], state["bursts"], state["carried"]

    def advance(self, batches: CropPool | DeviceCrops) -> torch.Tensor:
        """One optimizer step; returns the loss (mean absolute error in 0..1), detached and still on the
        device.
        """
        config, device = self.config, self.execution.torch_device
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        lr, hr = batches.batch(self.step, config.batch, config.patch)
        lr, hr = (t.to(device).to(memory_format=torch.channels_last) for t in (lr, hr))
        with self.execution.autocast():
            sr = self.forward(lr.float() / 255)
        loss = functional.l1_loss(sr.float(), hr.float() / 255)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        # Early on the plain decay would remember the random start for a thousand steps.
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach()

    def settle(self) -> None:
        """Give the averaged network the running statistics of batch normalization, which are averages
        already.
        """
        with torch.no_grad():
            for mean, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
                mean.copy_(buffer)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {k: _to_cpu(v) for k, v in value.items()}
    return [_to_cpu(v) for v in value] if isinstance(value, list) else value


def train(
    config: TrainConfig,
    pool: CropPool,
    folder: str | Path,
    *,
    minutes: float = 60.0,
    execution: Execution | None = None,
    every: int = 250,
    log: Callable[[str], None] = print,
    started: float | None = None,
) -> bool:
    """Train, or continue training, for at most ``minutes``.

    Parameters
    ----------
    config : TrainConfig
    pool : CropPool
        All images; ``config.held_out`` of them (or those a pack reserved) are set aside for validation.
    folder : where ``checkpoint.pt`` lives; continued from when present, else from a carried checkpoint there.
        When the schedule is complete ``<name>.safetensors`` (averaged weights) and ``<name>.json`` (its card)
        are written there.
    minutes : wall-clock limit, from ``started``; what a validation and a checkpoint last took is kept in
        reserve
    execution : device, precision, compilation
    every : steps between validations and checkpoints
    started : ``time.monotonic()`` at which the clock began, when loading the data is to count; default: now

    Returns
    -------
    bool : whether the schedule is complete.

    Raises
    ------
    InputError
        The checkpoint belongs to another configuration or other images, or the loss is not finite: the
        checkpoint then is the last good state.
    """
    entered = time.monotonic()
    execution = execution or Execution()
    deadline = (entered if started is None else started) + 60 * minutes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out = pool.split(config.held_out)
    if not training.hr or not held_out.hr:
        raise InputError(f"{len(pool.hr)} images are too few to hold {config.held_out} out; add images")
    run = Run(config, pool.fingerprint(), execution)
    state = checkpoint.find(folder, config.name)
    if state is not None:
        run.restore(state, str(folder))
        log(f"{config.name}: continuing at step {run.step} of {config.steps}")
    batches = DeviceCrops(training, execution.torch_device) if execution.is_cuda else training
    burst = {**execution.describe(), "from_step": run.step}
    earlier = run.seconds
    reserve, marked = 0.0, (time.monotonic(), run.step)
    losses: list[torch.Tensor] = []

    def note() -> float:
        """Bring the clock and the burst's entry up to date; returns steps per second since training began."""
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
    while run.step < config.steps:
        slowest_step = (time.monotonic() - marked[0]) / max(1, run.step - marked[1])
        if time.monotonic() + reserve + slowest_step >= deadline:
            break
        losses.append(run.advance(batches))
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
    if run.step < config.steps:
        return False
    from sqlib.training.cards import export

    try:
        export(run, folder, training, held_out)
    except ImportError as error:  # a borrowed machine with torch and NumPy alone
        log(
            f"{config.name} is complete but {error.name} is absent here; "
            "run the same command where it is installed"
        )
    return True
