"""Distillation calibration (DQC of 2DQuant, PaC of PTQ4SR) as a task for the training loop."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sqlib._checks import check_integer
from sqlib.engine.batches import batches, placed
from sqlib.engine.identity import settings
from sqlib.engine.model import QuantizedModel
from sqlib.errors import InputError
from sqlib.fit.distillation.loss import distillation_loss
from sqlib.fit.distillation.options import Options
from sqlib.fit.features import Taps, find_taps
from sqlib.fit.loop import Group, fit
from sqlib.fit.loop.checkpoint import fingerprint, place
from sqlib.fit.loop.schedule import cosine
from sqlib.fit.modes import prepared, training
from sqlib.fit.samples import Drawn, Samples
from sqlib.fit.variables import BoundsTask, Variables

JUDGED = 64
"""Samples (of each size) on which the loss before and after is measured."""


class Distilled(NamedTuple):
    """What distillation did.

    `features` are the tapped modules (empty: the outputs alone were compared); `trained` counts quantizers
    with trained bounds, and `parameters` names trained biases and norm parameters. `before` and `after` are
    the loss over the first 64 calibration samples, unaugmented; `curve` has the loss of every iteration.
    """

    features: tuple[str, ...]
    trained: int
    parameters: tuple[str, ...]
    before: float
    after: float
    curve: tuple[float, ...]


def distill(
    model: QuantizedModel,
    calibration: Iterable[Any],
    *,
    resume: str | os.PathLike[str] | None = None,
    every: int = 100,
    **options: Any,
) -> Distilled:
    """Train bounds (or more) of a quantized network to its own full-precision outputs, in place.

    Gradients pass straight through the rounding (`sqlib.quantizers.uniform`). The teacher is the same network
    with its quantizers passed by, and with the biases and norms it had before; there is no second copy.
    Adam takes the steps, and bounds never cross (`sqlib.fit.variables.Variables`).

    Parameters
    ----------
    model : QuantizedModel
        From `sqlib.quantize_model`, with uniform quantizers.
    calibration : iterable
        Batches, as for `quantize_model`; all samples are kept in memory. No labels.
    resume : str, path-like or None
        A folder: save the state there every `every` iterations, atomically, under a name made from everything
        that decides the result, and continue from it when called again: bit for bit on a CPU with the same
        number of threads. The finished state stays, so that a second call returns at once; remove the folder
        when done.
    every : int
        Iterations between two saves.
    **options
        Those of `sqlib.fit.distillation.Options`.

    Returns
    -------
    Distilled

    Raises
    ------
    InputError
        Nothing to train, no data, patterns that match nothing, or a loss or gradient that is not finite (the
        message names the step); the model is then as it was before.

    Notes
    -----
    A network in half precision is trained in float32 and cast back, because its gradients (of the order of
    one over the number of pixels) would underflow. Batch normalization uses its stored statistics.
    """
    if not isinstance(model, QuantizedModel):
        raise InputError(f"distill got {type(model).__name__}, expected a model made by sqlib.quantize_model")
    chosen = Options(**_known(options))
    every = check_integer("every", every, 1, 10**9)
    with torch.inference_mode(False), torch.enable_grad(), prepared(model):
        taps = find_taps(model.network, chosen.features, chosen.feature_axis)
        samples = Samples(batches(calibration, model.network), model.network)
        if taps.axis is None and chosen.loss.startswith("attention"):  # the only losses with channels
            first = next(iter(samples.all(1, 1)))
            taps = taps.located(model.network, first.args, first.kwargs)
        variables = Variables(
            model, chosen.train, relative=chosen.relative, scale_gradients=chosen.scale_gradients
        )
        task = Distillation(model, samples, variables, taps, chosen)
        file = place(resume, "distill", task.fingerprint)
        with training(variables):
            try:
                before = task.measure()
                losses = fit(task, file=file, every=every).losses
                after = task.measure()
            except BaseException:
                variables.reset()
                raise
    return Distilled(taps.names, len(variables.pairs), tuple(variables.names), before, after, losses)


class Distillation(BoundsTask):
    """Bounds of `model` as variables, its own full-precision outputs as targets."""

    name = "distillation"
    aftermath = "The model is as it was before"

    def __init__(
        self, model: QuantizedModel, samples: Samples, variables: Variables, taps: Taps, options: Options
    ) -> None:
        super().__init__(model, [variables], options.seed)
        self.samples, self.variables, self.taps, self.options = samples, variables, taps, options
        self.steps = options.iterations
        self.remedy = (
            f"lower learning_rate= (now {options.learning_rate:g}), or look for NaN and infinity in the "
            "calibration data"
        )
        self.originals = {
            name: p.detach().clone() for name, p in zip(variables.names, variables.parameters, strict=True)
        }

    def groups(self) -> list[Group]:
        """The bounds, as one vector."""
        o = self.options
        rate = cosine(o.learning_rate, o.iterations, final=o.final_learning_rate)
        return [Group([self.variables.vector], rate, o.betas)]

    def loss(self, step: int) -> Tensor:
        """Of freshly drawn samples."""
        return self.compare(self.samples.draw(self.options.batch, self.options.augment, self.generator))

    def compare(self, batch: Drawn) -> Tensor:
        """The loss of one batch."""
        network, o = self.model.network, self.options
        with self.taps.recording(network) as seen:
            with torch.no_grad():
                # Each pass has a batch of its own, which the network may change in place.
                given = placed((batch.args, batch.kwargs), network, copy=True)
                target = torch.func.functional_call(network, self.originals, *given)
            teacher = seen.copy()
            seen.clear()
            output = self.model(*batch.args, **batch.kwargs)
            if not (isinstance(target, Tensor) and isinstance(output, Tensor)):
                raise InputError(
                    f"distillation: the network returns {type(output).__name__}, expected one tensor; wrap "
                    "it in a module that returns the image"
                )
            return distillation_loss(
                o.loss, o.feature_weight, target, output, teacher, seen.copy(), self.taps.axis
            )

    @torch.no_grad()
    def measure(self) -> float:
        """Mean loss over the first samples, unaugmented."""
        total = count = 0.0
        for batch in self.samples.all(self.options.batch, JUDGED):
            first = next(v for v in (*batch.args, *batch.kwargs.values()) if isinstance(v, Tensor))
            total += float(self.compare(batch)) * len(first)
            count += len(first)
        if not math.isfinite(total):
            raise InputError(f"distillation: the loss over the samples is {total / count}; {self.remedy}")
        return total / count

    def fingerprint(self) -> str:
        """SHA-256 of options, model and data."""
        options = dataclasses.asdict(self.options)
        names = [self.taps.names, self.variables.names]
        model = settings(self.model), self.model.state_dict()
        return fingerprint(options, names, model, self.samples.content())


def _known(options: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(Options)]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise InputError(f"distill has no option {', '.join(unknown)}; it has {', '.join(names)}")
    return options
