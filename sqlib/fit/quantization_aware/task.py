"""Quantization-aware training as a task for the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sqlib._checks import check_flag, check_integer, check_number
from sqlib.engine.batches import placed
from sqlib.engine.context import Context
from sqlib.engine.identity import settings
from sqlib.engine.model import QuantizedModel
from sqlib.errors import InputError
from sqlib.fit.features import Taps
from sqlib.fit.loop import Average, Group, NotFinite
from sqlib.fit.loop.checkpoint import fingerprint
from sqlib.fit.loop.execution import Execution
from sqlib.fit.loop.schedule import Schedule
from sqlib.fit.quantization_aware.trainable import Trainable
from sqlib.fit.samples import Drawn, Source
from sqlib.fit.variables import NARROWEST, BoundsTask
from sqlib.quantizers import SymmetricQuantizer


@dataclass(frozen=True)
class Answer:
    """What a loss of `train_quantized` is computed from.

    Attributes
    ----------
    output : Tensor
        Of the quantized network, (B, ...).
    target : Tensor
        The high-resolution half of the pairs, or the teacher's output where the data have none.
    taught : Tensor or None
        The teacher's output; None without a teacher, and for a loss that says that it needs none.
    features, teacher_features : list of Tensor
        Outputs of the tapped modules of network and teacher, in the same order.
    model, step : QuantizedModel, int
        The network that is trained, and the 0-based step.
    passes : sequence of Context
        Contexts of the network's passes, one unless `train_quantized` was told how to run it: the bits that
        they used, and what selectors left in their ``data``.
    """

    output: Tensor
    target: Tensor
    taught: Tensor | None
    features: list[Tensor]
    teacher_features: list[Tensor]
    model: QuantizedModel
    step: int
    passes: Sequence[Context] = ()


def l1(answer: Answer) -> Tensor:
    """Mean absolute error of the output."""
    return (answer.output.float() - answer.target.float()).abs().mean()


def one_pass(model: QuantizedModel, drawn: Drawn) -> Any:
    """The output of one pass over a batch."""
    return model(*drawn.args, **drawn.kwargs)


@dataclass(frozen=True)
class Options:
    """Options of `train_quantized` that decide the result."""

    steps: int
    train: Mapping[str, float]
    loss: Callable[[Answer], Tensor]
    batch: int
    schedule: Callable[[float, int], Schedule]
    betas: tuple[float, ...]
    clip: float
    average: float
    augment: bool
    relative: bool
    factors: Mapping[str, float]
    guard: bool
    seed: int

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("batch", 1), ("seed", 0)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), low, 2**63 - 1))
        for name, high in (("clip", math.inf), ("average", 1)):
            object.__setattr__(self, name, check_number(name, getattr(self, name), 0, high))
        if self.average == 1:
            raise InputError("average=1 would keep the start; expected a decay below 1, e.g. 0.999")
        for name in ("augment", "relative", "guard"):
            check_flag(name, getattr(self, name))
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise InputError(f"betas={self.betas!r}: expected a pair of numbers of at least 0 and below 1")

    def described(self) -> dict[str, Any]:
        """As plain data: a loss by its name, a schedule by its rates."""
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(self).items()}
        rate = self.schedule(1.0, self.steps)
        rates = torch.tensor([rate(step) for step in range(self.steps)], dtype=torch.float64)
        return {**plain, "loss": _named(self.loss), "schedule": rates}


def _named(function: Any) -> str:
    """A function by its name, an object that is called by its text."""
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"


class QuantizationAware(BoundsTask):
    """The loss of the quantized network on drawn samples."""

    name = "training of the quantized network"

    def __init__(
        self,
        model: QuantizedModel,
        source: Source,
        trainable: Trainable,
        options: Options,
        teacher: nn.Module | None,
        taps: Taps,
        execution: Execution,
        run: Callable[[QuantizedModel, Drawn], Any],
    ) -> None:
        super().__init__(model, trainable.bounds, options.seed)
        self.source, self.trainable, self.options = source, trainable, options
        self.teacher, self.taps, self.execution = teacher, taps, execution
        self.run = run
        # Data with targets, and a loss that looks at the teacher's features alone: its passes can end there.
        self.only_features = source.paired and not getattr(options.loss, "needs_taught", True)
        self.teacher_features: int | None = None
        self.steps = options.steps
        moved = {id(p) for parameters, _ in trainable.groups() for p in parameters}
        self.alphas = [
            (name.replace("/", "."), q.alpha, NARROWEST * float(q.alpha.detach()))
            for name, q in model.named_modules()
            if isinstance(q, SymmetricQuantizer) and id(q.alpha) in moved
        ]
        if options.average:
            tensors = [p for parameters, _ in trainable.groups() for p in parameters]
            self.average = Average(tensors, [p.detach().clone() for p in tensors], options.average)

    def groups(self) -> list[Group]:
        """Bounds as vectors, everything else as it is."""
        o, betas = self.options, (self.options.betas[0], self.options.betas[1])
        return [Group(tensors, o.schedule(rate, o.steps), betas) for tensors, rate in self.trainable.groups()]

    def loss(self, step: int) -> Tensor:
        """Of freshly drawn samples."""
        drawn = self.source.draw(self.options.batch, self.options.augment, self.generator)
        drawn = placed(drawn, self.model.network)  # a source of one's own need not know the network
        with self.execution.autocast():
            # Each network has a batch of its own, which it may change in place.
            taught, teacher_features = self._taught(*placed(drawn[:2], self.model.network, copy=True))
            with self.taps.recording(self.model.network) as seen, self.model.passes() as passes:
                output = self.run(self.model, drawn)
                student_features = seen.copy()
        target = taught if drawn.target is None else drawn.target
        if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.shape != target.shape:
            shapes = " and ".join(
                str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in (output, target)
            )
            raise InputError(
                f"train_quantized: output and target are {shapes}, expected tensors of one shape; give pairs "
                "at the network's scale, or a teacher of the same scale"
            )
        features = student_features, teacher_features
        return self.options.loss(Answer(output, target, taught, *features, self.model, step, passes))

    @torch.no_grad()
    def stepped(self) -> None:
        """Move the bounds of uniform quantizers; keep alphas positive, or stop where one is not."""
        super().stepped()
        for name, alpha, least in self.alphas:
            if self.options.guard:
                alpha.clamp_(min=least)
            elif not bool(alpha > 0):
                raise NotFinite(f"the bound alpha of {name} is {float(alpha):g}, not positive")

    @torch.no_grad()
    def _taught(self, args: Any, kwargs: Any) -> tuple[Tensor | None, list[Tensor]]:
        """What the teacher makes of a batch."""
        if self.teacher is None or (self.only_features and self.teacher_features == 0):
            return None, []
        inner = self.teacher.network if isinstance(self.teacher, QuantizedModel) else self.teacher
        output = None
        with self.taps.recording(inner, until=self.teacher_features) as seen:
            output = self.teacher(*args, **kwargs)
        if self.only_features:
            output, self.teacher_features = None, len(seen)
        return output, seen

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average in the place of the last step."""
        if self.average is not None:
            for tensor, value in zip(self.average.source, self.average.values, strict=True):
                tensor.copy_(value)
            self.stepped()

    def _tensors(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if isinstance(v, Tensor)}

    def state(self) -> dict[str, Any]:
        """Every tensor of the model besides."""
        return {**super().state(), "model": self._tensors()}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Back to a saved state."""
        for name, tensor in self._tensors().items():
            tensor.copy_(state["model"][name])
        super().restore(state)

    def fingerprint(self) -> str:
        """SHA-256 of options, network, teacher and data."""
        options = self.options.described(), _named(self.run), self.execution.precision, self.taps.names
        teacher = None if self.teacher is None else [settings(self.teacher), self.teacher.state_dict()]
        model = settings(self.model), self.model.state_dict()
        return fingerprint(options, model, teacher, self.source.content())
