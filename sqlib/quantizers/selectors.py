"""Who decides how many bits a sample gets: the protocol, and the selectors that look at no values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sqlib._checks import check_bits
from sqlib.errors import InputError
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState


class Selector(Protocol):
    """Chooses a bit-width for every sample at one operand; a `torch.nn.Module`, with or without parameters.

    It is part of its `QuantizerBank`, and with that of the network: moved, copied, trained and saved with it
    (`sqlib.quantizers.saved_as`). What selectors of several sites share in a pass, such as the edges of the
    input, belongs into ``context.data``.
    """

    def __call__(self, x: Tensor, site: Any, context: Any) -> Tensor | Sequence[int] | int:
        """Choose.

        Parameters
        ----------
        x : Tensor
            The operand. Its first axis holds the samples in order, one entry or a block of equal size each
            (the windows of a Swin transformer).
        site
            The call site (`sqlib.engine.Site`); None where a bank is called alone, outside of a network.
        context
            The pass (`sqlib.engine.Context`): input, roles, free data, the bits chosen so far; or None.

        Returns
        -------
        int, Tensor or a sequence of int
            Bit-widths among those of the bank, as integers: one for all samples, or (samples,).

            Or shares, floating, (samples, widths) with the widths in ascending order: a sample gets the width
            of its largest share (of equal ones the smaller width). While gradients are computed, the backward
            pass sees the mixture of all quantizers with these shares, so that they can be learned.
        """


@saved_as("static-bits")
class StaticBits(QuantizerState):
    """The same width for every sample.

    Parameters
    ----------
    bits : int
        1 to 16, or 32.
    """

    checked: ClassVar[tuple[str, ...]] = ("bits",)
    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = check_bits(bits, full_precision=True)

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StaticBits:
        """From `options`."""
        return cls(options["bits"])

    def forward(self, x: Tensor, site: Any, context: Any) -> int:
        """The width."""
        return self.bits

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


@saved_as("by-role")
class ByRole(QuantizerState):
    """The width that goes with the role of a sample.

    Parameters
    ----------
    bits : mapping of str to int
        Role to width, as in ``{"reference": 8, "query": 4}``.
    default : int or None
        Width of samples without a role, or with another one; None refuses them.
    """

    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, bits: Mapping[str, int], *, default: int | None = None) -> None:
        super().__init__()
        if not isinstance(bits, Mapping) or not bits or not all(isinstance(role, str) for role in bits):
            raise InputError(
                f"bits={bits!r}: expected widths by role, such as {{'reference': 8, 'query': 4}}"
            )
        self.bits = {role: check_bits(b, full_precision=True) for role, b in sorted(bits.items())}
        self.default = None if default is None else check_bits(default, full_precision=True)

    @property
    def checked(self) -> tuple[str, ...]:  # type: ignore[override]
        """One entry for each role."""
        return ("default", *(f"bits of {role!r}" for role in self.bits))

    def setting(self, name: str) -> int | None:
        """The width of a role."""
        return {f"bits of {role!r}": b for role, b in self.bits.items()}.get(name, self.default)

    def options(self) -> dict[str, Any]:
        """As given."""
        return {"bits": self.bits, "default": self.default}

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ByRole:
        """From `options`."""
        return cls(options["bits"], default=options["default"])

    def forward(self, x: Tensor, site: Any, context: Any) -> tuple[int, ...]:
        """One width for each sample."""
        roles = (None,) if context is None else context.roles
        chosen = [self.default if role is None else self.bits.get(role, self.default) for role in roles]
        found = tuple(width for width in chosen if width is not None)
        if len(found) < len(chosen):
            role = roles[chosen.index(None)]
            raise InputError(
                f"{'samples without a role' if role is None else f'the role {role!r}'}: bits are known for "
                f"{', '.join(map(repr, self.bits))}; run in quantized.context(roles=...), or give a default"
            )
        return found

    def extra_repr(self) -> str:
        return f"{self.bits}, default={self.default}"


@saved_as("by-path")
class ByPath(QuantizerState):
    """One width for the samples of one role; another selector decides for all others.

    Parameters
    ----------
    role, bits : str, int
        Samples of this role get this width.
    otherwise : nn.Module
        Asked in passes whose samples have another role, or none.
    widths : tuple of int
        All widths of the bank. Shares that `otherwise` gives for its ``candidates`` are zero for the others.

    Notes
    -----
    All samples of a pass are of the role or none is: those of a role differ in what they look at, so that
    they run in a pass of their own.
    """

    checked: ClassVar[tuple[str, ...]] = ("bits",)
    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, role: str, bits: int, otherwise: nn.Module, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.role, self.bits = role, check_bits(bits, full_precision=True)
        self.widths = tuple(sorted(check_bits(w, full_precision=True) for w in widths))
        if self.bits not in self.widths:
            raise InputError(f"bits={bits}: expected one of the widths {', '.join(map(str, self.widths))}")
        self.otherwise = otherwise

    def options(self) -> dict[str, Any]:
        """As given."""
        named = {f"width {i}": width for i, width in enumerate(self.widths)}
        return {"role": self.role, "bits": self.bits, "widths": named}

    def parts(self) -> dict[str, nn.Module]:
        """The other selector."""
        return {"otherwise": self.otherwise}

    @classmethod
    def rebuild(
        cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module]
    ) -> ByPath:
        """From `options` and the other selector."""
        return cls(options["role"], options["bits"], parts["otherwise"], tuple(options["widths"].values()))

    def forward(self, x: Tensor, site: Any, context: Any) -> Tensor | Sequence[int] | int:
        """The width, or what the other selector says."""
        roles = set() if context is None else set(context.roles)
        if roles == {self.role}:
            return self.bits
        if self.role in roles:
            raise InputError(
                f"a pass over samples of the role {self.role!r} and others: run them in passes of their own"
            )
        found = self.otherwise(x, site, context)
        candidates = getattr(self.otherwise, "candidates", None)
        if not (isinstance(found, Tensor) and found.is_floating_point()) or candidates in (None, self.widths):
            return found  # type: ignore[no-any-return]
        own = dict(zip(candidates, found.unbind(1), strict=True))
        none = torch.zeros_like(found[:, 0])
        return torch.stack([own.get(width, none) for width in self.widths], 1)

    def extra_repr(self) -> str:
        return f"{self.role!r}: {self.bits}"
