"""Full-precision training as a task for the training loop: network, average, and the loss of a step."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqlib import models
from sqlib.errors import InputError
from sqlib.fit.loop import Average, Group, Task
from sqlib.fit.loop.execution import Execution
from sqlib.metrics import psnr
from sqlib.models import SRNetwork
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool
from sqlib.training.start import fitting


class Training(Task):
    """One training of a network of `sqlib.models`: L1 towards originals, a teacher, or both.

    Parameters
    ----------
    config, execution : how to train, and on what
    training, held_out : images to train on, and to validate on
    start : tensors to start from; those that fit by name and shape are taken
    provenance : where teacher and start come from, for the card; ``taken`` of ``start`` is "function" where
        the tensors compute what their source does, otherwise their number is filled in
    log : gets a line after every validation
    entered : ``time.monotonic()`` from which this call's seconds count
    """

    def __init__(
        self,
        config: TrainConfig,
        execution: Execution,
        training: CropPool,
        held_out: CropPool,
        *,
        start: Mapping[str, Tensor] | None = None,
        provenance: Mapping[str, Any] | None = None,
        log: Callable[[str], None] = print,
        entered: float | None = None,
    ) -> None:
        self.config, self.execution, self.log = config, execution, log
        self.training, self.held_out = training, held_out
        self.name, self.steps = config.name, config.steps
        self.provenance = dict(provenance or {})
        device = execution.torch_device
        with torch.random.fork_rng(devices=[]):  # no step draws from torch's own generator
            torch.manual_seed(config.seed)
            self.model: SRNetwork = models.create(config.network, scale=config.scale)
            self.model.begin()
        self.model.to(device).train()
        self.taken: list[str] = []
        if start is not None:
            self._take(start)
        # Measured on two CPU cores: 1.6 times the images per second of the default layout.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.model).eval()
        self.average = Average(list(self.model.parameters()), list(self.averaged.parameters()), config.ema)
        self.forward = execution.wrap(self.model)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.bursts: list[dict[str, Any]] = []
        self.seconds = self._earlier = 0.0
        self._entered = time.monotonic() if entered is None else entered
        self._from_step, self._began = 0, 0.0
        self._frozen = False
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def _take(self, start: Mapping[str, Tensor]) -> None:
        taken, new = fitting(start, self.model)
        if self.config.frozen and taken.keys() >= dict(self.model.named_parameters()).keys():
            raise InputError(
                f"{self.config.name} takes every parameter from its start, so that the first "
                f"{self.config.frozen} steps, which leave these as they are, train nothing; use frozen=0"
            )
        self.model.load_state_dict({k: v.float() for k, v in taken.items()}, strict=False)
        self.taken = sorted(taken)
        self.provenance["start"] = {
            "taken": len(taken),
            "new": sorted(new),
            **self.provenance.get("start", {}),
        }

    def beginning(self) -> str:
        """A line about what this training started from."""
        new = self.provenance["start"]["new"]
        some = f" ({', '.join(new[:3])}{', ...' if len(new) > 3 else ''})" if new else ""
        source = self.provenance["start"].get("from", "what was given")
        if self.provenance["start"]["taken"] == "function":
            return f"{self.name}: begins with the function of {source}, in layers of its own"
        return f"{self.name}: starts with {len(self.taken)} tensors of {source}; {len(new)} are new{some}"

    def groups(self) -> list[Group]:
        """All parameters, along the schedule of the configuration."""
        return [Group(list(self.model.parameters()), self.config.learning_rate_at)]

    def loss(self, step: int) -> Tensor:
        """Mean absolute error (in 0..1) of the crops of this step."""
        config, device = self.config, self.execution.torch_device
        self._began = self._began or time.monotonic()
        self._freeze(step < config.frozen)
        lr, target = (
            t.to(device, non_blocking=True).to(memory_format=torch.channels_last) for t in self.batch(step)
        )
        with self.execution.autocast():
            sr = self.forward(lr.float() / 255)
        inner = slice(config.border * config.scale, -config.border * config.scale or None)
        return functional.l1_loss(sr.float()[..., inner, inner], target.float()[..., inner, inner] / 255)

    def _freeze(self, frozen: bool) -> None:
        """Whether the tensors that were taken from elsewhere stay as they are in this step."""
        if frozen != self._frozen:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(not (frozen and name in self.taken))
            self._frozen = frozen

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step; the next one is cut while the network computes."""
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = self._cut(step)
        batch = self._ahead[1].result()
        self._ahead = self._cut(step + 1)
        return batch

    def _cut(self, step: int) -> tuple[int, Future[tuple[Tensor, Tensor]]]:
        return step, self._reader.submit(self.training.batch, step, *self.config.crops_at(step))

    def stepped(self) -> None:
        """Count."""
        self.step += 1

    def judge(self, step: int, losses: Sequence[float]) -> None:
        """Validate the averaged network."""
        self.execution.synchronize()
        self.settle()
        score = validate(self.averaged, self.held_out, self.execution.torch_device)
        loss, (crops, rate) = float(torch.tensor(losses).mean()) * 255, self._note()
        self.curve.append({"step": step, "l1": loss, "psnr": score, "seconds": self.seconds})
        self.log(
            f"{self.name} {step}/{self.steps}  L1 {loss:.3f}  held-out {score:.3f} dB  "
            f"{crops:.1f} images/s  ETA {(self.steps - step) / rate / 60:.0f} min"
        )

    def settle(self) -> None:
        """Give the averaged network the running statistics of batch normalization, which are averages
        already.
        """
        with torch.no_grad():
            for mean, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mean.copy_(buffer)

    def _note(self) -> tuple[float, float]:
        """Bring the clock and this call's entry up to date; crops and steps per second since it began."""
        seconds, steps = time.monotonic() - self._entered, self.step - self._from_step
        self.seconds = self._earlier + seconds
        active = max(1e-9, time.monotonic() - self._began)
        crops = sum(self.config.crops_at(step)[0] for step in range(self._from_step, self.step)) / active
        if self.bursts and self.bursts[-1]["from_step"] == self._from_step:
            self.bursts.pop()
        if steps:
            entry = {"from_step": self._from_step, "to_step": self.step, "seconds": round(seconds, 1)}
            speed = {"images_per_second": round(crops, 1)}
            self.bursts.append({**self.execution.describe(), **entry, **speed})
        return crops, steps / active

    def state(self) -> dict[str, Any]:
        """Network, and what the card will say."""
        self._note()
        return {
            "provenance": self.provenance,
            "taken": self.taken,
            "model": self.model.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "bursts": self.bursts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, which must not have begun elsewhere."""
        given, began = (p.get("start", {}).get("from") for p in (self.provenance, state["provenance"]))
        if given is not None and given != began:
            raise InputError(
                f"this training started from {began or 'random weights'}, not from {given}; continue it "
                "without a start, or begin in another folder"
            )
        self.model.load_state_dict(state["model"])
        self.settle()
        self.step = self._from_step = state["step"]
        self.seconds = self._earlier = state["seconds"]
        self.curve, self.bursts = list(state["curve"]), list(state["bursts"])
        self.taken, self.provenance = state["taken"], state["provenance"]


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


def identity(config: TrainConfig, pool: CropPool) -> dict[str, Any]:
    """What a checkpoint must agree with."""
    return {"configuration": dataclasses.asdict(config), "images": pool.fingerprint()}
