"""One unit of block reconstruction as a task for the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sqlib.engine.channels import channel_axis
from sqlib.fit.loop import Group, Task
from sqlib.fit.loop.schedule import annealed, constant
from sqlib.fit.reconstruction.blocks import Unit
from sqlib.fit.reconstruction.calls import Call, Substitute
from sqlib.fit.reconstruction.options import Stage
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers.adaround import AdaRound
from sqlib.quantizers.learned_step import LearnedStep

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.ops import Operand
    from sqlib.engine.site import Site


class Samples(NamedTuple):
    """Samples of one shape that enter the same call of a unit: quantized, full precision, target output."""

    call: Call
    x: Tensor
    full: Tensor
    target: Tensor


class Learner(Task):
    """The rounding variables and activation steps of one unit."""

    def __init__(
        self,
        model: QuantizedModel,
        unit: Unit,
        samples: list[Samples],
        stage: Stage,
        generator: torch.Generator,
    ) -> None:
        self.model, self.unit, self.samples, self.stage = model, unit, samples, stage
        self.name = f"reconstruction of {unit.path or 'the whole network'!r}"
        self.steps = stage.iterations
        self.generator = generator
        self.masks = _beside(generator, samples[0].x.device)
        self.roundings = _roundings(model, unit, samples) if stage.rounding else {}
        moves = stage.steps and stage.drop_probability < 1  # else no activation is ever quantized
        self.moved = _steps(model, unit, relative=stage.relative) if moves else {}
        self.spread = _spread(samples)
        self.handler = Substitute(model, self._activation, {key: r.soft for key, r in self.roundings.items()})
        self._axis: int | None = None

    def groups(self) -> list[Group]:
        """Rounding variables at a constant rate, steps along a cosine."""
        stage = self.stage
        groups = [
            Group([r.variables for r in self.roundings.values()], constant(stage.learning_rate, self.steps)),
            Group([s.variable for s in self.moved.values()], annealed(stage.step_learning_rate, self.steps)),
        ]
        return [group for group in groups if group.parameters]

    def loss(self, step: int) -> Tensor:
        """Reconstruction error of drawn samples, and the regularizer of the rounding."""
        stage = self.stage
        chosen, index = _draw(self.samples, stage.batch, self.generator)
        x = self._mixed(chosen.full[index], chosen.x[index])
        out = chosen.call.repeat(self.unit.module, x, self.model.network, self.handler)
        scale = self.spread if stage.relative and self.spread > 0 else 1.0
        return _error(out, chosen.target[index], stage.norm, scale, self.axis) + self._regularizer(step)

    @property
    def axis(self) -> int:
        """Channel axis of the unit's output."""
        if self._axis is None:
            first = self.samples[0]
            self._axis = channel_axis(lambda: first.call.repeat(self.unit.module, first.full[:1]))
        return self._axis

    def state(self) -> dict[str, Any]:
        """The variables and the sources of draws and masks."""
        return {
            "variables": [v for group in self.groups() for v in group.parameters],
            "generator": self.generator.get_state(),
            "masks": self.masks.get_state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Back to saved variables."""
        own = [v for group in self.groups() for v in group.parameters]
        for variable, value in zip(own, state["variables"], strict=True):
            variable.copy_(value)
        self.generator.set_state(state["generator"])
        self.masks.set_state(state["masks"])

    def _regularizer(self, i: int) -> Tensor | float:
        start = self.stage.warmup * self.steps
        if i < start or not self.roundings:
            return 0.0
        first, last = self.stage.beta
        beta = first + (last - first) * (i - start) / max(self.steps - start, 1)
        total = torch.stack([r.regularizer(beta) for r in self.roundings.values()]).sum()
        return self.stage.regularization * total

    def _activation(self, key: str, x: Tensor) -> Tensor:
        if not self.stage.activations:
            return x
        step = self.moved.get(key)
        return self._mixed(x, quantized(self.model, key, x) if step is None else step(x))

    def _mixed(self, full: Tensor, quantized: Tensor) -> Tensor:
        """Element by element the full-precision value with the drop probability."""
        p = self.stage.drop_probability
        if p == 0.0:
            return quantized
        if p == 1.0:
            return full
        return torch.where(_chances(full, p, self.masks), full, quantized)

    @torch.no_grad()
    def settle(self) -> float:
        """Round hard and write steps back; returns the share of weights that had not decided."""
        far = total = 0
        for key, rounding in self.roundings.items():
            up = rounding.up()
            far += int(((up > 0.05) & (up < 0.95)).sum())
            total += up.numel()
            self.model.add_weight(key, rounding.harden())
        for step in self.moved.values():
            step.write_back()
        self.model.refresh()
        return far / total if total else 0.0

    @torch.no_grad()
    def error(self) -> float:
        """Squared error over all samples with the model's present quantizers, relative to the variance."""
        handler = quantizing(self.model, self.stage)
        squares = count = 0.0
        for part in self.samples:
            for start in range(0, len(part.x), self.stage.batch):
                piece = slice(start, start + self.stage.batch)
                out = part.call.repeat(self.unit.module, part.x[piece], self.model.network, handler)
                squares += float((out.double() - part.target[piece].double()).square().sum())
                count += out.numel()
        return squares / count / (self.spread**2 or 1.0)


def _roundings(model: QuantizedModel, unit: Unit, samples: list[Samples]) -> dict[str, AdaRound]:
    """Rounding variables of the unit's own weights, which are seen by running every call of it once."""
    own = {site.weight_key for site in unit.sites}
    found: dict[str, AdaRound] = {}

    class Collect(Substitute):
        def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
            key = site.weight_key
            if site.active and operand.role == site.weight_role and key in own and key not in found:
                quantizer = model.weight_quantizer(str(key))
                # A weight that another unit has settled is a RoundedWeight by now, and stays.
                if type(quantizer) is UniformQuantizer:
                    found[str(key)] = AdaRound(quantizer, value)
            return value

    for part in samples:
        part.call.repeat(unit.module, part.x[:1], model.network, Collect(model, lambda key, x: x))
    return found


def _steps(model: QuantizedModel, unit: Unit, *, relative: bool) -> dict[str, LearnedStep]:
    """Step variables of the unit's activation quantizers; a range without extent has none."""
    found: dict[str, LearnedStep] = {}
    for site in unit.sites:
        for role, key in site.activation_keys.items():
            quantizer = model.activation_quantizer(site, role)
            if isinstance(quantizer, UniformQuantizer) and bool(quantizer.upper > quantizer.lower):
                found[key] = LearnedStep(quantizer, relative=relative)
    return found


def quantizing(model: QuantizedModel, stage: Stage) -> Substitute:
    """The network as quantized so far, activations as the stage has them."""
    return Substitute(model, lambda key, x: quantized(model, key, x) if stage.activations else x)


def quantized(model: QuantizedModel, key: str, x: Tensor) -> Tensor:
    """`x` through the activation quantizer `key`, if there is one."""
    quantizer = model.activations._modules.get(key.replace(".", "/"))
    return x if quantizer is None else quantizer(x)


def _spread(samples: list[Samples]) -> float:
    """Standard deviation of the target outputs."""
    values = torch.cat([s.target.flatten() for s in samples]).double()
    return float(values.std(correction=0))


def _draw(samples: list[Samples], batch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
    """A group, by its size, and up to `batch` different samples of it."""
    sizes = torch.tensor([len(s.x) for s in samples], dtype=torch.float32)
    chosen = (
        samples[int(torch.multinomial(sizes, 1, generator=generator))] if len(samples) > 1 else samples[0]
    )
    index = torch.randperm(len(chosen.x), generator=generator)[:batch]
    return chosen, index.to(chosen.x.device)


def _error(out: Tensor, target: Tensor, norm: float, unit: float, axis: int) -> Tensor:
    """Mean over samples and positions of the sum over channels of |d|^norm, d in units of `unit`."""
    d = (out - target).float() / unit
    powers = d.square() if norm == 2.0 else d.abs().pow(norm)
    return powers.mean() * target.shape[axis]


def _chances(like: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """A mask of the shape of `like`, True with probability `p` (to 2^-16).

    Four values come from one random number: several times as fast as `bernoulli_` on a CPU.
    """
    numbers = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    numbers.random_(-(2**63), None, generator=generator)
    chances = numbers.view(torch.int16)[: like.numel()].view(like.shape)
    return chances < min(round(p * 2**16) - 2**15, 2**15 - 1)


def _beside(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` that continues `generator`; itself on the CPU."""
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)
