"""The training loop: Adam along a schedule, checked, averaged, saved; stops and resumes at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.fit.loop import checkpoint
from sqlib.fit.loop.bar import Bar
from sqlib.fit.loop.guards import Interruption
from sqlib.fit.loop.task import NotFinite, State, Task


class Fitted(NamedTuple):
    """How far a training is: steps done, the loss of each, and whether the schedule is complete."""

    steps: int
    losses: tuple[float, ...]
    finished: bool


def fit(
    task: Task,
    *,
    file: Path | None = None,
    every: int = 100,
    identity: Mapping[str, Any] | None = None,
    clip: float = 0.0,
    check_every: int = 1,
    deadline: float = math.inf,
    bar: Bar | None = None,
) -> Fitted:
    """Train `task` to the end of its schedule, or of the time.

    Parameters
    ----------
    task : Task
        What to train.
    file : Path or None
        Continue from it if it is there, and keep it up to date. Then the first Ctrl-C or SIGTERM ends the
        training after the step at hand, with a checkpoint of that step; a second one acts as always.
    every : int
        Steps from one checkpoint to the next.
    identity : mapping or None
        What the checkpoint must agree with, by what to call it: the configuration, say.
    clip : float
        Largest norm of the gradient; a longer one is scaled down to it. 0: no limit.
    check_every : int
        Steps between looks at loss and gradients, each of which makes a CPU wait for its GPU.
    deadline : float
        ``time.monotonic()`` by which to be done; what a checkpoint last took is kept in reserve.
    bar : Bar or None
        Progress of a larger whole to add to, instead of an own bar.

    Raises
    ------
    InputError
        Loss or gradients are not finite: the message names the step and what to do, and the task is back in
        the last good state. The file is damaged, or belongs to something else.
    DataError
        The file cannot be written; the one before it is kept.
    KeyboardInterrupt
        After an interruption.
    """
    return Loop(task, file, every, identity, clip, check_every).run(deadline, bar)


@dataclass
class Loop:
    """One training in progress; see `fit`.

    Attributes
    ----------
    step : int
        Steps done.
    losses : list of float
        The loss of each.
    """

    task: Task
    file: Path | None = None
    every: int = 100
    identity: Mapping[str, Any] | None = None
    clip: float = 0.0
    check_every: int = 1
    step: int = field(default=0, init=False)
    losses: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.identity = _on_cpu(dict(self.identity or {}))
        self.groups = list(self.task.groups())
        self.parameters = [p for group in self.groups for p in group.parameters]
        self.optimizer = torch.optim.Adam(
            [{"params": list(g.parameters), "lr": g.rate(0), "betas": g.betas} for g in self.groups],
            # one kernel a step instead of several a tensor
            fused=True if any(p.is_cuda for p in self.parameters) else None,
        )
        self._unread: list[Tensor] = []
        self._kept: State | None = None
        self._saved = self._judged = 0

    def run(self, deadline: float = math.inf, bar: Bar | None = None) -> Fitted:
        """Continue from the file if there is one, and take the steps that are left."""
        if self.file is not None and self.file.exists():
            with checkpoint.using(self.file):
                self.restore(checkpoint.read(self.file))
        else:
            # Now rather than after the first hour: a folder that cannot be written.
            self._save()
        asked = None if self.file is None else Interruption()
        with asked or nullcontext(), nullcontext(bar) if bar else Bar(self.task.steps) as shown:
            shown.skip(self.step)
            try:
                self._advance(deadline, shown, asked)
            except NotFinite as reason:
                raise InputError(self._stopped(str(reason))) from None
        if asked is not None and asked.asked:
            done = f"{self.task.name}: interrupted; step {self.step} of {self.task.steps} is in {self.file}"
            raise KeyboardInterrupt(done)
        return Fitted(self.step, tuple(self.losses), self.step >= self.task.steps)

    def _advance(self, deadline: float, bar: Bar, interruption: Interruption | None) -> None:
        reserve, began, first = 0.0, time.monotonic(), self.step
        while self.step < self.task.steps and not (interruption and interruption.asked):
            now = time.monotonic()
            slowest_step = (now - began) / max(1, self.step - first)
            if now + reserve + slowest_step >= deadline:
                break
            self.advance()
            bar.update()
            if self.step % self.every == 0 or self.step == self.task.steps:
                before = time.monotonic()
                self._read()
                self.task.judge(self.step, self.losses[self._judged :])
                self._judged = self.step
                self._save()
                reserve = 1.5 * (time.monotonic() - before)
        if self._saved != self.step:
            self._read()
            self._save()

    def advance(self) -> None:
        """One step."""
        task, step = self.task, self.step
        for settings, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            settings["lr"] = group.rate(step)
        loss = task.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not where nothing that is trained took part
            loss.backward()  # type: ignore[no-untyped-call]
        task.backpropagated()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip or math.inf)
        self._unread += [loss.detach(), norm]
        if (step + 1) % self.check_every == 0:
            self._read()
        self.optimizer.step()
        task.stepped()
        self.step += 1
        if task.average is not None:
            task.average.update(self.step)

    def _read(self) -> None:
        """Take in the losses since the last look, and check them and the gradients."""
        values = [float(v) for v in self._unread]
        self._unread.clear()
        for loss, norm in zip(values[::2], values[1::2], strict=True):
            step = len(self.losses)
            if not math.isfinite(loss):
                raise NotFinite(f"at step {step}: the loss is {loss}")
            if not math.isfinite(norm):
                raise NotFinite(f"at step {step}: a gradient is not finite")
            self.losses.append(loss)

    def _stopped(self, reason: str) -> str:
        """Go back to the last good state, and say so."""
        if not reason.startswith("at step"):
            reason = f"at step {self.step}: {reason}"
        self._unread.clear()
        self.restore(self._kept if self.file is None else checkpoint.read(self.file))  # type: ignore[arg-type]
        where = "in place" if self.file is None else f"in {self.file}"
        left = self.task.aftermath or f"The last good state, of step {self.step}, is {where}"
        return f"{self.task.name} stopped {reason}; {self.task.remedy}. {left}"

    def _save(self) -> None:
        """Keep the present state, which is a good one: in the file, or else in memory."""
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            raise NotFinite("a parameter is not finite")
        average = self.task.average
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "optimizer": self.optimizer.state_dict(),
            "average": None if average is None else average.values,
            "task": self.task.state(),
        }
        if self.file is None:
            self._kept = _on_cpu(state, copy=True)
        else:
            checkpoint.save(_on_cpu(state), self.file)
        self._saved = self.step

    def restore(self, state: State) -> None:
        """Go back to a saved state.

        Raises
        ------
        InputError
            It belongs to something else.
        """
        for what, own in (self.identity or {}).items():
            saved = _on_cpu(state["identity"].get(what))
            if saved != own:
                raise InputError(
                    f"{self.file} belongs to {what} {saved!r}, not to {own!r}; continue with that, or choose "
                    "another folder"
                )
        self.task.restore(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.task.average is not None:
            self.task.average.load(state["average"])
        self.step = self._saved = int(state["step"])
        self._judged = self.step - self.step % self.every  # an interruption saves between two verdicts
        self.losses = state["losses"].tolist()


def _on_cpu(value: Any, *, copy: bool = False) -> Any:
    if isinstance(value, Tensor):
        value = value.detach()
        return value.to("cpu", copy=copy)
    if isinstance(value, dict):
        return {k: _on_cpu(v, copy=copy) for k, v in value.items()}
    return [_on_cpu(v, copy=copy) for v in value] if isinstance(value, (list, tuple)) else value
