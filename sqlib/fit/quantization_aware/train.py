"""Quantization-aware training: weights, bounds or both, with the quantizers in the loop."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sqlib._checks import check_integer
from sqlib.engine.batches import batches
from sqlib.engine.model import QuantizedModel
from sqlib.errors import InputError
from sqlib.fit.features import find_taps
from sqlib.fit.loop import fit
from sqlib.fit.loop.checkpoint import place
from sqlib.fit.loop.execution import Execution
from sqlib.fit.loop.schedule import Schedule, cosine
from sqlib.fit.modes import prepared, training
from sqlib.fit.quantization_aware.task import Answer, Options, QuantizationAware, l1, one_pass
from sqlib.fit.quantization_aware.trainable import Trainable
from sqlib.fit.samples import Drawn, Samples, Source

RATES: Mapping[str, float] = {"weights": 1e-4, "biases": 1e-4, "norms": 1e-4, "bounds": 1e-3}
"""What is trained by default, with which learning rate."""


class Trained(NamedTuple):
    """What training did: names of what was trained, the loss of each step, and whether it is complete."""

    parameters: tuple[str, ...]
    curve: tuple[float, ...]
    finished: bool


def train_quantized(
    model: QuantizedModel,
    data: Iterable[Any] | Source,
    *,
    steps: int,
    train: Mapping[str, float] = RATES,
    loss: Callable[[Answer], Tensor] = l1,
    run: Callable[[QuantizedModel, Drawn], Any] = one_pass,
    teacher: nn.Module | str | None = None,
    features: tuple[str, ...] = (),
    batch: int = 16,
    schedule: Callable[[float, int], Schedule] = cosine,
    betas: tuple[float, float] = (0.9, 0.999),
    clip: float = 0.0,
    average: float = 0.0,
    augment: bool = True,
    relative: bool = True,
    factors: Mapping[str, float] | None = None,
    guard: bool = True,
    precision: str = "fp32",
    seed: int = 0,
    minutes: float = math.inf,
    resume: str | os.PathLike[str] | None = None,
    every: int = 100,
) -> Trained:
    """Train a quantized network in place, rounding included; gradients pass straight through it.

    Parameters
    ----------
    model : QuantizedModel
        From `sqlib.quantize_model`.
    data : iterable or Source
        Pairs (low, high) of tensors (N, C, H, W) and (N, C, scale H, scale W), aligned crops; or, with a
        teacher, inputs as for `quantize_model`. Kept in memory. Or what draws batches itself
        (`sqlib.fit.samples.Source`): `Samples` with both pairs and a teacher, `sqlib.training.Crops` for
        crops of whole pictures.
    steps : int
        Optimizer steps.
    train : mapping of str to float
        What is trained, by its learning rate: "weights", "biases" and "norms" of the network,
        "weight_bounds" and "activation_bounds" or both as "bounds", and "selectors". Bounds are those of
        uniform quantizers, which never cross, and all parameters that other quantizers have, except for
        those that decide: selectors of banks (`sqlib.quantizers.QuantizerBank`) and gates.
    loss : callable
        From `Answer` to a scalar; own terms (on features, on bits) are added here. With an attribute
        ``needs_taught = False`` it gets no `Answer.taught` where the data have targets, and the teacher's
        passes end with the last tapped module.
    run : callable
        How the network runs on what was drawn, where one pass over the batch is not it.
    teacher : nn.Module, str or None
        A network whose outputs are targets; "self": this one in full precision, as it was before.
    features : tuple of str
        Patterns of modules whose outputs the loss sees, as in `sqlib.fit.distillation.Options`.
    batch : int
        Samples per step, drawn without replacement within a step (all, if there are fewer).
    schedule : callable
        Of `sqlib.fit.loop.schedule`, applied to each rate: ``cosine``, ``constant``, or
        ``functools.partial(step_decay, every=10_000)``.
    betas, clip : tuple of float, float
        Of Adam; largest norm of the gradient, 0 for no limit.
    average : float
        Decay of an exponential moving average that takes the place of the last step when the schedule is
        complete; 0: none.
    augment : bool
        Give every drawn sample one of the eight flips and rotations (of four, if it is not square).
    relative : bool
        Rates of uniform bounds are in units of the width that a pair starts with; False: of the bounds.
    factors : mapping of str to float or None
        Patterns of names (`Trained.names`) to factors of the rate of what has such a name, as in
        ``{"activations.head*": 0.1}``; of several that fit, the first counts.
    guard : bool
        Bounds alpha of symmetric quantizers keep at least 1 % of their start, as the widths of uniform ones
        always do. False: one that is no longer positive ends the training.
    precision : str
        "fp32", "bf16" (autocast) or "auto", as in `sqlib.training.Execution`.
    seed : int
        Of the draws.
    minutes : float
        Stop in time; continue with `resume`.
    resume : str, path-like or None
        A folder: save the state there every `every` steps, under a name made from everything that decides
        the result (a loss counts by its name), and continue from it when called again: bit for bit on a CPU
        with the same number of threads. The finished state stays; a second call returns at once.
    every : int
        Steps between two saves.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        Nothing to train; data without targets and no teacher; outputs and targets of different shapes; a loss
        or gradient that is not finite, or an alpha that is not positive (the message names the step; the
        model is in the last good state).
    DataError
        The folder cannot be written.

    Warns
    -----
    UserWarning
        A rate moves some bounds by more than half of their width in one step.

    Notes
    -----
    >>> quantized = sqlib.quantize_model(network, MinMax(bits=4), crops)                  # doctest: +SKIP
    >>> sqlib.fit.train_quantized(quantized, pairs, steps=2000, resume="unfinished")      # doctest: +SKIP
    >>> sqlib.fit.train_quantized(quantized, crops, steps=2000, teacher="self")           # doctest: +SKIP

    Batch normalization is in training mode meanwhile. A network in half precision is trained in float32 and
    cast back. With `resume`, Ctrl-C and SIGTERM end the training after the step at hand, which is saved.
    """
    if not isinstance(model, QuantizedModel):
        raise InputError(
            f"train_quantized got {type(model).__name__}, expected a model made by sqlib.quantize_model"
        )
    options = Options(
        steps,
        train,
        loss,
        batch,
        schedule,
        tuple(betas),
        clip,
        average,
        augment,
        relative,
        factors or {},
        guard,
        seed,
    )
    every = check_integer("every", every, 1, 10**9)
    deadline = time.monotonic() + 60 * minutes
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(prepared(model))
        guide = _teacher(teacher, model)
        source = _source(data, model.network, taught=guide is not None)
        trainable = Trainable(model, train, relative=relative, factors=factors)
        for variables in trainable.bounds:
            stack.enter_context(training(variables))
        stack.enter_context(trainable.collecting())
        taps = find_taps(model.network, features, None)
        execution = Execution(str(next(model.network.parameters(), torch.zeros(())).device), precision)
        task = QuantizationAware(model, source, trainable, options, guide, taps, execution, run)
        file = place(resume, "train", task.fingerprint)
        model.train()
        fitted = fit(
            task, file=file, every=every, clip=clip, check_every=execution.check_every, deadline=deadline
        )
        if fitted.finished:
            task.finish()
    return Trained(tuple(trainable.names), fitted.losses, fitted.finished)


def _source(data: Any, network: nn.Module, *, taught: bool) -> Source:
    """What batches are drawn from."""
    if hasattr(data, "draw"):
        source: Source = data
        if not (taught or source.paired):
            raise InputError("train_quantized: the data have no targets; give pairs, or a teacher")
        return source
    if taught:
        return Samples(batches(data, network), network)
    if isinstance(data, (Tensor, str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise InputError(
            f"train_quantized: data is {type(data).__name__}, expected an iterable of pairs (low, high) of "
            "tensors; give teacher='self' to train on low-resolution images alone"
        )
    return Samples(data, network, paired=True)


def _teacher(teacher: nn.Module | str | None, model: QuantizedModel) -> nn.Module | None:
    """A copy in evaluation mode, which nothing trains."""
    if teacher is None:
        return None
    if teacher != "self" and not isinstance(teacher, nn.Module):
        raise InputError(f"teacher={teacher!r}: expected a network, 'self' or None")
    guide = copy.deepcopy(teacher if isinstance(teacher, nn.Module) else model.network)
    reference = next(model.network.parameters(), torch.zeros(()))
    return guide.to(reference.device, reference.dtype).eval().requires_grad_(False)
