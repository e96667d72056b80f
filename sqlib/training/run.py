"""Train a network of a configuration in a folder, or continue; the steps are those of `sqlib.fit.loop`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sqlib.errors import InputError
from sqlib.fit.loop import checkpoint, fit
from sqlib.fit.loop.execution import Execution
from sqlib.fit.loop.guards import only_one_in
from sqlib.training.cards import export
from sqlib.training.config import TrainConfig
from sqlib.training.crops import CropPool
from sqlib.training.task import Training, identity


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
    log : gets a line after every validation, and whenever a training is continued or interrupted
    started : ``time.monotonic()`` at which the clock began, when loading the data is to count; default: now

    Returns
    -------
    bool : whether the schedule is complete.

    Raises
    ------
    InputError
        The checkpoint belongs to another configuration or other images, or began elsewhere; another training
        runs in ``folder``; ``start`` fits nothing; the pool lacks targets; or loss or gradients are not
        finite: the checkpoint then is the last good state.
    DataError
        ``folder`` cannot be written.
    """
    entered = time.monotonic()
    execution = execution or Execution()
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
    file = folder / checkpoint.FILE
    with only_one_in(folder):
        task = Training(
            config,
            execution,
            training,
            held_out,
            start=start,
            provenance=provenance,
            log=log,
            entered=entered,
        )
        if file.exists():
            with checkpoint.using(file):
                step = _saved_step(file, task)
            log(f"{config.name}: continuing at step {step} of {config.steps}")
        elif task.taken:
            log(task.beginning())
        try:
            fitted = fit(
                task,
                file=file,
                every=every,
                identity=identity(config, pool),
                clip=config.clip,
                check_every=execution.check_every,
                deadline=(entered if started is None else started) + 60 * minutes,
            )
        except KeyboardInterrupt as interruption:
            log(str(interruption))
            raise
        if fitted.finished:
            export(task, folder, pool)
        return fitted.finished


def _saved_step(file: Path, task: Training) -> int:
    """The step of a checkpoint, which is brought to the present format if it has the one before."""
    state = checkpoint.read(file, formats=(3, checkpoint.FORMAT))
    if state["format"] == 3:
        average = [state["average"][name] for name, _ in task.model.named_parameters()]
        new = {
            "identity": {"configuration": state["config"], "images": state["data_id"]},
            "step": state["step"],
            "losses": torch.full((state["step"],), torch.nan, dtype=torch.float64),
            "optimizer": state["optimizer"],
            "average": average,
            "task": state,
        }
        checkpoint.save(new, file)
    return int(state["step"])
