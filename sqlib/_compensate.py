"""Give a quantized network weights that make up for the rounding of weights and inputs, layer by layer.

Every layer is fitted to give, from the quantized inputs that reach it behind an already quantized prefix, the
outputs it gave in full precision. One pass records those outputs; then one pass over all calibration data
goes through the network and fits each layer when it gets there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sqlib._calibrate import arguments
from sqlib._moments import Layer, Moments, conv2d_layer
from sqlib._ops import Op, Operand
from sqlib._sites import Site, Tracer
from sqlib._weights import Names, sqnr_db
from sqlib.codebook.bounds import Bounds
from sqlib.codebook.compensation import fit_compensated, fit_nearest, retarget
from sqlib.errors import InputError
from sqlib.quantizers.rounded import RoundedWeight

if TYPE_CHECKING:
    from sqlib.quantize import QuantizedModel
    from sqlib.recipes.compensated import CompensatedDFSQ

_OPS = ("conv2d", "linear")


def compensate_weights(model: QuantizedModel, data: Iterable[Any], recipe: CompensatedDFSQ) -> None:
    """Replace the weight quantizers of `model` by fitted ones, and set biases, in place.

    Parameters
    ----------
    model
        Calibrated; in evaluation mode. Its activation quantizers stay as they are.
    data
        The calibration batches.
    recipe
        Options.

    Raises
    ------
    InputError
        For activations that are not finite; the message names the call site.

    Notes
    -----
    A weight that is used at several call sites is fitted where it is first used, on the sum over its uses.
    What the later ones will see is taken from the full-precision pass at first, and from the pass before in
    the next of ``recipe.repeats`` passes.
    """
    batches = _joined(data)
    with torch.no_grad():
        wanted = _Wanted(model, recipe)
        for number, batch in enumerate(batches):
            _run(model, wanted, batch, number)
        fit = _Fit(model, recipe, wanted)
        again = len(batches) > 1 or any(len(sites) > 1 for sites in wanted.uses.values())
        for _ in range(recipe.repeats if again else 1):
            fit.begin(on_sight=len(batches) == 1)
            for number, batch in enumerate(batches):
                _run(model, fit, batch, number)
            fit.end()
    model.refresh()


def _joined(data: Iterable[Any]) -> list[Any]:
    """All batches as one, where they are images of one size: of these the first axis is samples for sure."""
    batches = list(data)
    if all(isinstance(b, Tensor) and b.ndim == 4 and b.shape[1:] == batches[0].shape[1:] for b in batches):
        return [torch.cat(batches)]
    return batches


class _Done(Exception):
    """Every layer that can be fitted has run."""


class _LayerTracer(Tracer):
    """Also shows its handler the whole call, and what came out."""

    handler: _Layers

    def _product(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.handler.call = (args, kwargs)
        out = super()._product(op, func, args, kwargs)
        self.handler.output(out)
        return out


def _run(model: QuantizedModel, handler: _Layers, batch: Any, number: int) -> None:
    args, kwargs = arguments(batch, model.network)
    handler.number, handler.remaining = number, set(handler.names)
    try:
        with _LayerTracer(model.network, handler).running():
            model.network(*args, **kwargs)
    except _Done:
        pass


class _Layers:
    """What both passes have in common: they follow the calls and stop after the last layer of interest."""

    def __init__(self, model: QuantizedModel, recipe: CompensatedDFSQ) -> None:
        self.model, self.recipe = model, recipe
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

    def upsampled(self, width: int, site: Site | None) -> None:
        """Of no interest here."""

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
        columns = self.layer(site).columns(x, self.recipe.positions)
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
    estimates
        Moments by (call site, batch) for the later uses of a weight.
    biased
        The weights that each bias goes with.
    """

    def __init__(self, model: QuantizedModel, recipe: CompensatedDFSQ) -> None:
        super().__init__(model, recipe)
        self.parameters = Names(model.network)
        self.outputs: dict[tuple[str, int], Tensor] = {}
        self.uses: dict[str, list[str]] = defaultdict(list)
        self.estimates: dict[tuple[str, int], Moments] = {}
        self.biased: dict[str, set[str]] = defaultdict(set)

    def leave(self, site: Site, out: Tensor) -> None:
        key, at = str(site.weight_key), (site.name, self.number)
        self.outputs[at] = self.layer(site).outputs(out, self.recipe.positions).clone()
        bias = self.bias()
        if bias is not None:
            self.biased[self.parameters.find(bias) or ""].add(key)
        if site.name not in self.uses[key]:
            self.uses[key].append(site.name)
        if site.name != self.uses[key][0] and self.input is not None:
            quantizer = self.model.activation_quantizer(site, "input")
            x = self.input if quantizer is None else quantizer(self.input)
            self.estimates[at] = self.moments(site, x, self.outputs[at])

    def free(self, key: str, bias: Tensor | None) -> bool:
        """Whether `bias` is a parameter of the network that goes with this weight alone."""
        name = None if bias is None else self.parameters.find(bias)
        return name is not None and self.biased[name] == {key}


class _Fit(_Layers):
    """Quantized pass: collects the moments of every layer and fits it, on sight or after the pass."""

    def __init__(self, model: QuantizedModel, recipe: CompensatedDFSQ, wanted: _Wanted) -> None:
        super().__init__(model, recipe)
        self.wanted = wanted
        self.seen = dict(wanted.estimates)
        self.on_sight = True
        self.fitted: set[str] = set()
        self.pending: dict[str, Callable[[], None]] = {}

    def begin(self, *, on_sight: bool) -> None:
        """A new pass over the data starts."""
        self.on_sight, self.fitted = on_sight, set()

    def end(self) -> None:
        """A pass is over."""
        for solve in self.pending.values():
            solve()
        self.pending.clear()

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if not site.active:
            return value
        if operand.role != site.weight_role:
            found = self.model.activation_quantizer(site, operand.role)
            return super().operand(site, operand, value if found is None else found(value))
        key = site.weight_key
        if key is None:
            return value
        if site.name in self.remaining and self.input is not None:
            at = (site.name, self.number)
            self.seen[at] = self.moments(site, self.input, self.wanted.outputs[at])
            if not self.on_sight:
                self.pending[key] = self._solver(site, value)
            elif key not in self.fitted:
                self._solver(site, value)()
                self.fitted.add(key)
        quantizer = self.model.weight_quantizer(key)
        return value if quantizer is None else quantizer(value)  # type: ignore[no-any-return]

    def _solver(self, site: Site, weight: Tensor) -> Callable[[], None]:
        key, layer, bias = str(site.weight_key), self.layer(site), self.bias()

        def solve() -> None:
            uses = set(self.wanted.uses[key])
            total = reduce(add, [m for (name, _), m in self.seen.items() if name in uses])
            free = self.recipe.correct_bias and self.wanted.free(key, bias)
            if not free:
                total = total.about(torch.zeros(()) if bias is None else bias)
            rows = layer.rows(weight.detach()).double().cpu().numpy()
            try:
                bits = int(self.model.weight_quantizer(key).bits)  # type: ignore[union-attr, arg-type]
                bounds, codes = _fit_rows(rows, total, bits, self.recipe)
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


def _fit_rows(
    rows: np.ndarray[Any, Any], moments: Moments, bits: int, recipe: CompensatedDFSQ
) -> tuple[Bounds, np.ndarray[Any, Any]]:
    """Bounds and codes of a layer's weights (outputs, columns), group by group."""
    parts, groups = [], len(moments.gram)
    cross = np.split(moments.cross.cpu().numpy(), groups)
    for part, target, gram in zip(np.split(rows, groups), cross, moments.gram.cpu().numpy()):
        if recipe.retarget:
            part = retarget(part, gram, target, ridge=recipe.ridge)
        fitted = fit_compensated(part, gram, bits) if recipe.compensate else None
        parts.append(fitted or fit_nearest(part, bits))
    lower, upper, error = (
        np.concatenate([getattr(b, k) for b, _ in parts]) for k in ("lower", "upper", "error")
    )
    bounds = Bounds(lower, upper, bits, error, parts[0][0].method, axis=0)
    return bounds, np.concatenate([codes for _, codes in parts])
