"""Feature taps: which modules' outputs are compared between teacher and student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from sqlib.errors import InputError

# Class of `sqlib.models` -> (modules, channel axis of what they return). SwinIR: the layers of a residual
# group without its convolution, as 2DQuant has it; the others: their residual (dense, attention) blocks.
KNOWN = {
    "SwinIR": ("groups.*.layers", -1),
    "EDSR": ("blocks.*", 1),
    "SRResNet": ("blocks.*", 1),
    "RDN": ("blocks.*", 1),
    "CARN": ("body.stages.*.stages.*", 1),
    "ELAN": ("body.*", 1),
    "BSRN": ("B?", 1),
}


class Taps(NamedTuple):
    """Names of the tapped modules, in the network's order, and the channel axis (None: by dimensions)."""

    names: tuple[str, ...]
    axis: int | None

    @contextmanager
    def recording(self, network: nn.Module) -> Iterator[list[Tensor]]:
        """Within the block, outputs of the tapped modules of `network` are appended to the list, per call.

        The caller empties the list between passes.
        """
        seen: list[Tensor] = []

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if not isinstance(output, Tensor):
                    raise InputError(
                        f"features: module {name!r} returns {type(output).__name__}, expected a tensor; "
                        "tap another module"
                    )
                seen.append(output)

            return hook

        modules = dict(network.named_modules())
        handles = [modules[name].register_forward_hook(keep(name)) for name in self.names]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def find_taps(network: nn.Module, patterns: tuple[str, ...] | None, axis: int | None) -> Taps:
    """Resolve `Options.features` for a network.

    Raises
    ------
    InputError
        A given pattern matches no module.
    """
    known = KNOWN.get(type(network).__name__) if type(network).__module__.startswith("sqlib.models") else None
    if axis is None and known is not None:
        axis = known[1]
    if patterns is None:
        patterns = () if known is None else (known[0],)
    names = [name for name, _ in network.named_modules() if name]
    chosen = []
    for pattern in patterns:
        found = [name for name in names if _matches(name, pattern)]
        if not found:
            shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
            raise InputError(
                f"features: {pattern!r} matches no module of {type(network).__name__}, which has {shown}; "
                "'*' stands for one part of a name, () compares outputs alone"
            )
        chosen += found
    return Taps(tuple(name for name in names if name in set(chosen)), axis)


def channel_axis(feature: Tensor, axis: int | None) -> int:
    """The channel axis of a feature."""
    if axis is not None:
        return axis
    return 1 if feature.ndim == 4 else -1


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(fnmatchcase(p, w) for p, w in zip(parts, wanted, strict=True))
