"""What happens at the call sites of a quantized network in a normal forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib._checks import FULL_PRECISION
from sqlib.engine.batches import described
from sqlib.engine.context import Context
from sqlib.engine.ops import Operand
from sqlib.engine.site import Site
from sqlib.engine.weights import trains
from sqlib.errors import InputError
from sqlib.quantizers import QuantizerBank
from sqlib.quantizers._readable import recorded
from sqlib.quantizers._workspace import Workspace
from sqlib.quantizers.bank import Choice, block_size

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


class Inference:
    """Handler of a normal forward pass: every operand of an active site goes through its quantizer."""

    def __init__(self, model: QuantizedModel, context: Context | None) -> None:
        self.model, self.context = model, context
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
        role = operand.role
        weight = role == (site.weight_role or "weight")
        found = self._quantizer(site, role, weight) if site.active else None
        choice = None
        if isinstance(found, QuantizerBank):
            choice = self._choice(site, role, value, found, weight)
        if self.context is not None:
            widths = getattr(found, "bits", FULL_PRECISION) if choice is None else choice.widths
            self.context.record(site.name, role, widths, weight=weight)
        if found is None:
            return value
        if weight:
            return _alike(self._weight(site, value, found, choice), value, site, role, found)
        given = (value,) if choice is None else (value, choice)
        if torch.is_grad_enabled():
            return _alike(found(*given), value, site, role, found)
        with self.memory.lend(role):  # the product that follows is all that reads the result
            return _alike(found(*given), value, site, role, found)

    def _quantizer(self, site: Site, role: str, weight: bool) -> nn.Module | None:
        if not weight:
            return self.model.activation_quantizer(site, role)
        return None if site.weight_key is None else self.model.weight_quantizer(site.weight_key)

    def _weight(self, site: Site, value: Tensor, found: nn.Module, choice: Choice | None) -> Tensor:
        width = None if choice is None else choice.widths
        if isinstance(found, QuantizerBank) and isinstance(width, int):
            found = found.at(width)
        if site.weight == "(computed)" or trains(value, found):
            return found(value)  # type: ignore[no-any-return]
        return self.model._cache.fake((site.weight_key, width), value, found)

    def _choice(self, site: Site, role: str, value: Tensor, bank: QuantizerBank, weight: bool) -> Choice:
        assert self.context is not None  # a pass of a network with banks has one
        try:
            choice = bank.choose(value, site, self.context, read=weight and not recorded())
            if choice.shares is None and isinstance(choice.widths, int):
                return choice
            if weight and recorded():
                raise InputError(
                    "the bits of a weight follow from the values of the input, which a graph has none of: "
                    "export a network with fixed weight bits"
                )
            if weight:
                raise InputError(
                    f"samples of one pass chose {choice.widths} bits for a weight, expected one width and no "
                    "shares: run the samples of each width, such as reference and query patches, in a pass "
                    "of their own"
                )
            if site.module_type == "MultiheadAttention":
                raise InputError(
                    "torch.nn.MultiheadAttention projects sequences of all samples at once: run the samples "
                    "of each width in a pass of their own, or leave this call site out (skip=)"
                )
            block_size(value, self.context.samples)
        except InputError as error:
            raise InputError(f"call site {site.name!r} ({site.op}, {role}): {error}") from error
        return choice


def _alike(out: Any, value: Tensor, site: Site, role: str, quantizer: nn.Module) -> Tensor:
    """What a quantizer made of a value, which must have its shape and dtype."""
    if isinstance(out, Tensor) and out.shape == value.shape and out.dtype == value.dtype:
        return out
    raise InputError(
        f"call site {site.name!r} ({site.op}, {role}): the quantizer {type(quantizer).__name__} made "
        f"{described(out)} of {described(value)}, expected the same shape and dtype"
    )
