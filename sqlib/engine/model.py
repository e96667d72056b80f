"""A quantized network: the network's copy, its call sites and their fake-quantizers."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sqlib._checks import FULL_PRECISION, as_integer
from sqlib.engine import context, saving
from sqlib.engine.context import Context
from sqlib.engine.inference import Inference
from sqlib.engine.ranges import InputRange
from sqlib.engine.recipe import Recipe, Together
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer
from sqlib.engine.weights import Cache, noise_db
from sqlib.errors import InputError
from sqlib.quantizers import QuantizerBank, UniformQuantizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike

    import pandas as pd

# What evaluation asks a network for; carried over from the network that was quantized.
CARRIED = ("scale", "name", "weights_id", "licence", "default_skip")


class QuantizedModel(nn.Module):
    """A network with fake-quantizers at its call sites; made by `quantize_model`, called like the network.

    Attributes
    ----------
    network : nn.Module
        The copy that runs; its parameters are the ones that train. Its weights are those of the argument in
        full precision, its biases may have been set by the recipe (`CompensatedDFSQ`): for comparisons and
        for another quantization take the network that was given.
    recipe : Recipe
        The recipe it was made with.
    sites : dict of str to Site
        Call sites by name, in the order of their calls.
    input_range : InputRange or None
        Range of the calibration inputs; an input in other units (0..255 for 0..1) warns, once.

    Notes
    -----
    ``state_dict`` holds the network's tensors and every quantizer's, with its bits and other settings, which
    are checked on loading. Quantized weights are computed once and again when a weight or its quantizer
    differs in any bit, however it was written. With gradients enabled they are recomputed in each pass,
    straight-through.

    `torch.export` takes it, of any height and width where it takes the network: a graph of torch's own
    operations, for inference, that gives the same bits. Quantizers of all widths are in it where bits depend
    on the image. What treats patches of an image `together` is not; RefQSR's is its network of references.
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

    @property
    def forward(self) -> Callable[..., Any]:  # type: ignore[override]
        """One pass, with the signature of the network's own ``forward``; `torch.export` asks for it."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            run = self._run
            if (
                "torch._dynamo" in sys.modules
            ):  # loaded with torch.compile, whose code would pass call sites by
                run = torch.compiler.disable(run)
            return run(args, kwargs)

        with contextlib.suppress(TypeError, ValueError):  # no Python function behind it: any arguments
            forward.__signature__ = inspect.signature(self.network.forward)  # type: ignore[attr-defined]
        return forward

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            raise InputError(
                "torch.jit.trace cannot record a quantized network: use torch.export.export, or "
                "sqlib.export.export_onnx for a file with integers"
            )
        if self.input_range is not None:
            self.input_range.check((args, kwargs))
        seen = context.begin(self, args, kwargs, needed=self.has_banks)
        with Tracer(self.network, Inference(self, seen)).running():
            return self.network(*args, **kwargs)

    def context(
        self, *, roles: str | Sequence[str | None] | None = None, data: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Context]:
        """Give one pass a context, and see afterwards what it used.

        >>> with quantized.context(roles=["reference", "query"]) as context:         # doctest: +SKIP
        ...     upscaled = quantized(patches)
        >>> context.bits["blocks.0.conv1"]                                           # doctest: +SKIP
        tensor([8, 4])

        Parameters
        ----------
        roles : str, sequence of str or None or None
            What each sample is: a label for all, or one for each, None where it has none.
        data : mapping or None
            For selectors; copied into ``context.data``.

        Raises
        ------
        InputError
            In the pass: another number of roles than of samples. In a second pass in one block.

        Notes
        -----
        Holds in this thread, for this model, and in what the backward pass computes again of it. Passes of
        other models (a teacher), and of the same in other threads, have their own.
        """
        return context.one(self, roles, data)

    def passes(
        self, *, roles: str | Sequence[str | None] | None = None, data: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[list[Context]]:
        """A context for every pass in the block, in their order; parameters as for `context`.

        >>> with quantized.passes() as passes:                                       # doctest: +SKIP
        ...     upscaled = sqlib.evaluate.super_resolve(quantized, image, tiling=Tiling(96, 6))
        >>> sqlib.cost.cost(quantized, (2048, 1080), patch=96, overlap=6, context=passes)  # doctest: +SKIP
        """
        return context.many(self, roles, data)

    @property
    def together(self) -> Together | None:
        """What upscales the patches of one image together, for recipes that relate them; else None.

        Takes tensors (1, C, h, w), and gives each one's number and what became of it, one by one and in any
        order: ``dict(model.together(patches))``. `sqlib.evaluate` uses it where images are cut.
        """
        return self.recipe.together(self)

    @property
    def has_banks(self) -> bool:
        """Whether the bits of some operand are chosen in each pass."""
        homes = self.activations._modules, self.weights._modules
        return any(isinstance(q, QuantizerBank) for home in homes for q in home.values())

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to one safetensors file, from which `sqlib.load_quantized` rebuilds it.

        Parameters
        ----------
        path : str or path-like
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
            check_quantizer(quantizer)
            self.weights[_module_key(key)] = quantizer
            self._place(quantizer)

    def drop_weight(self, key: str) -> None:
        """Remove what `add_weight` registered."""
        self.weight_keys.discard(key)
        if _module_key(key) in self.weights:
            del self.weights[_module_key(key)]

    def add_activation(self, key: str, quantizer: nn.Module) -> None:
        """Register the quantizer of one activation operand."""
        check_quantizer(quantizer)
        self.activations[_module_key(key)] = quantizer
        self._place(quantizer)

    def _place(self, quantizer: nn.Module) -> None:
        """Beside the network, so that no pass has to bring them there."""
        first = next(self.network.parameters(), None)
        if first is not None:
            quantizer.to(first.device)

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
        weight_bits, activation_bits (32: full precision; as text, "4/6/8", where each pass chooses),
        weight_per, lower and upper (of the first activation operand), bounds (operand to (lower, upper), all
        of them), calls (in one pass over the calibration data), weight_sqnr_db (of a choice, the worst).
        """
        import pandas as pd

        return pd.DataFrame([self._row(site) for site in self.sites.values()])

    def _row(self, site: Site) -> dict[str, Any]:
        weight = None if site.weight_key is None else self.weight_quantizer(site.weight_key)
        operands = {role: self.activation_quantizer(site, role) for role in site.activation_keys}
        bounds = {
            role: (q.lower.min().item(), q.upper.max().item())
            for role, q in operands.items()
            if isinstance(q, UniformQuantizer)
        }
        lower, upper = next(iter(bounds.values()), (math.nan, math.nan))
        one = next(iter(weight.quantizers.values())) if isinstance(weight, QuantizerBank) else weight
        per = None if weight is None else ("tensor" if getattr(one, "axis", None) is None else "channel")
        return {
            "site": site.name,
            "op": site.op,
            "module": site.module,
            "module_type": site.module_type,
            "weight": site.weight,
            "weight_shape": site.weight_shape,
            "quantized": site.active,
            "rule": site.rule,
            "weight_bits": _bits([weight]),
            "activation_bits": _bits(operands.values()),
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
        return noise_db(weight, quantizer)

    def extra_repr(self) -> str:
        active = sum(s.active for s in self.sites.values())
        return f"recipe={self.recipe}, {active} of {len(self.sites)} call sites quantized"


def check_quantizer(quantizer: Any) -> None:
    """Raise `InputError` for what cannot quantize, or has no bits that reports and costs could count."""
    if not isinstance(quantizer, nn.Module):
        raise InputError(f"the recipe gives {type(quantizer).__name__}, expected a torch.nn.Module")
    bits = getattr(quantizer, "bits", None)
    if not isinstance(quantizer, (QuantizerBank, nn.Identity)) and as_integer(bits) is None:
        raise InputError(
            f"the quantizer {type(quantizer).__name__} has bits={bits!r}, expected an attribute with the "
            "bit-width, an integer, which reports and costs count"
        )


def _bits(quantizers: Iterable[nn.Module | None]) -> int | str:
    """The largest number of bits; all of them as text where there is a choice."""
    found = list(quantizers)
    widths = {int(getattr(q, "bits", FULL_PRECISION)) for q in found if not isinstance(q, QuantizerBank)}
    banks = {width for q in found if isinstance(q, QuantizerBank) for width in q.widths}
    if banks:
        return "/".join(map(str, sorted(widths | banks)))
    return max(widths, default=FULL_PRECISION)


def _module_key(key: str) -> str:
    return key.replace(".", "/")  # a module's name must not contain dots
