"""Which call sites are quantized and to how many bits: as planned, or as a quantized model has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlib._checks import FULL_PRECISION, check_bits
from sqlib.engine import skip as rules
from sqlib.engine.site import Site
from sqlib.errors import InputError
from sqlib.quantizers import QuantizerBank

if TYPE_CHECKING:
    from torch import nn

    from sqlib.engine.flow import Upsampler
    from sqlib.engine.model import QuantizedModel

#: (site, role of an operand) -> bits; 32 is full precision.
Bits = Callable[[Site, str], int]
#: One number, or (weight bits, activation bits).
Numbers: TypeAlias = "int | tuple[int, int]"


def pair(bits: Any) -> tuple[int, int]:
    """``bits`` as (weight bits, activation bits), 1 to 16 or 32 each.

    Raises
    ------
    InputError
        Anything else.
    """
    values = (FULL_PRECISION,) if bits is None else bits if isinstance(bits, (tuple, list)) else (bits,)
    if len(values) not in (1, 2):
        raise InputError(f"bits={bits!r}: expected one number or a pair (weight bits, activation bits)")
    checked = [check_bits(b, full_precision=True) for b in values]
    return checked[0], checked[-1]


def planned(bits: Any, sites: list[Site], kept: Iterable[str] = ()) -> Bits:
    """Operands of quantized sites get these bits, or those of the first pattern that fits.

    Those of ``kept``, patterns of ``"call site:operand"``, stay in full precision.
    """
    table = bits if isinstance(bits, Mapping) else {"*": bits}
    checked = {pattern: pair(numbers) for pattern, numbers in table.items()}
    if isinstance(bits, Mapping):
        rules.require_matches(sites, rules.check_patterns(tuple(table)))

    def of(site: Site, role: str) -> int:
        operand = f"{site.name}:{role}"
        left = any(fnmatchcase(operand, pattern) for pattern in kept)
        found = rules.first_match(site, checked) if site.active and not left else None
        if found is None:
            return FULL_PRECISION
        weight, activation = checked[found]
        return weight if role == site.weight_role else activation

    return of


def actual(model: QuantizedModel) -> Bits:
    """The bits of the quantizers that a quantized model has.

    Of a bank, those that a weight takes in storage: at every width, or in full precision where that is less.
    """

    def of(site: Site, role: str) -> int:
        found = quantizer(model, site, role)
        if isinstance(found, QuantizerBank):
            return min(FULL_PRECISION, sum(found.widths))
        return int(getattr(found, "bits", FULL_PRECISION))

    return of


def quantizer(model: QuantizedModel, site: Site, role: str) -> nn.Module | None:
    """What quantizes an operand of a call site, or of one like it that was never reached; None: nothing."""
    known = model.sites.get(site.name) or next((s for s in model.sites.values() if s.base == site.base), None)
    if known is None or not known.active:
        return None
    if role == known.weight_role:
        return None if known.weight_key is None else model.weight_quantizer(known.weight_key)
    return model.activation_quantizer(known, role)


def quantized_activations(
    products: Iterable[tuple[str, str, str, str, str]],
    sites: Mapping[str, Site],
    bits: Bits,
    model: QuantizedModel | None,
) -> list[tuple[Site, str]]:
    """Activations that are quantized, as (site, role): what has bits by plan, or a quantizer in a model.

    Products are (site, op, kind, left role, right role).
    """
    operands = dict.fromkeys(
        (name, role) for name, _, kind, *roles in products if kind != "norm" for role in roles
    )
    return [
        (sites[name], role)
        for name, role in operands
        if sites[name].active
        and role != sites[name].weight_role
        and (bits(sites[name], role) < FULL_PRECISION if model is None else in_fqr(model, sites[name], role))
    ]


def in_fqr(model: QuantizedModel, site: Site, role: str) -> bool:
    """Whether an operand counts in the FQR: a quantized activation, of a module that does not say otherwise.

    The cost volumes of RefQSR do (``in_fqr = False``): its printed FQR is the mean over convolutions.
    """
    if role == site.weight_role or quantizer(model, site, role) is None:
        return False
    module = dict(model.network.named_modules()).get(site.module)
    return bool(getattr(module, "in_fqr", True))


def mark(
    sites: list[Site],
    upsampler: Upsampler | None,
    network: nn.Module,
    skip: Iterable[str] | str | None,
    unquantized: tuple[str, ...] = (),
) -> None:
    """Set ``active`` of every site by the rules of `quantize_model`, and by a SPEC's ``unquantized``."""
    patterns = None if skip is None else rules.check_patterns(skip)
    if patterns is not None:
        rules.require_matches(sites, patterns)
    elif getattr(network, "default_skip", None) is not None:
        patterns = (*rules.check_patterns(network.default_skip), *unquantized)
    if patterns is not None:
        rules.apply_patterns(sites, patterns, "skip")
    else:
        rules.apply_default(sites, upsampler)


def mark_like(sites: list[Site], model: QuantizedModel) -> None:
    """Set ``active`` as a quantized model has it."""
    active = {s.name: s.active for s in model.sites.values()}
    bases = {s.base: s.active for s in model.sites.values()}
    for site in sites:
        site.active = active.get(site.name, bases.get(site.base, False))
