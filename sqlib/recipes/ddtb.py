"""DDTB: two trained bounds, in some layers scaled for every image (Zhong et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib.engine.options import choice, number
from sqlib.engine.recipe import Lesson, Observer
from sqlib.engine.registry import register
from sqlib.recipes._trained import Trained, TransferLoss, channel_axis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site
    from sqlib.fit.quantization_aware.task import Answer
    from sqlib.quantizers import GatedQuantizer

EPOCHS = 60
STATISTICS, WARM_UP = 1, 5
"""Epochs after which the network is quantized, and after which the gates act."""

DYNAMIC = {"edsr": 30, "rdn": 50, "srresnet": 10}
"""Percent of the layers that have a gate, by network."""

RELEASED_START = (-10.0, 10.0)


@register("ddtb")
@dataclass(frozen=True)
class DDTB(Trained):
    """A lower and an upper bound for each activation, trained by their gradients; weights cut at percentiles.

    The layers whose range differs most between batches have a small network, the gate, that scales both
    bounds for every sample (`sqlib.quantizers.GatedQuantizer`).

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    percentile : float
        M: bounds begin at percentiles 100 - M and M of the first batch of the calibration data, and weights
        are cut there in every pass.
    start : str
        "percentile", or "release": its code computes them at 2 bits only, and starts at -10 and 10 otherwise.
    dynamic : float or None
        Percent of the layers that have a gate. None: 30 for an EDSR, 50 for an RDN, 10 for an SRResNet as
        published, and 30 for others.

    Notes
    -----
    The other options are those of `sqlib.recipes._trained.Trained`.

    The teacher is the network in full precision. "published": 60 epochs of 1,000 iterations, rates halved
    every 10 epochs. The first epoch, which watches the activations, is replaced by calibration, so that
    59,000 are left. In the next four the bounds are static and the loss has the mean square of what goes into
    every gate's sigmoid besides, which makes all factors 1; then the gates act. Other numbers of steps are
    divided in the same proportions. Adam starts anew where the gates begin to act.

    Layers are ranked by the variance over the calibration batches of their largest value, plus that of their
    smallest one: give more than one batch. Only what convolutions and linear layers are given can have a
    gate; products of two activations have no channels of their own. Gates train at the rate of the weights.
    """

    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {"steps": 60_000, "halve_every": 10_000, "bound_learning_rate": 0.01},
        "laptop": {"steps": 2_000, "halve_every": 333, "bound_learning_rate": 0.3},
    }

    percentile: float = number(99.0, 50, 100, above=True, below=True)
    start: str = choice("percentile", "release")
    dynamic: float | None = number(None, 0, 100, optional=True)

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Per tensor, between its percentiles in every pass."""
        from sqlib.quantizers import FollowingQuantizer

        return FollowingQuantizer(self.weight_bits, percentile=self.percentile)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Percentiles of the first batch, ranges of all."""
        from sqlib.quantizers import GatedObserver

        released = self.start == "release" and self.activation_bits != 2
        return GatedObserver(
            self.activation_bits,
            percentile=self.percentile,
            bounds=RELEASED_START if released else None,
            axis=_channels(site, operand) if self.dynamic != 0 else None,
            seed=self.seed + site.order,
        )

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Leave gates to the layers whose range differs most."""
        candidates = gated(model)
        name = str(getattr(model.network, "name", "")).split("-")[0]
        percent = DYNAMIC.get(name, 30) if self.dynamic is None else self.dynamic
        ranked = sorted(candidates, key=lambda key: -float(candidates[key].spread))
        for key in ranked[round(len(ranked) * percent / 100) :]:
            model.add_activation(key, candidates[key].static())

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Train weights and bounds, then with the gates."""
        first, dynamic = STATISTICS * self.steps // EPOCHS, list(gated(model).values())
        if dynamic:
            warm = WARM_UP * self.steps // EPOCHS
            with _logits(dynamic) as seen:
                loss = WarmUpLoss(self.transfer, channel_axis(model.network), seen)
                self._train(model, lesson, first, warm, loss)
            first = warm
            for quantizer in dynamic:
                quantizer.on = self.steps > 0
        self._train(model, lesson, first, self.steps)

    def _train(self, model: QuantizedModel, lesson: Lesson, first: int, last: int, loss: Any = None) -> None:
        """Steps `first` to `last` of the schedule."""
        rates = {"selectors": self.learning_rate}
        self.train(
            model,
            lesson,
            teacher=lesson.original,
            loss=loss,
            rates=rates,
            steps=last - first,
            first=first,
        )


@dataclass(frozen=True)
class WarmUpLoss(TransferLoss):
    """`TransferLoss` plus, for every gate, the mean square of what goes into its sigmoid.

    Attributes
    ----------
    logits : mapping of int to Tensor
        What went in, in the pass at hand.
    """

    logits: Mapping[int, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, answer: Answer) -> Tensor:
        return super().__call__(answer) + sum(v.square().mean() for v in self.logits.values())


def gated(model: QuantizedModel) -> dict[str, GatedQuantizer]:
    """The quantizers of a network that have a gate, by their keys."""
    from sqlib.quantizers import GatedQuantizer

    return {key: q for key, q in model.activations.items() if isinstance(q, GatedQuantizer)}


@contextmanager
def _logits(quantizers: Sequence[GatedQuantizer]) -> Iterator[dict[int, Tensor]]:
    """Within the block, what went into the sigmoids of gates in the last pass, though they do not act."""
    seen: dict[int, Tensor] = {}

    def note(quantizer: Any, args: tuple[Tensor, ...]) -> None:
        seen[id(quantizer)] = quantizer.gate.logits(args[0].detach())

    handles = [quantizer.register_forward_pre_hook(note) for quantizer in quantizers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _channels(site: Site, operand: str) -> int | None:
    """The channel axis of an operand, from the end; None where a gate has no channels to look at."""
    if operand != "input" or site.module_type == "MultiheadAttention":
        return None
    return -1 if site.op == "linear" else -1 - int(site.op[-2])
