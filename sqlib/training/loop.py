"""The training loop: L1 loss, Adam, cosine schedule, averaged weights; stops and resumes at any step."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.metrics import psnr
from sqlib.models import SRNetwork
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool


def _atomic_save(state: dict[str, Any], path: Path) -> None:
    """Write next to ``path`` and rename, so that a kill or a full disk leaves the previous file valid."""
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def validate(model: nn.Module, pool: CropPool, device: torch.device) -> float:
    """Mean PSNR in dB (default protocol) of ``model`` on the whole images of ``pool``."""
    scores = []
    for lr, hr in zip(pool.lr, pool.hr, strict=True):
        x = torch.from_numpy(lr).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            sr = model(x)[0].permute(1, 2, 0).mul(255).cpu().numpy()
        scores.append(psnr(sr, hr, scale=pool.scale))
    return sum(scores) / len(scores)


class _Run:
    """State of one training: what a checkpoint holds."""

    def __init__(self, config: TrainConfig, data_id: str, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data_id, self.device = config, data_id, device
        self.model: SRNetwork = models.create(config.network, scale=config.scale).to(device).train()
        # Measured on two CPU cores: 1.6 times the images per second of the default layout.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    def save(self, path: Path) -> None:
        _atomic_save(
            {
                "config": dataclasses.asdict(self.config),
                "data_id": self.data_id,
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "curve": self.curve,
            },
            path,
        )

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != dataclasses.asdict(self.config):
            raise InputError(
                f"{path} belongs to configuration {state['config']}, not to "
                f"{dataclasses.asdict(self.config)}; resume with that configuration, or choose another folder"
            )
        if state["data_id"] != self.data_id:
            raise InputError(
                f"{path} was trained on other images; resume with the same --data, or choose another folder"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]

    def advance(self, pool: CropPool) -> float:
        """One optimizer step; returns the loss (mean absolute error in 0..255)."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        lr, hr = pool.batch(self.step, config.batch, config.patch)
        lr, hr = (t.to(self.device).to(memory_format=torch.channels_last) for t in (lr, hr))
        loss = functional.l1_loss(self.model(lr.float() / 255), hr.float() / 255)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = float(loss.detach()) * 255
        if value != value or value == float("inf"):
            return value
        self.optimizer.step()
        self.step += 1
        # Early on the plain decay would remember the random start for a thousand steps.
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        return value


def train(
    config: TrainConfig,
    pool: CropPool,
    folder: str | Path,
    *,
    minutes: float = 60.0,
    device: str = "cpu",
    every: int = 250,
    log: Callable[[str], None] = print,
) -> bool:
    """Train, or continue training, for at most ``minutes``.

    Parameters
    ----------
    config : TrainConfig
    pool : CropPool
        All images; ``config.held_out`` of them are set aside for validation.
    folder : where ``checkpoint.pt`` lives; continued from when present. When the schedule is complete
        ``<name>.safetensors`` (averaged weights) and ``<name>.json`` (its card) are written there.
    minutes : wall-clock limit of this call
    every : steps between validations and checkpoints

    Returns
    -------
    bool : whether the schedule is complete.

    Raises
    ------
    InputError
        The checkpoint belongs to another configuration or other images, the loss is not finite, or CUDA was
        asked for and is absent.
    """
    started = time.monotonic()
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"device {device!r} was asked for but this torch has no CUDA device; use --device cpu"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out = pool.split(config.held_out)
    if not training.hr:
        raise InputError(f"{len(pool.hr)} images are too few to hold {config.held_out} out; add images")
    run = _Run(config, pool.fingerprint(), torch.device(device))
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint)
        log(f"{config.name}: continuing at step {run.step} of {config.steps}")
    before, first = run.seconds, run.step
    losses: list[float] = []
    while run.step < config.steps and time.monotonic() - started < 60 * minutes:
        loss = run.advance(training)
        if not loss < float("inf"):
            raise InputError(
                f"loss became {loss} at step {run.step}; the last good state is in {checkpoint}. "
                "Lower the learning rate"
            )
        losses.append(loss)
        if run.step % every == 0 or run.step == config.steps:
            run.seconds = before + time.monotonic() - started
            rate = (run.step - first) / (run.seconds - before)
            score = validate(run.average, held_out, run.device)
            point = {"step": run.step, "l1": sum(losses) / len(losses), "psnr": score, "seconds": run.seconds}
            run.curve.append(point)
            losses.clear()
            run.save(checkpoint)
            log(
                f"{config.name} {run.step}/{config.steps}  L1 {point['l1']:.3f}  held-out {score:.3f} dB  "
                f"{rate * config.batch:.1f} images/s  ETA {(config.steps - run.step) / rate / 60:.0f} min"
            )
    run.seconds = before + time.monotonic() - started
    run.save(checkpoint)
    if run.step >= config.steps:
        export(run, folder, training, held_out)
    return run.step >= config.steps


def export(run: _Run, folder: Path, training: CropPool, held_out: CropPool) -> None:
    """Write the averaged weights as safetensors, and their card as JSON."""
    from safetensors.torch import save_file

    config = run.config
    tensors = {k: v.detach().float().cpu().contiguous() for k, v in run.average.state_dict().items()}
    metadata = {"name": config.network, "scale": str(config.scale)}
    save_file(tensors, folder / f"{config.name}.safetensors", metadata=metadata)
    model = models.load(folder / f"{config.name}.safetensors", scale=config.scale)
    card = {
        "name": config.network,
        "scale": config.scale,
        "parameters": models.count_parameters(model),
        "weights_id": model.weights_id,
        "config": dataclasses.asdict(config),
        "data": {
            "folders": sorted({Path(name).parent.as_posix() for name in training.names + held_out.names}),
            "images": len(training.names),
            "held_out": held_out.names,
            "sha256": run.data_id,
        },
        "seconds": round(run.seconds, 1),
        "device": run.device.type,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "sqlib": sqlib.__version__,
        },
        "curve": run.curve,
    }
    (folder / f"{config.name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
