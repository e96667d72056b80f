"""A quantized network: the network's copy, its call sites and their fake-quantizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib._checks import FULL_PRECISION
from sqlib.engine import saving
from sqlib.engine.ops import Operand
from sqlib.engine.ranges import InputRange
from sqlib.engine.recipe import Recipe
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer
from sqlib.engine.weights import Cache, sqnr_db, trains
from sqlib.errors import InputError
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers._memory import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import pandas as pd

# What evaluation asks a network for; carried over from the network that was quantized.
CARRIED = ("scale", "name", "weights_id", "default_skip")


class QuantizedModel(nn.Module):
    """A network with fake-quantizers at its call sites; made by `quantize_model`, called like the network.

    Attributes
    ----------
    network
        The copy that runs; its parameters are the ones that train. Its weights are those of the argument in
        full precision, its biases may have been set by the recipe (`CompensatedDFSQ`): for comparisons and
        for another quantization take the network that was given.
    recipe
        The recipe it was made with.
    sites
        Call sites by name, in the order of their calls.
    input_range
        Range of the calibration inputs; an input in other units (0..255 for 0..1) warns, once.

    Notes
    -----
    ``state_dict`` holds the network's tensors and every quantizer's, with its bits and other settings, which
    are checked on loading. Quantized weights are computed once and again when a weight or its quantizer
    differs in any bit, however it was written. With gradients enabled they are recomputed in each pass,
    straight-through.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.sites: dict[str, Site] = {}
        self.activations = nn.ModuleDict()
        self.weights = nn.ModuleDict()
        self.weight_keys: set[str] = set()
        self._cache = Cache()
        self.input_range: InputRange | None = None
        for attribute in CARRIED:
            if hasattr(network, attribute):
                setattr(self, attribute, getattr(network, attribute))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.input_range is not None:
            self.input_range.check((args, kwargs))
        with Tracer(self.network, _Inference(self)).running():
            return self.network(*args, **kwargs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to one safetensors file, from which `sqlib.load_quantized` rebuilds it.

        Parameters
        ----------
        path
            One that is there is replaced, whatever interrupts: it is the old or the new.

        Raises
        ------
        InputError
            The place cannot be written to, or a quantizer or module cannot be saved; the message names it.
        DataError
            A full disk and the like.

        Notes
        -----
        In it are all parameters and buffers of `network`, the quantizers with all their state, the sites, the
        recipe and `input_range`, described by JSON in its header. Not in it are the network's code and what
        the recipe told of its work (``reconstruction``, ``distillation``).
        """
        saving.save(self, path, {name: getattr(self, name) for name in CARRIED if hasattr(self, name)})

    def refresh(self) -> None:
        """Give back the memory of the quantized weights; the next pass computes them again."""
        self._cache.clear()

    def add_weight(self, key: str, quantizer: nn.Module | None) -> None:
        """Register the quantizer of the weight `key`; None leaves it in full precision."""
        self.weight_keys.add(key)
        if quantizer is not None:
            self.weights[_module_key(key)] = quantizer

    def drop_weight(self, key: str) -> None:
        """Remove what `add_weight` registered."""
        self.weight_keys.discard(key)
        if _module_key(key) in self.weights:
            del self.weights[_module_key(key)]

    def add_activation(self, key: str, quantizer: nn.Module) -> None:
        """Register the quantizer of one activation operand."""
        self.activations[_module_key(key)] = quantizer

    def weight_quantizer(self, key: str) -> nn.Module | None:
        """The quantizer of a weight, or None."""
        return self.weights._modules.get(_module_key(key))

    def activation_quantizer(self, site: Site, role: str) -> nn.Module | None:
        """The quantizer of an operand of a call site, or None."""
        key = site.activation_keys.get(role)
        return None if key is None else self.activations._modules.get(_module_key(key))

    def report(self) -> pd.DataFrame:
        """One row per call site, in the order of the calls.

        Columns: site, op, module, module_type, weight, weight_shape, quantized, rule (why, or why not),
        weight_bits, activation_bits (32: full precision), weight_per, lower and upper (of the first
        activation operand), bounds (operand to (lower, upper), all of them), calls (in one pass over the
        calibration data), weight_sqnr_db.
        """
        import pandas as pd

        return pd.DataFrame([self._row(site) for site in self.sites.values()])

    def _row(self, site: Site) -> dict[str, Any]:
        weight = None if site.weight_key is None else self.weight_quantizer(site.weight_key)
        operands = {role: self.activation_quantizer(site, role) for role in site.activation_keys}
        bounds = {
            role: (float(q.lower.min()), float(q.upper.max()))
            for role, q in operands.items()
            if isinstance(q, UniformQuantizer)
        }
        lower, upper = next(iter(bounds.values()), (math.nan, math.nan))
        bits = [int(getattr(q, "bits", FULL_PRECISION)) for q in operands.values()]
        per = None if weight is None else ("tensor" if getattr(weight, "axis", None) is None else "channel")
        return {
            "site": site.name,
            "op": site.op,
            "module": site.module,
            "module_type": site.module_type,
            "weight": site.weight,
            "weight_shape": site.weight_shape,
            "quantized": site.active,
            "rule": site.rule,
            "weight_bits": int(getattr(weight, "bits", FULL_PRECISION)),
            "activation_bits": max(bits, default=FULL_PRECISION),
            "weight_per": per,
            "lower": lower,
            "upper": upper,
            "bounds": bounds,
            "calls": site.calls,
            "weight_sqnr_db": self._sqnr(site, weight),
        }

    def _sqnr(self, site: Site, quantizer: nn.Module | None) -> float:
        if quantizer is None or site.weight_sqnr_db is None:
            return math.nan
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        weight = tensors.get(site.weight or "")
        if weight is None:  # computed, or a view: as it was at calibration
            return site.weight_sqnr_db
        with torch.no_grad():
            return sqnr_db(weight, quantizer(weight.detach()))

    def extra_repr(self) -> str:
        active = sum(s.active for s in self.sites.values())
        return f"recipe={self.recipe}, {active} of {len(self.sites)} call sites quantized"


class _Inference:
    """Handler of a normal forward pass: every operand of an active site goes through its quantizer."""

    def __init__(self, model: QuantizedModel) -> None:
        self.model = model
        self.memory = Workspace()

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        site = self.model.sites.get(name)
        if site is not None:
            return site
        site = make()
        like = [s for s in self.model.sites.values() if s.base == site.base]
        if not site.supported or (like and not any(s.active for s in like)):
            return site
        raise InputError(
            f"call site {name!r} ({site.op}) was never reached during calibration, so it has no quantizer; "
            "calibrate with inputs that reach it, or name it in skip="
        )

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if not site.active:
            return value
        if operand.role == site.weight_role:
            key = site.weight_key
            quantizer = None if key is None else self.model.weight_quantizer(key)
            if key is None or quantizer is None:
                return value
            if site.weight == "(computed)" or trains(value, quantizer):
                return quantizer(value)  # type: ignore[no-any-return]
            return self.model._cache.fake(key, value, quantizer)
        found = self.model.activation_quantizer(site, operand.role)
        if found is None:
            return value
        if torch.is_grad_enabled():
            return found(value)  # type: ignore[no-any-return]
        with self.memory.lend(operand.role):  # the product that follows is all that reads the result
            return found(value)  # type: ignore[no-any-return]


def _module_key(key: str) -> str:
    return key.replace(".", "/")  # a module's name must not contain dots
