"""Calibration: find the call sites, decide which to quantize, stream the data past the recipe's observers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib.engine import ops
from sqlib.engine import skip as rules
from sqlib.engine.batches import arguments, described, tensors
from sqlib.engine.escaped import THREAD, Escaped
from sqlib.engine.flow import Flow, Upsampler
from sqlib.engine.ops import Operand
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.site import Site
from sqlib.engine.tracing import Elsewhere, Tracer
from sqlib.engine.weights import Names, noise_db
from sqlib.errors import InputError

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

COMPUTED = "(computed)"


def _place(site: Site) -> str:
    return f"{site.op} in {site.module!r}" if site.module else f"{site.op} in the network itself"


class Discovery:
    """Handler of the first pass over one batch: which sites exist, and in which order."""

    def __init__(self, sites: dict[str, Site], names: Names) -> None:
        self.sites, self.names = sites, names

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        """Add the site; two kinds of calls under one name would share quantizers."""
        known = self.sites.get(name)
        if known is None:
            known = make()
            known.order = len(self.sites)
            self.sites[name] = known
        elif known.rule != THREAD:
            other = make()
            if (other.module, other.op) != (known.module, known.op):
                raise InputError(
                    f"two calls would have the name {name!r}: {_place(known)} and {_place(other)}; give the "
                    "module another name, or put one of the calls into a module of its own"
                )
        return known

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        """Recognize weights; a constant of the network in another place than a weight's is one, too."""
        name = self.names.find(value)
        if operand.role == "weight" or (name is not None and operand.role != "input" and not site.weight):
            site.weight = name or COMPUTED
            site.weight_role = operand.role
            site.weight_shape = tuple(value.shape)
            axis = operand.weight_axis
            site.weight_axis = None if axis is None or value.ndim < 2 else axis % value.ndim
        return value

    def elsewhere(self, path: str, module: nn.Module) -> None:
        """Add a module that another thread runs, if it has weights."""
        if any(p.ndim > 1 for p in module.parameters(recurse=False)):
            name = f"{path}.thread" if path in self.sites else path
            kind, op = type(module).__name__, type(module).__name__.lower()
            self.enter(name, lambda: Site(name, name, path, kind, op, -1, 0, supported=False, rule=THREAD))


class Observation(Discovery):
    """Handler of the calibration passes: fits weights on sight and feeds the observers."""

    def __init__(
        self,
        model: QuantizedModel,
        recipe: Recipe,
        names: Names,
        decide: Callable[[Site], None],
        unquantized: Sequence[str],
    ) -> None:
        super().__init__(model.sites, names)
        self.model, self.recipe, self.decide = model, recipe, decide
        self.unquantized = unquantized
        self.observers: dict[str, Observer] = {}
        self.weights: dict[str, Tensor] = {}
        self.changing: set[str] = set()
        self.number = 0

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        """Count the call; decide a site that no earlier batch reached."""
        new = name not in self.sites
        site = super().enter(name, make)
        if new:
            self.decide(site)
        if self.number == 0:
            site.calls += 1
        return site

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        """Observe an activation, or fit the quantizer of a weight when it is first seen."""
        if site.weight_shape is None:
            super().operand(site, operand, value)
        if not site.active:
            return value
        with self._at(site, operand.role):
            if operand.role == site.weight_role:
                self._weight(site, operand, value)
            else:
                self._activation(site, operand.role, value)
        return value

    @contextmanager
    def _at(self, site: Site, role: str) -> Iterator[None]:
        """What goes wrong inside is the recipe's, not the network's, and names the operand."""
        try:
            yield
        except InputError as error:
            raise InputError(f"call site {site.name!r} ({site.op}, {role}): {error}") from error
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise InputError(
                f"call site {site.name!r} ({site.op}, {role}): the recipe {type(self.recipe).__name__} "
                f"cannot take it: {type(error).__name__}: {error}"
            ) from error

    def _weight(self, site: Site, operand: Operand, value: Tensor) -> None:
        computed = site.weight == COMPUTED
        if computed:
            # The same at every call (weight normalization), or made from the input (dynamic convolution)?
            # Watch it both ways until the passes are over.
            self._activation(site, operand.role, value)
            seen = self.weights.setdefault(site.name, value.detach().clone())
            if seen.shape != value.shape or not torch.equal(seen, value):
                self.changing.add(site.name)
        elif (met := self.names.find(value)) != site.weight:
            raise InputError(
                f"it multiplies by {site.weight!r} in one pass and by {met or 'a computed weight'!r} in "
                "another; give each weight a call in a module of its own"
            )
        if site.weight_key is not None:
            return
        key = f"{site.name}:weight" if computed else f"{site.weight}|{site.weight_axis}"
        site.weight_key = key
        if key not in self.model.weight_keys:
            self.model.add_weight(key, self.recipe.quantize_weight(value, site))
        quantizer = self.model.weight_quantizer(key)
        if quantizer is not None:
            site.weight_sqnr_db = noise_db(value, quantizer)

    def _activation(self, site: Site, role: str, value: Tensor) -> None:
        if role not in site.activation_keys:
            left = any(fnmatchcase(f"{site.name}:{role}", pattern) for pattern in self.unquantized)
            observer = None if left else self.recipe.observe(site, role)
            if observer is None:
                return
            site.activation_keys[role] = f"{site.name}:{role}"
            self.observers[site.activation_keys[role]] = observer
        observer = self.observers[site.activation_keys[role]]
        if self.number < observer.passes:
            observer.update(value.detach(), self.number)

    def finish(self) -> None:
        """Turn observers into quantizers; settle what the computed weights are."""
        for site in self.sites.values():
            if site.active and not site.calls:
                site.active, site.rule = False, "not quantized: called in the first pass only"
            if site.weight == COMPUTED and site.active and site.weight_role is not None:
                if site.name in self.changing:
                    if site.weight_key is not None:
                        self.model.drop_weight(site.weight_key)
                    site.weight, site.weight_role, site.weight_key, site.weight_sqnr_db = (
                        None,
                        None,
                        None,
                        None,
                    )
                    site.rule = "quantized; weight depends on the input: treated as an activation"
                else:
                    key = site.activation_keys.pop(site.weight_role, None)
                    self.observers.pop(key or "", None)
            for role, key in site.activation_keys.items():
                with self._at(site, role):
                    self.model.add_activation(key, self.observers[key].finish())


def calibrate(
    model: QuantizedModel,
    recipe: Recipe,
    data: Sequence[Any],
    skip: Sequence[str] | None,
    elsewhere: Elsewhere,
) -> None:
    """Fill `model` with sites and quantizers. The network must be in evaluation mode."""
    network, sites = model.network, model.sites
    names = Names(network)
    args, kwargs = arguments(data[0], network)
    discovery = Discovery(sites, names)
    elsewhere.tell = discovery.elsewhere
    try:
        with recipe.watching():
            upsampler = _discover(network, discovery, args, kwargs)
    finally:
        elsewhere.tell = None
    found = list(sites.values())
    if not any(s.supported for s in found):
        raise InputError(
            f"the network {type(network).__name__} made no call that can be quantized (convolution, linear, "
            f"matrix product); calls seen: {', '.join(s.op for s in found) or 'none'}"
        )
    patterns, source = skip, "skip"
    unquantized = recipe.unquantized_in(network)
    if patterns is not None:
        rules.require_matches(found, patterns)
    elif getattr(network, "default_skip", None) is not None:
        sites_left = [pattern for pattern in unquantized if ":" not in pattern]
        patterns, source = (*rules.check_patterns(network.default_skip), *sites_left), "network default"
    if patterns is not None:
        rules.apply_patterns(found, patterns, source)
    else:
        rules.apply_default(found, upsampler)

    def decide(site: Site) -> None:
        rules.apply_like(site, sites.values(), patterns, source)

    observation = Observation(model, recipe, names, decide, unquantized)
    passes = 1
    while observation.number < passes:
        with recipe.watching():
            for number, batch in enumerate(data):
                _run(network, observation, *arguments(batch, network), number)
        observation.number += 1
        passes = max([1, *(o.passes for o in observation.observers.values())])
    observation.finish()


def _discover(
    network: nn.Module, handler: Discovery, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Upsampler | None:
    """The first pass: everything that happens, and where the upsampler begins."""
    tracer = Tracer(network, handler)
    flow = Flow(tracer, handler.sites)
    with (
        _described(network, args, kwargs, 0),
        ops.eagerly(),
        torch.no_grad(),
        tracer.running(),
        Escaped(tracer),
        flow,
    ):
        out = network(*args, **kwargs)
    return flow.upsampler(out)


def _run(
    network: nn.Module, handler: Discovery, args: tuple[Any, ...], kwargs: dict[str, Any], number: int
) -> None:
    """One batch through the network."""
    with _described(network, args, kwargs, number), torch.no_grad(), Tracer(network, handler).running():
        network(*args, **kwargs)


@contextmanager
def _described(
    network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], number: int
) -> Iterator[None]:
    """What goes wrong inside names the batch."""
    try:
        yield
    except InputError as error:
        raise InputError(f"calibration batch {number}: {error}") from error
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # shapes and types that do not fit
        shapes = ", ".join(described(t) for t in tensors([*args, *kwargs.values()]))
        raise InputError(
            f"calibration batch {number} ({shapes}): the network {type(network).__name__} cannot run on it, "
            f"expected tensors that it takes: {error}"
        ) from error
