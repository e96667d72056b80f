r"""Block reconstruction: make each unit of the quantized network answer as it does in full precision.

For the units in the order of their calls, with everything before them already quantized, Adam minimizes over
rounding variables and activation steps

.. math:: \frac1{NP} \sum_{n,p} \sum_c |f(\hat x)_{ncp} - f(x)_{ncp}|^2
          + \lambda \sum_i \left(1 - |2 h_i - 1|^\beta\right)

where x enters the unit f in full precision and :math:`\hat x` in the quantized network, N samples of P
positions each (BRECQ, Li et al., ICLR 2021, Eq. 10; QDrop, Wei et al., ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sqlib import _progress
from sqlib.engine.channels import channel_axis
from sqlib.errors import InputError
from sqlib.fit.reconstruction.blocks import Call, Substitute, Unit, calls, find_units
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers.adaround import AdaRound
from sqlib.quantizers.learned_step import LearnedStep

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.ops import Operand
    from sqlib.engine.site import Site
    from sqlib.recipes._blockwise import Reconstruction


@dataclass(frozen=True)
class Stage:
    """One sweep over the units.

    Attributes
    ----------
    rounding, steps
        What is learned.
    activations
        Whether activations are quantized meanwhile.
    iterations, norm
        Optimizer steps per unit; exponent of the error.
    drop_probability
        Chance of every value to stay in full precision, at the unit's input and at its activation quantizers.
    """

    rounding: bool
    steps: bool
    activations: bool
    iterations: int
    norm: float
    drop_probability: float = 0.0


class Outcome(NamedTuple):
    """What reconstruction did to one unit.

    `before` and `after` are mean squared errors of the unit's output over the calibration samples, relative
    to the variance of its full-precision output; without drops, weights rounded hard. `undecided` is the
    share of rounding variables that were not within 0.05 of 0 or 1 at the end.
    """

    unit: str
    sites: tuple[str, ...]
    before: float
    after: float
    undecided: float


class Samples(NamedTuple):
    """Samples of one shape that enter the same call of a unit: quantized, full precision, wanted output."""

    call: Call
    x: Tensor
    full: Tensor
    target: Tensor


def reconstruct(
    model: QuantizedModel, data: Iterable[Any], recipe: Reconstruction, stages: Iterable[Stage]
) -> list[Outcome]:
    """Run the stages on `model` in place and say what came of it; callers may have gradients switched off."""
    outcomes = []
    with _frozen(model), torch.inference_mode(False), torch.enable_grad():
        units, rest = find_units(model, data)
        stages = list(stages)
        _progress.expect(len(units) * sum(stage.iterations for stage in stages))
        for number, stage in enumerate(stages):
            generator = torch.Generator().manual_seed(recipe.seed + number)
            for unit in units:
                outcomes.append(_reconstruct_unit(model, unit, data, recipe, stage, generator))
    for unit in units:
        for site in unit.sites:
            site.rule = f"quantized; reconstructed in {unit.path or 'the whole network'!r}"
    for site in rest:
        site.rule = "quantized; not reconstructed: no module around it is a function of one tensor"
    model.refresh()
    return outcomes


def _reconstruct_unit(
    model: QuantizedModel,
    unit: Unit,
    data: Iterable[Any],
    recipe: Reconstruction,
    stage: Stage,
    generator: torch.Generator,
) -> Outcome:
    samples = _samples(model, unit, data, stage)
    spread = _spread(samples)
    learner = _Learner(model, unit, samples, recipe, stage, generator)
    before = learner.error(samples, spread)
    sites = tuple(site.name for site in unit.sites)
    if stage.iterations == 0 or not learner.variables():
        return Outcome(unit.path, sites, before, before, 0.0)
    learner.learn(samples, spread)
    undecided = learner.settle()
    return Outcome(unit.path, sites, before, learner.error(samples, spread), undecided)


class _Learner:
    """The variables of one unit and the loop that trains them."""

    def __init__(
        self,
        model: QuantizedModel,
        unit: Unit,
        samples: list[Samples],
        recipe: Reconstruction,
        stage: Stage,
        generator: torch.Generator,
    ) -> None:
        self.model, self.unit, self.recipe, self.stage = model, unit, recipe, stage
        self.generator = generator
        self.masks = _beside(generator, samples[0].x.device)
        self.roundings = _roundings(model, unit, samples) if stage.rounding else {}
        moves = stage.steps and stage.drop_probability < 1  # else no activation is ever quantized
        self.steps = _steps(model, unit, relative=recipe.relative) if moves else {}

    def variables(self) -> list[Tensor]:
        return [
            *(r.variables for r in self.roundings.values()),
            *(s.variable for s in self.steps.values()),
        ]

    def learn(self, samples: list[Samples], spread: float) -> None:
        recipe, iterations = self.recipe, self.stage.iterations
        optimizer = (
            torch.optim.Adam([r.variables for r in self.roundings.values()], lr=recipe.learning_rate)
            if self.roundings
            else None
        )
        mover = (
            torch.optim.Adam([s.variable for s in self.steps.values()], lr=recipe.step_learning_rate)
            if self.steps
            else None
        )
        cosine = None if mover is None else torch.optim.lr_scheduler.CosineAnnealingLR(mover, iterations)
        handler = Substitute(self.model, self._activation, {key: r.soft for key, r in self.roundings.items()})
        unit = spread if recipe.relative and spread > 0 else 1.0
        first = samples[0]
        axis = channel_axis(lambda: first.call.repeat(self.unit.module, first.full[:1]))
        for i in range(iterations):
            chosen, index = _draw(samples, recipe.batch, self.generator)
            x = self._mixed(chosen.full[index], chosen.x[index])
            out = chosen.call.repeat(self.unit.module, x, self.model.network, handler)
            loss = _error(out, chosen.target[index], self.stage.norm, unit, axis)
            loss = loss + self._regularizer(i)
            for o in (optimizer, mover):
                if o is not None:
                    o.zero_grad()
            if loss.requires_grad:  # not where the network detaches what it computed from the variables
                loss.backward()
            for o in (optimizer, mover):
                if o is not None:
                    o.step()
            if cosine is not None:
                cosine.step()
            _progress.tick()

    def _regularizer(self, i: int) -> Tensor | float:
        start = self.recipe.warmup * self.stage.iterations
        if i < start or not self.roundings:
            return 0.0
        first, last = self.recipe.beta
        beta = first + (last - first) * (i - start) / max(self.stage.iterations - start, 1)
        total = torch.stack([r.regularizer(beta) for r in self.roundings.values()]).sum()
        return self.recipe.regularization * total

    def _activation(self, key: str, x: Tensor) -> Tensor:
        if not self.stage.activations:
            return x
        step = self.steps.get(key)
        return self._mixed(x, _quantized(self.model, key, x) if step is None else step(x))

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
        for step in self.steps.values():
            step.write_back()
        self.model.refresh()
        return far / total if total else 0.0

    @torch.no_grad()
    def error(self, samples: list[Samples], spread: float) -> float:
        """Squared error over all samples with the model's present quantizers, relative to the variance."""
        handler = _quantizing(self.model, self.stage)
        squares = count = 0.0
        for part in samples:
            for start in range(0, len(part.x), self.recipe.batch):
                piece = slice(start, start + self.recipe.batch)
                out = part.call.repeat(self.unit.module, part.x[piece], self.model.network, handler)
                squares += float((out.double() - part.target[piece].double()).square().sum())
                count += out.numel()
        return squares / count / (spread**2 or 1.0)


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


def _quantizing(model: QuantizedModel, stage: Stage) -> Substitute:
    """The network as quantized so far, activations as the stage has them."""
    return Substitute(model, lambda key, x: _quantized(model, key, x) if stage.activations else x)


def _quantized(model: QuantizedModel, key: str, x: Tensor) -> Tensor:
    quantizer = model.activations._modules.get(key.replace(".", "/"))
    return x if quantizer is None else quantizer(x)


def _samples(model: QuantizedModel, unit: Unit, data: Iterable[Any], stage: Stage) -> list[Samples]:
    """Everything that enters and should leave the unit, samples of one call and shape together.

    Calls that reach none of the unit's own sites are left out: another unit has settled those (a layer of a
    block that is called once more outside of the block), or they stay in full precision.
    """
    own = {site.name for site in unit.sites}
    handler = _quantizing(model, stage)
    groups: dict[Any, list[tuple[Call, Call]]] = {}
    for batch in data:
        wanted = calls(model, unit.module, batch, None, unit.calls)
        seen = calls(model, unit.module, batch, handler, unit.calls)
        if [c.x.shape for c in wanted] != [c.x.shape for c in seen]:
            raise InputError(
                f"reconstruction: quantized, the network calls {unit.path!r} in another way than in full "
                "precision (its control flow depends on the data); leave that part out with skip="
            )
        for full, quantized in zip(wanted, seen, strict=True):
            if not own & quantized.sites:
                continue
            rest = (quantized.key, repr(quantized.args), repr(quantized.kwargs))
            place = (
                quantized.number,
                tuple(quantized.x.shape[1:]),
                rest,
                frozenset(quantized.counts.items()),
            )
            groups.setdefault(place, []).append((full, quantized))
    return [
        Samples(
            pairs[0][1],
            torch.cat([q.x for _, q in pairs]),
            torch.cat([f.x for f, _ in pairs]),
            torch.cat([f.out for f, _ in pairs]),
        )
        for pairs in groups.values()
    ]


def _spread(samples: list[Samples]) -> float:
    """Standard deviation of the wanted outputs."""
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


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter of the network collects gradients meanwhile."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
