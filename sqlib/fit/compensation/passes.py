"""Give a quantized network weights that make up for the rounding of weights and inputs, layer by layer.

Every layer is fitted to give, from the quantized inputs that reach it behind an already quantized prefix, the
outputs it gave in full precision. One pass records those outputs. If the calibration data are one batch, one
more pass fits each layer when it gets there; if they are several, each layer takes a pass that stops at it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sqlib.codebook.bounds import Bounds
from sqlib.engine.ops import Operand
from sqlib.engine.site import Site
from sqlib.engine.weights import sqnr_db
from sqlib.errors import InputError
from sqlib.fit.compensation.layers import Done, Layers, Targets, run
from sqlib.fit.compensation.moments import Moments
from sqlib.fit.compensation.rows import fit_compensated, fit_nearest, retarget
from sqlib.quantizers.rounded import RoundedWeight

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


class Options(NamedTuple):
    """Which steps are taken, and how; see `sqlib.recipes.CompensatedDFSQ`."""

    retarget: bool
    compensate: bool
    correct_bias: bool
    positions: int
    ridge: float
    repeats: int


def compensate_weights(model: QuantizedModel, data: Iterable[Any], options: Options) -> None:
    """Replace the weight quantizers of `model` by fitted ones, and set biases, in place.

    Parameters
    ----------
    model : QuantizedModel
        Calibrated; in evaluation mode. Its activation quantizers stay as they are.
    data : iterable
        The calibration batches.
    options : Options
        Which steps are taken, and how.

    Raises
    ------
    InputError
        For activations that are not finite; the message names the call site.

    Notes
    -----
    A weight that is used at several call sites is fitted where it is first used, on the sum over its uses.
    What the later ones will see is taken from the full-precision pass at first, and from the round before in
    the next of ``options.repeats`` rounds.
    """
    batches = _joined(data)
    with torch.no_grad():
        targets = Targets(model, _shares(options.positions, batches))
        run(model, targets, batches)
        seen = dict(targets.estimates)
        rounds = options.repeats if seen else 1  # once, if every weight is used once
        for left in reversed(range(rounds)):
            if len(batches) == 1:
                run(model, _OnSight(model, options, targets, seen), batches)
                continue
            for key in targets.order():
                one = _One(model, options, targets, seen, key)
                run(model, one, batches)
                one.solve()
                for number in range(len(batches)):  # of no more use, and large
                    seen.pop((targets.first.get((key, number), ""), number), None)
            if left:
                run(model, _Later(model, options, targets, seen), batches)
    model.refresh()


def _joined(data: Iterable[Any]) -> list[Any]:
    """Images of one size as one batch: of these the first axis is samples for sure."""
    batches, sizes = [], defaultdict[Any, list[Tensor]](list)
    for batch in data:
        if isinstance(batch, Tensor) and batch.ndim == 4:
            sizes[batch.shape[1:], batch.dtype, batch.device].append(batch)
        else:
            batches.append(batch)
    return [torch.cat(alike) for alike in sizes.values()] + batches


def _shares(positions: int, batches: list[Any]) -> list[int]:
    """How many of `positions` each batch may have, in proportion to its size."""
    sizes = [_size(batch) for batch in batches]
    return [math.ceil(positions * size / sum(sizes)) for size in sizes]


def _size(batch: Any) -> int:
    """Number of values in the tensors of a batch."""
    if isinstance(batch, Tensor):
        return batch.numel()
    values = batch.values() if isinstance(batch, dict) else batch
    return sum(_size(v) for v in values if isinstance(v, (Tensor, list, tuple))) or 1


class _Quantized(Layers, ABC):
    """Pass through the quantized network as far as it is fitted; subclasses say what to do on the way.

    Attributes
    ----------
    seen : dict of tuple (str, int) to Moments
        Moments by (call site, batch): quantized inputs and target outputs.
    """

    def __init__(
        self,
        model: QuantizedModel,
        options: Options,
        targets: Targets,
        seen: dict[tuple[str, int], Moments],
    ) -> None:
        super().__init__(model, targets.limits)
        self.options, self.targets, self.seen = options, targets, seen

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if not site.active:
            return value
        if operand.role != site.weight_role:
            found = self.model.activation_quantizer(site, operand.role)
            return super().operand(site, operand, value if found is None else found(value))
        key = site.weight_key
        if key is None:
            return value
        if site.name in self.remaining:
            self.before(site, key, value)
        quantizer = self.model.weight_quantizer(key)
        return value if quantizer is None else quantizer(value)  # type: ignore[no-any-return]

    @abstractmethod
    def before(self, site: Site, key: str, weight: Tensor) -> None:
        """A layer of interest is about to run; its input is there."""

    def look(self, site: Site) -> bool:
        """Take the moments of the present call; False if the full-precision pass did not come here."""
        at = (site.name, self.number)
        if self.input is None or at not in self.targets.outputs:
            return False
        self.seen[at] = self.moments(site, self.input, self.targets.outputs[at])
        return True

    def _solver(self, site: Site, weight: Tensor) -> Callable[[], None]:
        key, layer, bias = str(site.weight_key), self.layer(site), self.bias()

        def solve() -> None:
            uses = self.targets.uses[key]
            found = {at: m for at, m in self.seen.items() if at[0] in uses}
            free = self.options.correct_bias and self.targets.free(key)
            if not free:
                found = {at: self.targets.about_bias(at[0], m) for at, m in found.items()}
            total = reduce(add, found.values())
            rows = layer.rows(weight.detach()).double().cpu().numpy()
            try:
                bits = int(self.model.weight_quantizer(key).bits)  # type: ignore[union-attr, arg-type]
                bounds, codes = _fit_rows(rows, total, bits, self.options)
            except InputError as error:
                raise InputError(f"call site {site.name!r} ({site.op}, weight): {error}") from error
            stored = layer.weight(torch.from_numpy(codes), weight)
            quantizer = RoundedWeight(bounds, stored).to(weight.device)
            self.model.add_weight(key, quantizer)
            for name in uses:
                self.model.sites[name].weight_sqnr_db = sqnr_db(weight, quantizer(weight))
            if free and bias is not None:
                final = layer.rows(quantizer.fake(weight.detach().double()))
                means = total.inputs.repeat_interleave(len(final) // len(total.inputs), dim=0)
                bias.copy_(total.outputs - (final * means).sum(dim=1))

        return solve


class _OnSight(_Quantized):
    """Fits every weight where it is first used, and looks at the later uses for the next round."""

    fitted: set[str]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fitted = set()

    def before(self, site: Site, key: str, weight: Tensor) -> None:
        if self.look(site) and key not in self.fitted:
            self._solver(site, weight)()
            self.fitted.add(key)


class _One(_Quantized):
    """Takes the moments of one weight at its first use in every batch, and goes no further."""

    def __init__(self, *args: Any) -> None:
        *rest, self.key = args
        super().__init__(*rest)
        self.solve: Callable[[], None] = lambda: None  # until a batch gets there

    def before(self, site: Site, key: str, weight: Tensor) -> None:
        if key == self.key and self.look(site):
            self.solve = self._solver(site, weight)
            raise Done


class _Later(_Quantized):
    """Looks at the later uses of every weight, for the next round."""

    def before(self, site: Site, key: str, weight: Tensor) -> None:
        if site.name != self.targets.first.get((key, self.number)):
            self.look(site)


def _fit_rows(
    rows: np.ndarray[Any, Any], moments: Moments, bits: int, options: Options
) -> tuple[Bounds, np.ndarray[Any, Any]]:
    """Bounds and codes of a layer's weights (outputs, columns), group by group."""
    parts, groups = [], len(moments.gram)
    cross = np.split(moments.cross.cpu().numpy(), groups)
    for part, target, gram in zip(np.split(rows, groups), cross, moments.gram.cpu().numpy()):
        if options.retarget:
            part = retarget(part, gram, target, ridge=options.ridge)
        # One ridge for both: then rounding what was re-targeted is rounding towards the target (chapter 7).
        fitted = fit_compensated(part, gram, bits, damping=options.ridge) if options.compensate else None
        parts.append(fitted or fit_nearest(part, bits))
    lower, upper, error = (
        np.concatenate([getattr(b, k) for b, _ in parts]) for k in ("lower", "upper", "error")
    )
    bounds = Bounds(lower, upper, bits, error, parts[0][0].method, axis=0)
    return bounds, np.concatenate([codes for _, codes in parts])
