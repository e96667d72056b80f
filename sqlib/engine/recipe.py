"""What a recipe is. Imports neither torch nor numpy.

A recipe is a frozen dataclass that says how weights and activations become fake-quantizers. The engine
(`sqlib.quantize_model`) finds the call sites, drives the passes over the calibration data and asks:

``weight_quantizer(weight, site)``
    a module that fake-quantizes this weight, or None to leave it; called once per distinct weight, unless
    weights have 32 bits.
``activation_observer(site, operand)``
    an `Observer` for one activation operand of one call site, or None to leave it in full precision; not
    called if activations have 32 bits.

Either may give a `sqlib.quantizers.QuantizerBank`, for bits that differ from sample to sample.

``refine(model, calibration, resume)``
    a last word with the complete `QuantizedModel`, the calibration batches, and the folder in which what
    takes long keeps its unfinished state (or None), for reconstruction and training; does nothing by default.

``admit(network, pairs, calibration)``
    refuses what the recipe cannot work on, before anything is trained.

``prepare(network)``, ``watching()`` and ``together(model)``
    for recipes that change the network itself before it is calibrated, and whose networks treat the patches
    of one image together; do nothing by default.

``starts_from()`` and ``learn(model, lesson)``
    for recipes that train on pairs of low and high resolution: another recipe whose result they start from,
    and the training itself, with the pairs and that result in its `Lesson`.

The page "Write your own recipe" of the book has an example.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sqlib._checks import FULL_PRECISION
from sqlib.engine import registry
from sqlib.engine.options import assign, bit_widths, check_all, option
from sqlib.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site


class Together(Protocol):
    """Upscales all patches of one image."""

    def __call__(self, patches: Sequence[Tensor], /) -> Iterable[tuple[int, Tensor]]:
        """From tensors (1, C, h, w) to the number of each and what became of it, in any order, one by one."""


class Observer(Protocol):
    """Collects what one call site sees. `update` is called for every batch in each of `passes` passes."""

    passes: int

    def update(self, x: Tensor, number: int) -> None:
        """See one activation tensor in pass `number` (from 0). Must not change or keep the tensor."""

    def finish(self) -> nn.Module:
        """The fake-quantizer fitted to what was seen: a module from a tensor to one of its shape and dtype.

        Reports and costs count its attribute ``bits``.
        """


@dataclass(frozen=True)
class Lesson:
    """What `Recipe.learn` has to train with.

    Attributes
    ----------
    pairs
        (low, high) tensors, or a `sqlib.fit.samples.Source`; None where none were given.
    original : nn.Module
        The network as it was given to `sqlib.quantize_model`, in full precision.
    start : QuantizedModel or None
        What the recipe's `starts_from` made of it; None without one.
    calibration : sequence
        The batches.
    resume : str, path-like or None
        Folder for the unfinished state, or None.
    """

    pairs: Any
    original: nn.Module
    start: QuantizedModel | None
    calibration: Sequence[Any]
    resume: str | PathLike[str] | None = None


@dataclass(frozen=True)
class Recipe:
    """Base of all recipes: bits, declared options, and the round trip through dictionaries and JSON.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width for weights and activations, or the pair (weight bits, activation bits); 2 to 8 each.
        One of the pair may be 32: that side stays in full precision.

    Attributes
    ----------
    name, spellings : str, tuple of str
        What `sqlib.recipes.create` finds it by: the name it was registered under, and other names of the
        method, as papers write it; case and punctuation do not matter.
    version : int
        Raised when the method changes, so that results of the old one are not taken for those of the new.
    learns : bool
        Whether `refine` or `learn` take minutes or longer, so that the network is worth keeping as a file.
    paired : bool
        Whether `learn` trains on pairs of low and high resolution.
    branches : bool
        Whether some call sites are reached by some samples alone (see `watching`).
    schedules, shared : mapping of str to mapping, tuple of str
        Named sets of options, for a recipe with an option ``schedule``: what is None is taken from its
        schedule, which becomes "custom" where one of its options differs from it, or one of the options
        `shared` by all schedules from its default.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    spellings: ClassVar[tuple[str, ...]] = ()
    learns: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    branches: ClassVar[bool] = False
    schedules: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    shared: ClassVar[tuple[str, ...]] = ()

    bits: int | tuple[int, int] = option(8, bit_widths)

    def __post_init__(self) -> None:
        assign(self, bits=bit_widths("bits", self.bits))
        assign(self, **self.defaults())
        check_all(self)
        assign(self, **self.check())
        if self.schedules and self._differs():
            assign(self, schedule="custom")

    def defaults(self) -> Mapping[str, Any]:
        """Values for options that are None, now that the bits are known; by default the schedule's."""
        if not self.schedules:
            return {}
        chosen = getattr(self, "schedule")  # noqa: B009  (an option of subclasses)
        if chosen not in (*self.schedules, "custom"):
            raise InputError(f"schedule={chosen!r}: expected one of {', '.join([*self.schedules, 'custom'])}")
        values = self.schedules.get(chosen, {})
        missing = [name for name in next(iter(self.schedules.values())) if getattr(self, name) is None]
        # None is a value where a schedule has it
        told = [n for n in missing if all(each.get(n) is not None for each in self.schedules.values())]
        lacking = [name for name in told if name not in values]
        if lacking:
            raise InputError(f"schedule='custom' needs {lacking[0]}=; the other schedules have a default")
        return {name: values[name] for name in missing if name in values}

    def _differs(self) -> bool:
        """Whether an option is not what the schedule says."""
        said = {f.name: f.default for f in dataclasses.fields(self) if f.name in self.shared}
        said |= self.schedules.get(getattr(self, "schedule"), {})  # noqa: B009
        return any(getattr(self, name) != value for name, value in said.items())

    def check(self) -> Mapping[str, Any]:
        """Raise `InputError` for options that are good alone and not together; return any to be replaced."""
        return {}

    @property
    def weight_bits(self) -> int:
        """Bit-width of the weights; 32 means full precision."""
        return self.bits[0] if isinstance(self.bits, tuple) else self.bits

    @property
    def activation_bits(self) -> int:
        """Bit-width of the activations; 32 means full precision."""
        return self.bits[1] if isinstance(self.bits, tuple) else self.bits

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """The fake-quantizer of a weight, or None to leave it in full precision.

        Parameters
        ----------
        weight : ndarray of float64
            The values, a copy.
        site : Site
            The call site that uses it first; ``site.weight_axis`` is the axis of its output channels.
        """
        raise InputError(
            f"recipe {type(self).__name__} does not say how weights are quantized: write weight_quantizer, "
            "or leave weights alone with bits=(32, ...)"
        )

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """An observer for the operand ("input", "left", "right", "query", ...) of `site`."""
        raise InputError(
            f"recipe {type(self).__name__} does not say how activations are quantized: write "
            "activation_observer, or leave activations alone with bits=(..., 32)"
        )

    def unquantized_in(self, network: nn.Module) -> tuple[str, ...]:
        """What of `network` stays in full precision beside what is skipped; by default nothing.

        Patterns of call sites, unless ``skip`` was given, and of operands of call sites, as in
        ``"blocks.*.conv1:input"``.
        """
        return ()

    def quantize_weight(self, weight: Tensor, site: Site) -> nn.Module | None:
        """What the engine calls for a weight of any dtype and device: `weight_quantizer` with its values."""
        if self.weight_bits == FULL_PRECISION:
            return None
        import torch

        return self.weight_quantizer(weight.detach().to("cpu", torch.float64, copy=True).numpy(), site)

    def observe(self, site: Site, operand: str) -> Observer | None:
        """What the engine calls for an activation: `activation_observer`."""
        return None if self.activation_bits == FULL_PRECISION else self.activation_observer(site, operand)

    def admit(self, network: nn.Module, pairs: Any, calibration: Sequence[Any] = ()) -> None:
        """Raise `InputError` for a network or data it cannot work on, before anything is trained."""

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Adjust the complete quantized network in place; the default does nothing."""

    def prepare(self, network: nn.Module) -> None:
        """Change the copy of the network, in place, before it is calibrated; the default does nothing.

        Whatever it does follows from the network and the options alone: `sqlib.load_quantized` does it again.
        """

    def watching(self) -> AbstractContextManager[None]:
        """In it a pass reaches every call site of the prepared network; for calibration and cost."""
        return nullcontext()

    def together(self, model: QuantizedModel) -> Together | None:
        """What upscales all patches of one image together; None: each by itself."""
        return None

    def starts_from(self) -> Recipe | None:
        """The recipe whose result this one starts from; the default starts from the network itself."""
        return None

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Train the complete quantized network in place, after `refine`; the default does nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data: name, version and every option (pairs as lists)."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        return {"name": self.name, "version": self.version, **options}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON with sorted keys, so that equal recipes give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def upgrade(cls, version: Any, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Today's options for what an older version did with its own; None (the default): there are none."""
        return None

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
