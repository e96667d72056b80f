"""Units of reconstruction: which parts of any network can be run alone.

A unit is a module whose output depends on one tensor argument only, sample by sample. That is not guessed
from class names but tried: the module, called alone with the first sample of what entered it in the network,
must give the first sample of what left it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib.engine.batches import arguments
from sqlib.engine.ops import Operand
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer
from sqlib.fit.reconstruction.calls import Call, Substitute, calls, tensor_argument

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


@dataclass
class Unit:
    """A module to reconstruct, the active call sites that it settles, and how often one pass calls it."""

    path: str
    module: nn.Module
    sites: list[Site]
    calls: int


def find_units(model: QuantizedModel, data: Iterable[Any]) -> tuple[list[Unit], list[Site]]:
    """Units in the order of their first call, and the active sites that no unit holds.

    First the smallest modules that make two or more active calls (residual blocks); then, for what is left,
    the smallest module that makes the call (single layers). Each unit is widened to the largest module that
    makes no further calls, so that it includes its skip connection or activation function.
    """
    batch = next(iter(data))
    modules = _Modules(model, batch)
    active = [s for s in model.sites.values() if s.active]
    chosen: dict[str, list[Site]] = {}
    covered: set[str] = set()
    for path in modules.by_size:
        seen = modules.active[path]
        if modules.per_call[path] >= 2 and not seen & covered and modules.runs_alone(path):
            path = modules.widest(path)
            chosen[path] = [s for s in active if s.name in seen]
            covered |= seen
    for site in active:
        if site.name in covered:
            continue
        holding = (p for p in modules.by_size if site.name in modules.active[p])
        smallest = next((p for p in holding if modules.runs_alone(p)), None)
        if smallest is None:
            continue
        seen = modules.active[smallest] - covered
        chosen[modules.widest(smallest)] = [s for s in active if s.name in seen]
        covered |= seen
    units = [Unit(p, modules.modules[p], sites, modules.seen[p].calls) for p, sites in chosen.items()]
    units.sort(key=lambda unit: unit.sites[0].order)
    return units, [s for s in active if s.name not in covered]


@dataclass
class _Seen:
    """What one module did during the first pass."""

    calls: int = 0
    fits: bool = True
    active: set[str] = field(default_factory=set)
    sites: set[str] = field(default_factory=set)
    most: int = 0


class _Modules:
    """Which module makes which calls, from one pass in full precision with a hook on every module."""

    def __init__(self, model: QuantizedModel, batch: Any) -> None:
        self.model, self.batch = model, batch
        self.modules = dict(model.network.named_modules())
        self.seen = self._watch()
        candidates = [p for p, s in self.seen.items() if s.fits and s.active]
        self.active = {p: self.seen[p].active for p in candidates}
        self.per_call = {p: self.seen[p].most for p in candidates}
        self.by_size = sorted(candidates, key=lambda p: (len(self.active[p]), -p.count(".") - bool(p)))
        self._tried: dict[str, bool] = {}

    def widest(self, path: str) -> str:
        """The outermost module around `path` that makes exactly its calls and runs alone."""
        parts = path.split(".") if path else []
        for n in range(len(parts)):
            outer = ".".join(parts[:n])
            same = outer in self.active and self.seen[outer].sites == self.seen[path].sites
            if same and self.runs_alone(outer):
                return outer
        return path

    def runs_alone(self, path: str) -> bool:
        """Whether the module, called by itself on one sample, gives that sample's output."""
        if path not in self._tried:
            self._tried[path] = all(
                self._repeats(self.modules[path], call)
                for call in calls(self.model, self.modules[path], self.batch, None, self.seen[path].calls)
            )
        return self._tried[path]

    @staticmethod
    @torch.no_grad()
    def _repeats(module: nn.Module, call: Call) -> bool:
        try:
            out = call.repeat(module, call.x[:1])
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
            return False  # a module that needs more than its argument
        want = call.out[:1]
        if not isinstance(out, Tensor) or out.shape != want.shape:
            return False
        # another batch size may choose another algorithm
        return bool((out - want).abs().max() <= 1e-3 * want.abs().max().clamp(min=1e-12))

    @torch.no_grad()
    def _watch(self) -> dict[str, _Seen]:
        seen: dict[str, _Seen] = {}
        running: list[tuple[str, set[str]]] = []
        model = self.model

        class Watch(Substitute):
            def enter(self, name: str, make: Callable[[], Site]) -> Site:
                site = super().enter(name, make)
                for path, inside in running:
                    seen[path].sites.add(name)
                    if site.active:
                        inside.add(name)
                return site

            def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
                return value

        def before(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                entry = seen.setdefault(path, _Seen())
                entry.calls += 1
                entry.fits &= tensor_argument(args, kwargs) is not None
                running.append((path, set()))

            return hook

        def after(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
                while running and running[-1][0] != path:
                    running.pop()  # left by an exception that the network caught
                inside = running.pop()[1]
                entry = seen[path]
                entry.active |= inside
                entry.most = max(entry.most, len(inside))
                key = tensor_argument(args, kwargs)
                if key is not None:
                    x = args[key] if isinstance(key, int) else kwargs[key]
                    entry.fits &= (
                        isinstance(out, Tensor) and out.is_floating_point() and out.shape[:1] == x.shape[:1]
                    )

            return hook

        hooks = []
        for path, module in self.modules.items():
            hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            hooks.append(module.register_forward_hook(after(path), with_kwargs=True))
        args, kwargs = arguments(self.batch, model.network)
        try:
            with Tracer(model.network, Watch(model, lambda key, value: value)).running():
                model.network(*args, **kwargs)
        finally:
            for handle in hooks:
                handle.remove()
        return seen
