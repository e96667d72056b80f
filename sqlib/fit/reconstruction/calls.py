"""Calls of a module within a network: what enters it and what leaves, and how to repeat one alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib.engine.batches import arguments
from sqlib.engine.ops import Operand
from sqlib.engine.site import Handler, Site
from sqlib.engine.tracing import Tracer

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

Key = int | str


@dataclass
class Call:
    """One call of a unit's module: its tensor argument, everything else needed to repeat it, its output.

    `sites` are the active call sites that it reached, known of traced calls only.
    """

    number: int
    key: Key
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    counts: Counter[tuple[str, str]]
    x: Tensor
    out: Tensor
    sites: frozenset[str] = frozenset()

    def repeat(
        self, module: nn.Module, x: Tensor, network: nn.Module | None = None, handler: Handler | None = None
    ) -> Any:
        """Call `module` alone with `x` in place of the tensor; traced by `handler` if given."""
        args, kwargs = list(self.args), dict(self.kwargs)
        if isinstance(self.key, int):
            args[self.key] = x
        else:
            kwargs[self.key] = x
        if handler is None or network is None:
            return module(*args, **kwargs)
        # Drops are drawn anew in every call.
        tracer = Tracer(network, handler, recomputes=False)
        tracer.counts = Counter(self.counts)  # the k-th use of a shared module keeps its own quantizers
        with tracer.running():
            return module(*args, **kwargs)


class Substitute:
    """Handler that runs active sites with given weights and activations.

    Parameters
    ----------
    model : QuantizedModel
        The quantized network.
    activation : callable
        Maps (key of the quantizer, tensor) to the tensor to use.
    weights : mapping of str to callable or None
        Weight key to a function that makes the weight; others come from the model's quantizers.
    """

    def __init__(
        self,
        model: QuantizedModel,
        activation: Callable[[str, Tensor], Tensor],
        weights: Mapping[str, Callable[[], Tensor]] | None = None,
    ) -> None:
        self.model, self.activation, self.weights = model, activation, weights or {}

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        """The known site, or a new one that stays in full precision."""
        return self.model.sites.get(name) or make()

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        """The tensor to compute with."""
        if not site.active:
            return value
        if operand.role != site.weight_role:
            key = site.activation_keys.get(operand.role)
            return value if key is None else self.activation(key, value)
        key = site.weight_key
        if key is not None and key in self.weights:
            return self.weights[key]().to(value.dtype)
        quantizer = None if key is None else self.model.weight_quantizer(key)
        return value if key is None or quantizer is None else self._fixed(key, value, quantizer)

    def _fixed(self, key: str, value: Tensor, quantizer: nn.Module) -> Tensor:
        return self.model._cache.fake(key, value, quantizer)


class _Finished(BaseException):
    """Ends a pass once the last call of interest is done; no `except Exception` of a network stops it."""


@torch.no_grad()
def calls(
    model: QuantizedModel,
    module: nn.Module,
    batch: Any,
    handler: Handler | None,
    expected: int | None = None,
) -> list[Call]:
    """Every call of `module` in one pass over `batch`, in full precision or traced by `handler`.

    The pass ends after the `expected`-th call if that is known.
    """
    args, kwargs = arguments(batch, model.network)
    tracer = None if handler is None else Tracer(model.network, handler)
    found: list[Call] = []
    open_calls: list[tuple[Any, ...]] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        counts = Counter() if tracer is None else Counter(tracer.counts)
        key = tensor_argument(given, named)
        x = None if key is None else (given[key] if isinstance(key, int) else named[key])
        # Now: the module may change its input in place, as one does that begins with such a ReLU.
        open_calls.append((key, None if x is None else x.clone(), given, named, counts))

    def after(_: nn.Module, given: Any, named: Any, out: Any) -> None:
        key, x, given, named, counts = open_calls.pop()
        now = counts if tracer is None else tracer.counts
        reached = (
            s.name
            for s in model.sites.values()
            if s.active and counts[s.module, s.op] <= s.call < now[s.module, s.op]
        )
        rest = tuple(None if k == key else v for k, v in enumerate(given))
        found.append(
            Call(
                len(found),
                key,
                rest,
                {k: v for k, v in named.items() if k != key},
                counts,
                x,
                out.clone(),
                frozenset(reached),
            )
        )
        if len(found) == expected:
            raise _Finished

    hooks = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        if tracer is None:
            model.network(*args, **kwargs)
        else:
            with tracer.running():
                model.network(*args, **kwargs)
    except _Finished:
        pass  # all calls that were asked for are in `found`
    finally:
        for hook in hooks:
            hook.remove()
    return found


def tensor_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key | None:
    """Position or name of the only tensor, if it is floating and everything else is plain data."""
    found: list[Key] = []
    named: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    for key, value in named:
        if isinstance(value, Tensor):
            if not value.is_floating_point() or value.ndim < 2:
                return None
            found.append(key)
        elif not _plain(value):
            return None
    return found[0] if len(found) == 1 else None


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))
