"""The training loop of distillation calibration (DQC of 2DQuant, PaC of PTQ4SR): seeded, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sqlib import _progress
from sqlib.errors import InputError
from sqlib.fit.distillation.features import Taps, find_taps
from sqlib.fit.distillation.loss import distillation_loss
from sqlib.fit.distillation.modes import prepared, training
from sqlib.fit.distillation.options import Options
from sqlib.fit.distillation.samples import Samples
from sqlib.fit.distillation.variables import Variables

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

RESUME = "SQLIB_RESUME"
"""Environment variable: the folder in which recipes keep unfinished training."""
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
    folder: str | os.PathLike[str] | None = None,
    every: int = 100,
    **options: Any,
) -> Distilled:
    """Train bounds (or more) of a quantized network to its own full-precision outputs, in place.

    Gradients pass straight through the rounding (`sqlib.quantizers.uniform`). The teacher is the same network
    with its quantizers passed by, and with the biases and norms it had before; there is no second copy.
    Adam takes the steps, and bounds never cross (`sqlib.fit.distillation.variables.Variables`).

    Parameters
    ----------
    model
        From `sqlib.quantize_model`, with uniform quantizers.
    calibration
        Batches, as for `quantize_model`; all samples are kept in memory. No labels.
    folder
        Save the state there every `every` iterations, atomically, under a name made from everything that
        decides the result, and continue from it when called again: bit for bit on a CPU with the same number
        of threads. The finished state stays, so that a second call returns at once; remove the folder when
        done.
    every
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
        message gives the iteration); the model is then as it was before.

    Notes
    -----
    A network in half precision is trained in float32 and cast back, because its gradients (of the order of
    one over the number of pixels) would underflow. Batch normalization uses its stored statistics.
    """
    # Imported here: the front door imports recipes, which import this package.
    from sqlib.engine.batches import batches
    from sqlib.engine.model import QuantizedModel

    if not isinstance(model, QuantizedModel):
        raise InputError(f"distill got {type(model).__name__}, expected a model made by sqlib.quantize_model")
    chosen = Options(**_known(options))
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InputError(f"every={every!r}: expected an integer of at least 1")
    with torch.inference_mode(False), torch.enable_grad(), prepared(model):
        taps = find_taps(model.network, chosen.features, chosen.feature_axis)
        samples = Samples(batches(calibration, model.network), model.network)
        if taps.axis is None and chosen.loss.startswith("attention"):  # the only losses with channels
            taps = taps.located(model.network, *next(iter(samples.all(1, 1))))
        variables = Variables(
            model, chosen.train, relative=chosen.relative, scale_gradients=chosen.scale_gradients
        )
        run = _Run(model, samples, variables, taps, chosen)
        file = None if folder is None else Path(folder) / f"distill-{run.fingerprint()[:16]}.pt"
        with training(variables):
            try:
                before = run.judge()
                run.train(file, every)
                after = run.judge()
            except BaseException:
                variables.reset()
                raise
    return Distilled(
        taps.names, len(variables.pairs), tuple(variables.names), before, after, tuple(run.curve)
    )


class _Run:
    """One training: everything that decides it, and how far it got."""

    def __init__(
        self, model: QuantizedModel, samples: Samples, variables: Variables, taps: Taps, options: Options
    ) -> None:
        self.model, self.samples, self.variables = model, samples, variables
        self.taps, self.options = taps, options
        self.originals = {
            name: p.detach().clone() for name, p in zip(variables.names, variables.parameters, strict=True)
        }
        self.generator = torch.Generator().manual_seed(options.seed)
        self.optimizer = torch.optim.Adam(
            [variables.vector], lr=options.learning_rate, betas=options.betas, foreach=False
        )
        self.curve: list[float] = []

    def loss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The loss of one batch."""
        network, o = self.model.network, self.options
        with self.taps.recording(network) as seen:
            with torch.no_grad():
                wanted = torch.func.functional_call(network, self.originals, args, kwargs)
            teacher = seen.copy()
            seen.clear()
            found = self.model(*args, **kwargs)
            if not (isinstance(wanted, Tensor) and isinstance(found, Tensor)):
                raise InputError(
                    f"distillation: the network returns {type(found).__name__}, expected one tensor; wrap it "
                    "in a module that returns the image"
                )
            return distillation_loss(
                o.loss, o.feature_weight, wanted, found, teacher, seen.copy(), self.taps.axis
            )

    def train(self, file: Path | None, every: int) -> None:
        """Take the iterations that are left."""
        o, variables = self.options, self.variables
        if file is not None and file.exists():
            self._load(file)
        _progress.expect(o.iterations - len(self.curve))
        for i in range(len(self.curve), o.iterations):
            loss = self.loss(*self.samples.draw(o.batch, o.augment, self.generator))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise self._stopped(i, f"the loss is {value}")
            if loss.requires_grad:  # not where no trained parameter took part
                loss.backward()  # type: ignore[no-untyped-call]
            gradient = variables.gradient()
            if not bool(torch.isfinite(gradient).all()):
                raise self._stopped(i, "a gradient is not finite")
            variables.vector.grad = gradient
            self.optimizer.param_groups[0]["lr"] = learning_rate(o, i)
            self.optimizer.step()
            variables.write()
            if not variables.representable():
                raise self._stopped(i, "a bound left the range of float32")
            self.curve.append(value)
            _progress.tick()
            if file is not None and (len(self.curve) % every == 0 or len(self.curve) == o.iterations):
                self._save(file)

    def _stopped(self, iteration: int, what: str) -> InputError:
        return InputError(
            f"distillation stopped at iteration {iteration}: {what}; lower learning_rate= (now "
            f"{self.options.learning_rate:g}), or look for NaN and infinity in the calibration data. The "
            "model is as it was before"
        )

    @torch.no_grad()
    def judge(self) -> float:
        """Mean loss over the first samples, unaugmented."""
        total = count = 0.0
        for args, kwargs in self.samples.all(self.options.batch, JUDGED):
            first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            total += float(self.loss(args, kwargs)) * len(first)
            count += len(first)
        if not math.isfinite(total):
            raise self._stopped(len(self.curve), f"the loss is {total / count}")
        return total / count

    def fingerprint(self) -> str:
        """SHA-256 of options, model and data."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.options), sort_keys=True).encode())
        digest.update(json.dumps([self.taps.names, self.variables.names]).encode())
        for name, value in self.model.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            _digest(value, digest)
        _digest([self.samples.pools, self.samples.others], digest)
        return digest.hexdigest()

    def _save(self, file: Path) -> None:
        from sqlib.training.checkpoint import save

        file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "vector": self.variables.vector.detach(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "curve": self.curve,
        }
        save(state, file)

    def _load(self, file: Path) -> None:
        from sqlib.training.checkpoint import read

        state = read(file)
        with torch.no_grad():
            self.variables.vector.copy_(state["vector"])
        self.variables.write()
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.curve = list(state["curve"])


def learning_rate(options: Options, iteration: int) -> float:
    """Half a cosine from the first rate to the final one, over all iterations."""
    first, last = options.learning_rate, options.final_learning_rate
    return last + (first - last) * (1 + math.cos(math.pi * iteration / max(options.iterations, 1))) / 2


def resume_folder() -> str | None:
    """Where recipes keep unfinished training: the environment variable ``SQLIB_RESUME``, if set."""
    return os.environ.get(RESUME) or None


def _known(options: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(Options)]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise InputError(f"distill has no option {', '.join(unknown)}; it has {', '.join(names)}")
    return options


def _digest(value: Any, digest: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        _digest([v for kv in sorted(value.items()) for v in kv], digest)
    elif isinstance(value, (list, tuple)):
        for v in value:
            _digest(v, digest)
    else:
        digest.update(repr(value).encode())
