"""How a release names the tensors of a network of ours: one table, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from sqlib.errors import InputError
from sqlib.models._common import RGBMean


@dataclass(frozen=True)
class Layout:
    """Names of a release beside ours.

    Attributes
    ----------
    names : mapping of str to str or tuple of str
        The beginning of their name -> the beginning of ours; ``*`` stands for one part between dots, and the
        first entry that fits counts. Several names of ours mean that the release stacks these tensors along
        the first axis. What no entry fits has the same name on both sides.
    constants : tuple of str
        Patterns of their tensors that hold no weights.
    check : callable or None
        Raises InputError where constants of a file are not those that our network computes with.
    biases : float
        What their biases are multiplied by: of convolutions and ReLUs alone, this puts a network that
        computes in another range of pixel values into ours.
    """

    names: Mapping[str, str | tuple[str, ...]]
    constants: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Tensor]], None] | None = None
    biases: float = 1.0

    def is_constant(self, theirs: str) -> bool:
        """Whether their tensor holds no weights."""
        return any(fnmatchcase(theirs, pattern) for pattern in self.constants)

    def ours(self, theirs: str) -> tuple[str, ...]:
        """Our names for their tensor."""
        for pattern, targets in self.names.items():
            for target in (targets,) if isinstance(targets, str) else targets:
                renamed = _swap(theirs, pattern, target)
                if renamed is not None:
                    rest = (targets,) if isinstance(targets, str) else targets
                    return tuple(str(_swap(theirs, pattern, each)) for each in rest)
        return (theirs,)

    def theirs(self, ours: str) -> str:
        """Their name for our tensor."""
        for target, patterns in self.names.items():
            for pattern in (patterns,) if isinstance(patterns, str) else patterns:
                renamed = _swap(ours, pattern, target)
                if renamed is not None:
                    return renamed
        return ours

    def scaled(self, theirs: str, value: Tensor) -> Tensor:
        """Their tensor in the range of values that our network computes in."""
        return value * self.biases if self.biases != 1 and theirs.endswith(".bias") else value

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state`` under our names, without constants; unknown names pass through.

        Raises
        ------
        InputError
            From ``check``.
        """
        if self.check is not None:
            self.check(state)
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            if self.is_constant(key):
                continue
            value = self.scaled(key, value)
            names = self.ours(key)
            if len(names) == 1:
                renamed[names[0]] = value
            elif value.dim() and len(value) % len(names) == 0:
                renamed.update(zip(names, value.chunk(len(names)), strict=True))
            else:
                renamed[key] = value
        return renamed


OWN = Layout({})
"""Our own names."""


def _swap(name: str, pattern: str, target: str) -> str | None:
    """``name`` with its beginning, which fits ``pattern``, written as ``target``; None if it does not fit."""
    parts, wanted = name.split("."), pattern.split(".")
    if len(parts) < len(wanted) or any(w not in ("*", p) for p, w in zip(parts, wanted)):
        return None
    kept = iter([p for p, w in zip(parts, wanted) if w == "*"])
    return ".".join([next(kept) if t == "*" else t for t in target.split(".")] + parts[len(wanted) :])


def check_mean(state: Mapping[str, Tensor], rgb_range: float) -> None:
    """Compare the fixed colour shifts of a file, 1x1 convolutions, with :class:`RGBMean` at ``rgb_range``.

    A network trained with another mean or in another range would load and silently compute something else.

    Raises
    ------
    InputError
        Names the shift that differs.
    """
    mean = RGBMean(rgb_range=rgb_range).mean.flatten()
    for key, weight in state.items():
        sign = {"sub_mean": -1, "add_mean": 1}.get(key.split(".")[0])
        bias = state.get(f"{key.removesuffix('weight')}bias")
        if sign is None or not key.endswith("weight") or bias is None or weight.shape != (3, 3, 1, 1):
            continue
        same = torch.allclose(weight.flatten(1).float(), torch.eye(3), atol=1e-4)
        if not same or not torch.allclose(bias.float(), sign * mean, rtol=1e-3):
            raise InputError(
                f"{key.removesuffix('.weight')} shifts colours by {[round(v, 4) for v in bias.tolist()]}, "
                f"expected {[round(v, 4) for v in (sign * mean).tolist()]}: these weights were trained with "
                "another mean or another range of pixel values, and would give wrong images here"
            )
