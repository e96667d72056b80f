"""Feature taps: which modules' outputs are compared between teacher and student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from sqlib.engine.channels import channel_axis as find_channel_axis
from sqlib.errors import InputError
from sqlib.models import SRNetwork


class Taps(NamedTuple):
    """Names of the tapped modules, in the network's order, and the channel axis (None: by dimensions).

    `axes` are channel axes that were found by module; features of these modules are shown with their channels
    where their dimensions would have them.
    """

    names: tuple[str, ...]
    axis: int | None
    axes: tuple[tuple[str, int], ...] = ()

    def located(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Taps:
        """With the channel axis of every tapped module, found in a pass over one sample."""
        modules = dict(network.named_modules())
        found = {}
        for name in self.names:
            run = partial(_first_output, network, modules[name], args, kwargs)
            if isinstance(run(), Tensor):
                found[name] = find_channel_axis(run)
        return self._replace(axes=tuple(found.items()))

    @contextmanager
    def recording(self, network: nn.Module, *, until: int | None = None) -> Iterator[list[Tensor]]:
        """Within the block, outputs of the tapped modules of `network` are appended to the list, per call.

        The caller empties the list between passes. With `until`, the block ends where the list is that long.
        """
        seen: list[Tensor] = []
        axes = dict(self.axes)

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if not isinstance(output, Tensor):
                    raise InputError(
                        f"features: module {name!r} returns {type(output).__name__}, expected a tensor; "
                        "tap another module"
                    )
                axis = axes.get(name)
                output = output.clone()  # what follows may change it in place, as ``res += x`` does
                seen.append(output if axis is None else output.movedim(axis, channel_axis(output, None)))
                if len(seen) == until:
                    raise _Reached

            return hook

        modules = dict(network.named_modules())
        handles = [modules[name].register_forward_hook(keep(name)) for name in self.names]
        try:
            with suppress(_Reached):
                yield seen
        finally:
            for handle in handles:
                handle.remove()


def find_taps(
    network: nn.Module, patterns: tuple[str, ...] | None, axis: int | None, *, option: str = "features"
) -> Taps:
    """Resolve `Options.features`, or another `option` with patterns of modules, for a network.

    Raises
    ------
    InputError
        A given pattern matches no module.
    """
    spec = network.spec if isinstance(network, SRNetwork) else None
    if axis is None and spec is not None:
        axis = spec.channel_axis
    if patterns is None:
        known = None if spec is None else spec.features or spec.blocks
        patterns = () if known is None else (known,)
    names = [name for name, _ in network.named_modules() if name]
    chosen = []
    for pattern in patterns:
        found = [name for name in names if _matches(name, pattern)]
        if not found:
            shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
            raise InputError(
                f"{option}: {pattern!r} matches no module of {type(network).__name__}, which has {shown}; "
                "'*' stands for one part of a name"
                + (", () compares outputs alone" if option == "features" else "")
            )
        chosen += found
    return Taps(tuple(name for name in names if name in set(chosen)), axis)


class _Reached(BaseException):
    """Ends a pass where a module has returned."""


def _first_output(network: nn.Module, module: nn.Module, args: Any, kwargs: Any) -> Any:
    """What `module` returns when `network` first calls it, or None."""

    def stop(_: nn.Module, given: Any, output: Any) -> None:
        raise _Reached(output)

    handle = module.register_forward_hook(stop)
    try:
        network(*args, **kwargs)
    except _Reached as reached:
        return reached.args[0]
    finally:
        handle.remove()
    return None


def channel_axis(feature: Tensor, axis: int | None) -> int:
    """The channel axis of a feature."""
    if axis is not None:
        return axis
    return 1 if feature.ndim == 4 else -1


def _matches(name: str, pattern: str) -> bool:
    parts, asked = name.split("."), pattern.split(".")
    return len(parts) == len(asked) and all(fnmatchcase(p, w) for p, w in zip(parts, asked, strict=True))
