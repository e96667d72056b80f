"""What the recipes have in common that train a quantized network on pairs of low and high resolution.

The loss of PAMS, DDTB, CADyQ and CABM is the distance to the original in gray levels plus a distance between
attention maps of features of the quantized network and of a teacher,

    L = mean |255 (SR - HR)| + transfer * mean (phi(F) - phi(F_teacher))^2,

phi(F) being the squares of F averaged over channels, flattened and divided by their norm. Published are
1,000 iterations an epoch, for 30 (PAMS), 60 (DDTB) or 300 epochs (CADyQ, CABM): hours to days on a CPU. The
schedule "laptop" has 2,000 iterations with the same losses. Its rates for bounds are larger by as much as the
iterations are fewer, so that bounds can travel as far; those for weights are the published ones. "custom" is
any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib.engine.options import choice, flag, integer, number, option, patterns
from sqlib.engine.recipe import Lesson, Recipe
from sqlib.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.fit.quantization_aware.task import Answer


_names = patterns().metadata["check"]


def _patterns_or_none(name: str, value: Any) -> tuple[str, ...] | None:
    return None if value is None else _names(name, value)


@dataclass(frozen=True)
class Trained(Recipe):
    """Base of the recipes that train on pairs; not a recipe itself.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    schedule : str
        "published", "laptop" or "custom". The options below it that are None are taken from the schedule;
        "custom" needs them all.
    steps : int
        Iterations; 0 leaves what calibration found.
    halve_every : int
        Iterations after which all rates are halved, again and again.
    batch : int
        Pairs in each.
    learning_rate, bound_learning_rate : float
        Of Adam for weights, biases and norms; for bounds, in units of the features: no bound moves by more in
        one iteration. Those of the schedules are for networks that compute in 0..255; where features are in
        0..1 (CARN, SwinIR), give about a two-hundredth.
    transfer : float
        Weight of the attention transfer.
    features : tuple of str or None
        Modules that are compared, as in `sqlib.fit.distillation.Options`. None: the last of the residual
        blocks, or of an unknown network the last quantized layer.
    unquantized : tuple of str or None
        Patterns of call sites (unless ``skip`` is given), or of operands of call sites, that stay in full
        precision. None: what the papers leave so (the SPEC's ``unquantized``: 1x1 fusions of CARN, softmax
        maps of ELAN). The releases of PAMS and DDTB never quantize what the first convolution of an EDSR
        block is given, ``("*.conv1:input",)``, though the papers do; nor do those of CADyQ and CABM in
        SRResNet.
    guard : bool
        Keep bounds positive, at least 1 % of their start; the releases do not.
    precision : str
        "fp32", or "auto": bfloat16 where the processor has it.
    seed : int
        Of the draws. Every stage (the warm-up of DDTB, the base that a recipe starts from, its own training)
        draws from the beginning, so that the stages see the same batches first.
    """

    learns: ClassVar[bool] = True
    paired: ClassVar[bool] = True
    shared: ClassVar[tuple[str, ...]] = ("batch", "learning_rate", "transfer")

    schedule: str = "published"
    steps: int = integer(None, 0)  # None: as the schedule says
    halve_every: int = integer(None, 1)
    bound_learning_rate: float = number(None, 0, above=True)
    batch: int = integer(16, 1)
    learning_rate: float = number(1e-4, 0, above=True)
    transfer: float = number(1000.0, 0)
    features: tuple[str, ...] | None = option(None, _patterns_or_none)
    unquantized: tuple[str, ...] | None = option(None, _patterns_or_none)
    guard: bool = flag(True)
    precision: str = choice("fp32", "auto", "bf16")
    seed: int = integer(0, 0)

    def unquantized_in(self, network: nn.Module) -> tuple[str, ...]:
        """As given, else as the papers have it for this network."""
        if self.unquantized is not None:
            return self.unquantized
        spec = getattr(network, "spec", None)
        return () if spec is None else tuple(spec.unquantized.get(network.name, ()))

    def train(
        self,
        model: QuantizedModel,
        lesson: Lesson,
        *,
        teacher: nn.Module,
        loss: Callable[[Answer], Tensor] | None = None,
        features: Sequence[str] | None = None,
        rates: Mapping[str, float] | None = None,
        factors: Mapping[str, float] | None = None,
        steps: int | None = None,
        first: int = 0,
        run: Callable[..., Any] | None = None,
    ) -> Any:
        """Train with the options of this recipe over `sqlib.fit.train_quantized`.

        Parameters
        ----------
        model, lesson : QuantizedModel, Lesson
            As `learn` gets them.
        teacher : nn.Module
            Whose features are compared.
        loss : callable or None
            Instead of `criterion`.
        features : sequence of str or None
            Modules whose outputs the loss sees, instead of `tapped`.
        rates : mapping of str to float or None
            Learning rates by group, beside or instead of the usual ones.
        factors : mapping of str to float or None
            Of rates, by pattern of names, as in `sqlib.fit.train_quantized`.
        steps, first : (int or None), int
            Instead of all steps, these from step `first` of the schedule.
        run : callable or None
            How the network runs on a batch, where one pass is not it.

        Returns
        -------
        Trained
            See `sqlib.fit.train_quantized`; also appended to ``model.training_log``.

        Raises
        ------
        InputError
            No pairs, and steps to take.
        """
        from sqlib.fit import train_quantized
        from sqlib.fit.loop.schedule import step_decay
        from sqlib.fit.quantization_aware.task import one_pass
        from sqlib.fit.samples import Samples

        count = self.steps if steps is None else steps
        if count == 0:
            return None
        if lesson.pairs is None:
            raise InputError(
                f"{type(self).__name__} trains on pairs of low and high resolution: give quantize_model(..., "
                "pairs=...), or steps=0 for what calibration alone finds"
            )
        drawn = hasattr(lesson.pairs, "draw")
        source = lesson.pairs if drawn else Samples(lesson.pairs, model.network, paired=True)
        rate, halve_every = self.learning_rate, self.halve_every

        def schedule(rate: float, steps: int) -> Callable[[int], float]:
            decay = step_decay(rate, steps, every=halve_every)
            return lambda step: decay(first + step)

        outcome = train_quantized(
            model,
            source,
            steps=count,
            train={
                **dict.fromkeys(("weights", "biases", "norms"), rate),
                "bounds": self.bound_learning_rate,
                **(rates or {}),
            },
            loss=loss or self.criterion(model.network),
            run=run or one_pass,
            teacher=teacher,
            features=tuple(self.tapped(model) if features is None else features),
            batch=self.batch,
            schedule=schedule,
            relative=False,
            factors=factors,
            guard=self.guard,
            precision=self.precision,
            seed=self.seed,
            resume=lesson.resume,
        )
        model.training_log = [*getattr(model, "training_log", []), outcome]  # type: ignore[assignment]
        return outcome

    def criterion(self, network: nn.Module) -> Callable[[Answer], Tensor]:
        """The loss."""
        return TransferLoss(self.transfer, channel_axis(network))

    def compared(self, model: QuantizedModel) -> tuple[str, ...]:
        """Names of the modules whose outputs the loss sees."""
        return self.tapped(model)

    def selector_rate(self, network: nn.Module) -> float:
        """Learning rate of gates and selectors, where there are any."""
        return self.learning_rate

    def tapped(self, model: QuantizedModel) -> tuple[str, ...]:
        """Names of the modules that stand for the output of the network's body."""
        from sqlib.fit.features import find_taps

        if self.features is not None:
            return find_taps(model.network, self.features, None).names
        known = find_taps(model.network, None, None).names
        if known:
            return known[-1:]
        return tuple(site.module for site in model.sites.values() if site.active)[-1:]


@dataclass(frozen=True)
class TransferLoss:
    """Mean absolute error in gray levels and attention transfer of the last of the features.

    Attributes
    ----------
    transfer : float
        Weight of the attention transfer.
    axis : int or None
        Channel axis of the features; None: by their dimensions.
    """

    transfer: float
    axis: int | None = None
    needs_taught: ClassVar[bool] = False

    def __call__(self, answer: Answer) -> Tensor:
        from sqlib.fit.distillation.loss import attention_transfer

        loss = 255 * (answer.output.float() - answer.target.float()).abs().mean()
        if not self.transfer or not answer.features:
            return loss
        taught, own = answer.teacher_features[-1].float(), answer.features[-1].float()
        return loss + self.transfer * attention_transfer(taught, own, self.axis)


def channel_axis(network: nn.Module) -> int | None:
    """The channel axis of the features of a network that has a SPEC, else None."""
    from sqlib.fit.features import find_taps

    return find_taps(network, (), None).axis
