"""One training in progress: network, average and optimizer, what a checkpoint holds, and one step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sqlib import models
from sqlib.errors import InputError
from sqlib.models import SRNetwork, matching
from sqlib.training import checkpoint
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool
from sqlib.training.execution import Execution


class Run:
    """One training in progress: what a checkpoint holds, and the step that advances it.

    Parameters
    ----------
    config, execution : how to train, and on what
    data_id : fingerprint of images and targets
    start : tensors to start from; those that fit by name and shape are taken
    provenance : where teacher and start come from, for the card
    """

    def __init__(
        self,
        config: TrainConfig,
        data_id: str,
        execution: Execution,
        start: Mapping[str, torch.Tensor] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data_id, self.execution = config, data_id, execution
        self.provenance = dict(provenance or {})
        device = execution.torch_device
        self.model: SRNetwork = models.create(config.network, scale=config.scale).to(device).train()
        self.taken: list[str] = []
        if start is not None:
            self._take(start)
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
        self._frozen = False
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[tuple[torch.Tensor, torch.Tensor]]] | None = None

    def _take(self, start: Mapping[str, torch.Tensor]) -> None:
        taken, new, _ = matching(start, self.model)
        weights = [name for name, value in taken.items() if value.dim() > 1]
        if not weights:
            raise InputError(
                f"none of the {len(start)} tensors to start from fits {self.config.name} by name and shape; "
                "start from weights of the same network at another scale, or of one that shares its layers"
            )
        self.model.load_state_dict({k: v.float() for k, v in taken.items()}, strict=False)
        self.taken = sorted(taken)
        entry = self.provenance.setdefault("start", {})
        self.provenance["start"] = {**entry, "taken": len(taken), "new": sorted(new)}

    def state(self) -> checkpoint.State:
        """Everything a checkpoint holds, on the CPU."""
        return {
            "config": dataclasses.asdict(self.config),
            "data_id": self.data_id,
            "provenance": self.provenance,
            "taken": self.taken,
            "model": {k: v.detach().cpu() for k, v in self.model.state_dict().items()},
            "average": {k: v.detach().cpu() for k, v in self.average.state_dict().items()},
            "optimizer": _to_cpu(self.optimizer.state_dict()),
            "random": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "bursts": self.bursts,
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
                f"{source} was trained on other images or targets; resume with the same --data, or choose "
                "another folder"
            )
        self.average.load_state_dict(state["average"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve, self.bursts = state["curve"], state["bursts"]
        self.taken, self.provenance = state["taken"], state["provenance"]

    def advance(self, pool: CropPool) -> torch.Tensor:
        """One optimizer step; returns the loss (mean absolute error in 0..1), detached and still on the
        device.
        """
        config, device = self.config, self.execution.torch_device
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        self._freeze(self.step < config.frozen)
        lr, target = (
            t.to(device, non_blocking=True).to(memory_format=torch.channels_last) for t in self._batch(pool)
        )
        with self.execution.autocast():
            sr = self.forward(lr.float() / 255)
        inner = slice(config.border * config.scale, -config.border * config.scale or None)
        difference = sr.float()[..., inner, inner], target.float()[..., inner, inner] / 255
        loss = functional.l1_loss(*difference)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        # Early on the plain decay would remember the random start for a thousand steps.
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach()

    def _freeze(self, frozen: bool) -> None:
        """Whether the tensors that were taken from elsewhere stay as they are in this step."""
        if frozen != self._frozen:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(not (frozen and name in self.taken))
            self._frozen = frozen

    def _batch(self, pool: CropPool) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of this step; the next one is cut while the network computes."""
        config = self.config
        if self._ahead is None or self._ahead[0] != self.step:
            self._ahead = (self.step, self._reader.submit(pool.batch, self.step, *config.crops_at(self.step)))
        batch = self._ahead[1].result()
        following = self.step + 1
        self._ahead = (following, self._reader.submit(pool.batch, following, *config.crops_at(following)))
        return batch

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
