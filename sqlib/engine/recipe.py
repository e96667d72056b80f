"""What a recipe is. Imports neither torch nor numpy.

A recipe is a frozen dataclass that says how weights and activations become fake-quantizers. The engine
(`sqlib.quantize_model`) finds the call sites, drives the passes over the calibration data and asks:

``weight_quantizer(weight, site)``
    a module that fake-quantizes this weight, or None to leave it; called once per distinct weight.
``activation_observer(site, operand)``
    an `Observer` for one activation operand of one call site, or None to leave it in full precision.
``refine(model, calibration, resume)``
    a last word with the complete `QuantizedModel`, the calibration batches, and the folder in which what
    takes long keeps its unfinished state (or None), for reconstruction and training; does nothing by default.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sqlib._checks import FULL_PRECISION, check_bits
from sqlib.engine import registry
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site


class Observer(Protocol):
    """Collects what one call site sees. `update` is called for every batch in each of `passes` passes."""

    passes: int

    def update(self, x: Tensor, number: int) -> None:
        """See one activation tensor in pass `number` (from 0). Must not change or keep the tensor."""

    def finish(self) -> nn.Module:
        """The fake-quantizer fitted to what was seen."""


@dataclass(frozen=True)
class Recipe:
    """Base of all recipes: bits, and the round trip through dictionaries and JSON.

    Parameters
    ----------
    bits
        One bit-width for weights and activations, or the pair (weight bits, activation bits); 2 to 8 each.
        One of the pair may be 32: that side stays in full precision.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    spellings: ClassVar[tuple[str, ...]] = ()
    """Other names of the method, as papers write it; case and punctuation do not matter."""

    bits: int | tuple[int, int] = 8

    def __post_init__(self) -> None:
        bits: Any = self.bits
        if isinstance(bits, (list, tuple)):
            if len(bits) != 2:
                raise InputError(
                    f"bits={bits!r}: expected one number or a pair (weight bits, activation bits)"
                )
            pair = tuple(check_bits(b, low=2, high=8, full_precision=True) for b in bits)
            if pair == (FULL_PRECISION, FULL_PRECISION):
                raise InputError("bits=(32, 32) quantizes nothing; give at least one side 2 to 8 bits")
            object.__setattr__(self, "bits", pair)
        else:
            object.__setattr__(self, "bits", check_bits(bits, low=2, high=8))

    @property
    def weight_bits(self) -> int:
        """Bit-width of the weights; 32 means full precision."""
        return self.bits[0] if isinstance(self.bits, tuple) else self.bits

    @property
    def activation_bits(self) -> int:
        """Bit-width of the activations; 32 means full precision."""
        return self.bits[1] if isinstance(self.bits, tuple) else self.bits

    def weight_quantizer(self, weight: Tensor, site: Site) -> nn.Module | None:
        """The fake-quantizer for `weight`; ``site.weight_axis`` is the axis of its output channels."""
        raise NotImplementedError(f"{type(self).__name__}.weight_quantizer")

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """An observer for the operand ("input", "left", "right", "query", ...) of `site`."""
        raise NotImplementedError(f"{type(self).__name__}.activation_observer")

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Adjust the complete quantized network in place; the default does nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data: name, version and every option (pairs as lists)."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        return {"name": self.name, "version": self.version, **options}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON with sorted keys, so that equal recipes give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Rebuild from `to_dict`; on the base class any recipe, on a subclass only that one."""
        recipe = registry.from_dict(data)
        if not isinstance(recipe, cls):
            raise InputError(f"{cls.__name__}.from_dict: the data describes the recipe {recipe.name!r}")
        return recipe

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Rebuild from `to_json`."""
        return cls.from_dict(registry.parse(text))


def check_weight_per(value: Any) -> None:
    """Accept "channel" or "tensor"."""
    if value not in ("channel", "tensor"):
        raise InputError(
            f"weight_per={value!r}: expected 'channel' (one range per output channel) or 'tensor'"
        )


def resolve_schedule(
    recipe: Any, schedules: Mapping[str, Mapping[str, Any]], *, fixed: Sequence[str] = ()
) -> None:
    """Fill the options of `recipe` that are None from its schedule.

    The schedule becomes "custom" where one of its options differs from it, or one of the options `fixed`,
    which all schedules share, from its default.
    """
    known = [*schedules, "custom"]
    if recipe.schedule not in known:
        raise InputError(f"schedule={recipe.schedule!r}: expected one of {', '.join(known)}")
    defaults = schedules.get(recipe.schedule, {})
    for name in next(iter(schedules.values())):
        if getattr(recipe, name) is None:
            if name not in defaults:
                raise InputError(f"schedule='custom' needs {name}=; the other schedules have a default")
            object.__setattr__(recipe, name, defaults[name])
    shared = {f.name: f.default for f in dataclasses.fields(recipe) if f.name in fixed}
    if any(getattr(recipe, name) != value for name, value in {**shared, **defaults}.items()):
        object.__setattr__(recipe, "schedule", "custom")
