"""Passes over the calibration data that follow the layers to be fitted; the first takes the targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sqlib.engine.batches import arguments
from sqlib.engine.ops import Op, Operand
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer
from sqlib.engine.weights import Names
from sqlib.fit.compensation.moments import Layer, Moments, conv2d_layer

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

_OPS = ("conv2d", "linear")


class Done(BaseException):
    """The pass has seen what it came for. No `Exception`, which a network may catch."""


class _LayerTracer(Tracer):
    """Also shows its handler the whole call, and what came out."""

    handler: Layers

    def _product(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.handler.call = (args, kwargs)
        out = super()._product(op, func, args, kwargs)
        self.handler.output(out)
        return out


def run(model: QuantizedModel, handler: Layers, batches: list[Any]) -> None:
    """One pass over the data."""
    for number, batch in enumerate(batches):
        args, kwargs = arguments(batch, model.network)
        handler.number, handler.remaining = number, set(handler.names)
        try:
            with _LayerTracer(model.network, handler).running():
                model.network(*args, **kwargs)
        except Done:
            continue


class Layers:
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
        self.after(site, out)
        self.remaining.discard(site.name)
        if not self.remaining:
            raise Done

    def after(self, site: Site, out: Tensor) -> None:
        """A layer of interest has run."""

    def layer(self, site: Site) -> Layer:
        """How the present call arranges its inputs."""
        return Layer() if site.op == "linear" else conv2d_layer(*self.call[0], **self.call[1])

    def bias(self) -> Tensor | None:
        """The bias of the present call."""
        args, kwargs = self.call
        found = args[2] if len(args) > 2 else kwargs.get("bias")
        return found if isinstance(found, Tensor) else None

    def moments(self, site: Site, x: Tensor, targets: Tensor) -> Moments:
        """Of the inputs `x` of the present call and its target outputs."""
        columns = self.layer(site).columns(x, self.limits[self.number], draw=self.number)
        return Moments.of(columns, targets)


def _fits(model: QuantizedModel, site: Site) -> bool:
    key = site.weight_key
    known = key is not None and model.weight_quantizer(key) is not None
    return known and site.active and site.op in _OPS and site.weight_role == "weight" and site.calls > 0


class Targets(Layers):
    """Full-precision pass.

    Attributes
    ----------
    outputs : dict of tuple (str, int) to Tensor
        Sampled outputs by (call site, batch).
    uses : dict of str to set of str
        Call sites of each weight.
    first : dict of tuple (str, int) to str
        The first of them in a batch, by (weight, batch).
    estimates : dict of tuple (str, int) to Moments
        Moments by (call site, batch) for the later uses of a weight.
    biases : dict of str to tuple (str or None, Tensor or None)
        The bias of every call site, and its name where it is a parameter.
    biased : dict of str or None to set of str
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

    def after(self, site: Site, out: Tensor) -> None:
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
