r"""CADyQ: activation bits that depend on the image and the layer (Hong et al., ECCV 2022).

The loss of a batch, with :math:`\hat b_{ln}` the width that layer l chose for sample n and
:math:`b_{ln} = \sum_k p_{lnk} b_k` its expectation over the shares of the candidates, is

.. math::
    L = \operatorname{mean} |255 (SR - HR)| + \lambda_A A(F_{-1}) + \lambda_B \sum_i A(F_i)
        + w(t) \sum_{l,n} \frac{\hat b_{ln}}{\operatorname{sg}(b_{ln})}, \qquad
    w(t) = w_0 + w_1 \lfloor t / 1000 \rfloor

where A is the attention transfer of a residual block, the last of which stands for the body, sg lets no
gradient pass, and the gradient of :math:`\hat b` is that of b: the last term is, for its gradient, the sum of
the logarithms of all expected widths. It is a sum over samples where the first is their mean, as published
with batches of 16: in smaller batches bits weigh less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION
from sqlib.engine.options import number, option
from sqlib.engine.recipe import Lesson, Observer, Recipe
from sqlib.engine.registry import register
from sqlib.errors import InputError
from sqlib.recipes._trained import Trained, channel_axis
from sqlib.recipes.pams import PAMS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sqlib.engine.context import Context
    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site
    from sqlib.fit.quantization_aware.task import Answer

EPOCH = 1000
"""Iterations after which the weight of the bits grows."""


def _widths(name: str, value: Any) -> tuple[int, ...]:
    from sqlib.quantizers.content_bits import check_candidates

    return check_candidates(value)


@register("cadyq")
@dataclass(frozen=True)
class CADyQ(Trained):
    """A selector for each activation gives every patch one of a few bit-widths.

    Parameters
    ----------
    bits : int or tuple of int
        Of weights, and of activations in the PAMS network that this one starts from and is taught by; one
        bit-width or the pair of them.
    candidates : tuple of int
        Widths of activations to choose from.
    gradient_scale : float or None
        Factor of the image gradients before the selectors, of inputs in 0..1. None: 1 for networks that
        compute in 0..1, as their mean color says (CARN, SwinIR), else 1000.
    selector_learning_rate : float or None
        Of the selectors. None: 1e-4, or where `gradient_scale` would be 1, 1e-3, as published for CARN.
    block_transfer : float
        Weight of the attention transfer of every residual block.
    bit_weight, bit_growth : float
        Weight of the bits at first, and what it grows by every 1,000 iterations. On the "laptop" schedule
        bits weigh 30 times as much as published and their selectors learn ten times as fast. Of the pairs
        tried, on edsr-small x4 with 300 iterations of 8 crops, it is the one whose mean bits came nearest to
        5, about what the papers print, on 20 pictures of "div2k-lrx4" that were held out of the trial's
        training and calibration and belong to no set that tables score.
    base_transfer : float
        `transfer` of the PAMS stage; 0 is what CABM's release does, which computes it and leaves it out.
    features : tuple of str or None
        Modules that are compared, the last of which stands for the body. None: all residual blocks, or of an
        unknown network the last quantized layer.

    Notes
    -----
    The other options are those of `sqlib.recipes._trained.Trained`.

    "published": 300 epochs of 1,000 iterations, rates halved after 150 (for CARN ``steps=600_000,
    halve_every=400_000``). The stage before is `PAMS` with as many iterations, at most its published 30
    epochs.

    The bits of a patch are known after a pass (`sqlib.QuantizedModel.passes`); so `sqlib.cost.cost` needs
    images.
    """

    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "steps": 300_000,
            "halve_every": 150_000,
            "bound_learning_rate": 0.01,
            "selector_learning_rate": None,
            "bit_weight": 1e-4,
        },
        # Bits would hardly move within so few iterations.
        "laptop": {
            "steps": 2_000,
            "halve_every": 1_000,
            "bound_learning_rate": 0.15,
            "selector_learning_rate": 1e-3,
            "bit_weight": 3e-3,
        },
    }
    shared: ClassVar[tuple[str, ...]] = (
        *Trained.shared,
        "block_transfer",
        "bit_growth",
        "base_transfer",
    )

    candidates: tuple[int, ...] = option((4, 6, 8), _widths)
    gradient_scale: float | None = number(None, 0, optional=True)
    selector_learning_rate: float | None = number(None, 0, above=True, optional=True)
    block_transfer: float = number(100.0, 0)
    bit_weight: float = number(None, 0)
    bit_growth: float = number(1e-6, 0)
    base_transfer: float = number(1000.0, 0)

    def check(self) -> Mapping[str, Any]:
        """Activations have bits to choose."""
        if self.activation_bits == FULL_PRECISION:
            raise InputError(f"bits={self.bits!r}: {type(self).__name__} chooses the bits of activations")
        return {}

    def starts_from(self) -> Recipe | None:
        """PAMS with the same bits, and as many iterations or those it has published."""
        published = PAMS.schedules["published"]["steps"]
        steps = min(self.steps, published)
        return PAMS(
            bits=self.bits,
            schedule="published" if steps == published else "laptop",
            steps=steps,
            halve_every=max(1, round(steps / 3)),
            transfer=self.base_transfer,
            **{name: getattr(self, name) for name in _COMMON},
        )

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """As PAMS has it."""
        from sqlib.quantizers import FollowingQuantizer

        return FollowingQuantizer(self.weight_bits)

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Counts channels; bounds are those of the start."""
        return _Channels(site, self.candidates)

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Train weights, bounds and selectors towards the network that it starts from."""
        from sqlib.quantizers import ContentBits, QuantizerBank, SymmetricQuantizer

        assert lesson.start is not None
        scale = self.gradient_scale
        if scale is None:
            scale = 1.0 if _computes_in_unit_range(model.network) else 1000.0
        for key, bank in model.activations.items():
            assert isinstance(bank, QuantizerBank) and isinstance(bank.selector, ContentBits)
            known = started(lesson.start, key)
            alpha = float(known.alpha.detach())
            own = {w: SymmetricQuantizer(alpha, w, signed=known.signed) for w in self.candidates}
            bank.selector.gradient_scale.fill_(scale)
            model.add_activation(key, QuantizerBank(own, bank.selector).learnable())
        self.distil(model, lesson, teacher=lesson.start)

    def distil(self, model: QuantizedModel, lesson: Lesson, *, teacher: nn.Module) -> None:
        """Train with attention transfer from all blocks of `teacher`."""
        rates = {"selectors": self.selector_rate(model.network)}
        self.train(model, lesson, teacher=teacher, features=self.compared(model), rates=rates)

    def criterion(self, network: nn.Module) -> Callable[[Answer], Tensor]:
        """The loss above."""
        return ContentLoss(
            self.transfer, self.block_transfer, self.bit_weight, self.bit_growth, channel_axis(network)
        )

    def compared(self, model: QuantizedModel) -> tuple[str, ...]:
        """All residual blocks, if they are known."""
        from sqlib.fit.features import find_taps

        return find_taps(model.network, self.features, None).names or self.tapped(model)

    def selector_rate(self, network: nn.Module) -> float:
        """As given, else as published for this network."""
        return self.selector_learning_rate or (1e-3 if _computes_in_unit_range(network) else 1e-4)


_COMMON = (
    "batch", "learning_rate", "bound_learning_rate", "features", "unquantized", "guard", "precision", "seed"
)  # fmt: skip


@dataclass(frozen=True)
class ContentLoss:
    """The loss above.

    Attributes
    ----------
    transfer, block_transfer : float
        Lambda of the last block, and of each.
    bit_weight, bit_growth : float
        w_0 and w_1.
    axis : int or None
        Channel axis of the features; None: by their dimensions.
    """

    transfer: float
    block_transfer: float
    bit_weight: float
    bit_growth: float
    axis: int | None = None
    needs_taught: ClassVar[bool] = False

    def __call__(self, answer: Answer) -> Tensor:
        from sqlib.fit.distillation.loss import attention_transfer

        loss = 255 * (answer.output.float() - answer.target.float()).abs().mean()
        pairs = zip(answer.teacher_features, answer.features, strict=True)
        transfers = [attention_transfer(a.float(), b.float(), self.axis) for a, b in pairs]
        if transfers:
            loss = loss + self.transfer * transfers[-1] + self.block_transfer * sum(transfers)
        weight = self.bit_weight + self.bit_growth * (answer.step // EPOCH)
        return loss + weight * sum(map(bits_used, answer.passes)) if weight else loss


def bits_used(context: Context) -> Tensor:
    """Sum over layers and samples of the width chosen, over the expected one; its gradient is d log b."""
    import torch

    from sqlib.quantizers.content_bits import SHARES

    total = torch.zeros(())
    for selector, shares in context.data.get(SHARES, {}).items():
        widths = torch.tensor(selector.candidates, dtype=shares.dtype, device=shares.device)
        expected = (shares * widths).sum(1)
        chosen = widths[shares.argmax(1)]
        total = total.to(shares) + ((chosen + expected - expected.detach()) / expected.detach()).sum()
    return total


class _Channels:
    """Observer that finds out how many channels an operand has, for the selector of its bank."""

    passes = 1

    def __init__(self, site: Site, candidates: tuple[int, ...]) -> None:
        from sqlib.quantizers.content_bits import operand_channel_axis

        self.candidates = candidates
        self.axis = operand_channel_axis(site.op)
        self.channels = 1

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch."""
        if self.axis is not None:
            self.channels = x.shape[self.axis]

    def finish(self) -> nn.Module:
        """A bank that has no bounds of its own yet."""
        from sqlib.quantizers import ContentBits, QuantizerBank, SymmetricQuantizer

        selector = ContentBits(self.candidates, self.channels, channel_axis=self.axis)
        return QuantizerBank({w: SymmetricQuantizer(1.0, w) for w in self.candidates}, selector)


def started(start: QuantizedModel, key: str) -> Any:
    """The quantizer that the start has for an activation."""
    known = start.activations._modules.get(key)
    if known is None:
        raise InputError(
            f"start has no quantizer for the activation {key.replace('/', '.')!r}: make it with the same "
            "skip=, and calibration data of the same kind"
        )
    return known


def _computes_in_unit_range(network: nn.Module) -> bool:
    """Whether a network subtracts a mean color from images in 0..1."""
    return any(getattr(module, "rgb_range", None) == 1.0 for module in network.modules())
