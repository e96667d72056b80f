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
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sqlib.codebook.bounds import Bounds
from sqlib.engine.batches import arguments
from sqlib.engine.ops import Op, Operand
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer
from sqlib.engine.weights import Names, sqnr_db
from sqlib.errors import InputError
from sqlib.fit.compensation.moments import Layer, Moments, conv2d_layer
from sqlib.fit.compensation.rows import fit_compensated, fit_nearest, retarget
from sqlib.quantizers.rounded import RoundedWeight

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

_OPS = ("conv2d", "linear")


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
    model
        Calibrated; in evaluation mode. Its activation quantizers stay as they are.
    data
        The calibration batches.
    options
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
        wanted = _Wanted(model, _shares(options.positions, batches))
        _run(model, wanted, batches)
        seen = dict(wanted.estimates)
        rounds = options.repeats if seen else 1  # once, if every weight is used once
        for left in reversed(range(rounds)):
            if len(batches) == 1:
                _run(model, _OnSight(model, options, wanted, seen), batches)
                continue
            for key in wanted.order():
                one = _One(model, options, wanted, seen, key)
                _run(model, one, batches)
                one.solve()
                for number in range(len(batches)):  # of no more use, and large
                    seen.pop((wanted.first.get((key, number), ""), number), None)
            if left:
                _run(model, _Later(model, options, wanted, seen), batches)
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


class _Done(BaseException):
    """The pass has seen what it came for. No `Exception`, which a network may catch."""


class _LayerTracer(Tracer):
    """Also shows its handler the whole call, and what came out."""

    handler: _Layers

    def _product(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.handler.call = (args, kwargs)
        out = super()._product(op, func, args, kwargs)
        self.handler.output(out)
        return out


def _run(model: QuantizedModel, handler: _Layers, batches: list[Any]) -> None:
    """One pass over the data."""
    for number, batch in enumerate(batches):
        args, kwargs = arguments(batch, model.network)
        handler.number, handler.remaining = number, set(handler.names)
        try:
            with _LayerTracer(model.network, handler).running():
                model.network(*args, **kwargs)
        except _Done:
            continue


class _Layers:
    """What all passes have in common: they follow the calls and stop after the last layer of interest.

    `limits` are the numbers of positions sampled from a feature map, by batch.
    """

    def __init__(self, model: QuantizedModel, limits: list[int]) -> None:
        self.model, self.limits = model, limits
        self.names = {s.name for s in model.sites.values() if _fits(model, s)}
        self.remaining: set[str] = set()
        self.number = 0
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.site: Site | None = None
        self.input: Tensor | None = None

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        self.site = self.model.sites.get(name) or make()
        return self.site

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if operand.role == "input":
            self.input = value
        return value

    def output(self, out: Tensor) -> None:
        """Called with the result of every product."""
        site, self.site = self.site, None
        if site is None or site.name not in self.remaining:
            return
        self.leave(site, out)
        self.remaining.discard(site.name)
        if not self.remaining:
            raise _Done

    def leave(self, site: Site, out: Tensor) -> None:
        """A layer of interest has run."""

    def layer(self, site: Site) -> Layer:
        """How the present call arranges its inputs."""
        return Layer() if site.op == "linear" else conv2d_layer(*self.call[0], **self.call[1])

    def bias(self) -> Tensor | None:
        """The bias of the present call."""
        args, kwargs = self.call
        found = args[2] if len(args) > 2 else kwargs.get("bias")
        return found if isinstance(found, Tensor) else None

    def moments(self, site: Site, x: Tensor, wanted: Tensor) -> Moments:
        """Of the inputs `x` of the present call and its wanted outputs."""
        columns = self.layer(site).columns(x, self.limits[self.number], draw=self.number)
        return Moments.of(columns, wanted)


def _fits(model: QuantizedModel, site: Site) -> bool:
    key = site.weight_key
    known = key is not None and model.weight_quantizer(key) is not None
    return known and site.active and site.op in _OPS and site.weight_role == "weight" and site.calls > 0


class _Wanted(_Layers):
    """Full-precision pass.

    Attributes
    ----------
    outputs
        Sampled outputs by (call site, batch).
    uses
        Call sites of each weight.
    first
        The first of them in a batch, by (weight, batch).
    estimates
        Moments by (call site, batch) for the later uses of a weight.
    biases
        The bias of every call site, and its name where it is a parameter.
    biased
        The weights that each bias goes with.
    """

    def __init__(self, model: QuantizedModel, limits: list[int]) -> None:
        super().__init__(model, limits)
        self.parameters = Names(model.network)
        self.outputs: dict[tuple[str, int], Tensor] = {}
        self.uses: dict[str, set[str]] = defaultdict(set)
        self.first: dict[tuple[str, int], str] = {}
        self.estimates: dict[tuple[str, int], Moments] = {}
        self.biases: dict[str, tuple[str | None, Tensor | None]] = {}
        self.biased: dict[str | None, set[str]] = defaultdict(set)

    def leave(self, site: Site, out: Tensor) -> None:
        key, at = str(site.weight_key), (site.name, self.number)
        self.outputs[at] = self.layer(site).outputs(out, self.limits[self.number], draw=self.number).clone()
        bias = self.bias()
        name = None if bias is None else self.parameters.find(bias)
        self.biases[site.name] = name, bias
        self.biased[name].add(key)
        self.uses[key].add(site.name)
        if site.name != self.first.setdefault((key, self.number), site.name) and self.input is not None:
            quantizer = self.model.activation_quantizer(site, "input")
            x = self.input if quantizer is None else quantizer(self.input)
            self.estimates[at] = self.moments(site, x, self.outputs[at])

    def order(self) -> list[str]:
        """Weights in the order of their first uses, in all batches; as they came, if these contradict."""
        before: dict[str, list[str]] = {key: [] for key, _ in self.first}
        for (one, number), (other, same) in pairwise(self.first):
            if number == same:
                before[other].append(one)
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError:
            return list(before)

    def free(self, key: str) -> bool:
        """Whether all uses of a weight share one bias, a parameter that goes with no other weight."""
        names = {self.biases[site][0] for site in self.uses[key]}
        return names != {None} and len(names) == 1 and self.biased[names.pop()] == {key}

    def about_bias(self, site: str, moments: Moments) -> Moments:
        """`moments` of a call site about its bias, which is to stay as it is."""
        bias = self.biases[site][1]
        return moments.about(torch.zeros(()) if bias is None else bias)


class _Quantized(_Layers, ABC):
    """Pass through the quantized network as far as it is fitted; subclasses say what to do on the way.

    Attributes
    ----------
    seen
        Moments by (call site, batch): quantized inputs and wanted outputs.
    """

    def __init__(
        self,
        model: QuantizedModel,
        options: Options,
        wanted: _Wanted,
        seen: dict[tuple[str, int], Moments],
    ) -> None:
        super().__init__(model, wanted.limits)
        self.options, self.wanted, self.seen = options, wanted, seen

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
            self.reach(site, key, value)
        quantizer = self.model.weight_quantizer(key)
        return value if quantizer is None else quantizer(value)  # type: ignore[no-any-return]

    @abstractmethod
    def reach(self, site: Site, key: str, weight: Tensor) -> None:
        """A layer of interest is about to run; its input is there."""

    def look(self, site: Site) -> bool:
        """Take the moments of the present call; False if the full-precision pass did not come here."""
        at = (site.name, self.number)
        if self.input is None or at not in self.wanted.outputs:
            return False
        self.seen[at] = self.moments(site, self.input, self.wanted.outputs[at])
        return True

    def _solver(self, site: Site, weight: Tensor) -> Callable[[], None]:
        key, layer, bias = str(site.weight_key), self.layer(site), self.bias()

        def solve() -> None:
            uses = self.wanted.uses[key]
            found = {at: m for at, m in self.seen.items() if at[0] in uses}
            free = self.options.correct_bias and self.wanted.free(key)
            if not free:
                found = {at: self.wanted.about_bias(at[0], m) for at, m in found.items()}
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

    def reach(self, site: Site, key: str, weight: Tensor) -> None:
        if self.look(site) and key not in self.fitted:
            self._solver(site, weight)()
            self.fitted.add(key)


class _One(_Quantized):
    """Takes the moments of one weight at its first use in every batch, and goes no further."""

    def __init__(self, *args: Any) -> None:
        *rest, self.key = args
        super().__init__(*rest)
        self.solve: Callable[[], None] = lambda: None  # until a batch gets there

    def reach(self, site: Site, key: str, weight: Tensor) -> None:
        if key == self.key and self.look(site):
            self.solve = self._solver(site, weight)
            raise _Done


class _Later(_Quantized):
    """Looks at the later uses of every weight, for the next round."""

    def reach(self, site: Site, key: str, weight: Tensor) -> None:
        if site.name != self.wanted.first.get((key, self.number)):
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
        # One ridge for both: then rounding what was re-targeted is rounding what was wanted (chapter 7).
        fitted = fit_compensated(part, gram, bits, damping=options.ridge) if options.compensate else None
        parts.append(fitted or fit_nearest(part, bits))
    lower, upper, error = (
        np.concatenate([getattr(b, k) for b, _ in parts]) for k in ("lower", "upper", "error")
    )
    bounds = Bounds(lower, upper, bits, error, parts[0][0].method, axis=0)
    return bounds, np.concatenate([codes for _, codes in parts])
