"""The context of one forward pass: everything that can differ from sample to sample in it.

A pass has one if somebody asked for it (`QuantizedModel.context`, `QuantizedModel.passes`) or if the network
has a bank of quantizers, whose selectors see it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sqlib.engine.batches import copied, tensors
from sqlib.engine.ranges import images
from sqlib.errors import InputError

Widths = int | tuple[int, ...] | Tensor
Roles = str | Sequence[str | None] | None


class Context:
    """One forward pass of a quantized network: what went in, and the bits that every call site used.

    Attributes
    ----------
    args, kwargs : tuple, dict
        Arguments of the pass.
    samples
        N, the length of the batch: the first axis of the first input with three dimensions or more.
    size : tuple of int or None
        (width, height) of the input in pixels; None for inputs that are no images (N, C, H, W).
    roles : str or sequence of str
        The label of each sample, such as ``"reference"`` or ``"query"``, or None; (N,).
    data : mapping or None
        Free for selectors, which keep here what others need of the same pass: edges of the input, shares for
        a loss. A dictionary in it should be keyed by call site, because what is checkpointed runs twice.
    """

    def __init__(self, roles: Roles = None, data: Mapping[str, Any] | None = None) -> None:
        if not (roles is None or isinstance(roles, str)):
            roles = tuple(roles) if isinstance(roles, Sequence) else (roles,)
            if not all(role is None or isinstance(role, str) for role in roles):
                raise InputError(f"roles={roles!r}: expected a name for all samples, or one for each")
        self._asked = roles
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.samples = 0
        self.size: tuple[int, int] | None = None
        self.roles: tuple[str | None, ...] = ()
        self.data: dict[str, Any] = dict(data or {})
        self._activations: dict[tuple[str, str], Widths] = {}
        self._weights: dict[tuple[str, str], Widths] = {}

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take over the arguments of the pass.

        Raises
        ------
        InputError
            Another number of roles than of samples.
        """
        given = [*args, *kwargs.values()]
        batch = next(iter(images(given) or [t for t in tensors(given) if t.ndim]), None)
        samples = 1 if batch is None else len(batch)
        roles = self._asked if isinstance(self._asked, tuple) else (self._asked,) * samples
        if len(roles) != samples:
            raise InputError(
                f"{len(roles)} roles for a batch of {samples} samples; give a role for each, or one for all"
            )
        self.args, self.kwargs = copied((args, kwargs))  # the network may change its input in place
        self.samples, self.roles = samples, roles
        if batch is not None and batch.ndim == 4:
            self.size = (batch.shape[3], batch.shape[2])

    def record(self, site: str, role: str, widths: Widths, *, weight: bool) -> None:
        """Note the bits of an operand; 32 is full precision."""
        (self._weights if weight else self._activations)[site, role] = widths

    @property
    def operands(self) -> dict[tuple[str, str], Tensor]:
        """(call site, operand) -> bits of each sample, int64 (N,), weights included."""
        return {key: self._each(widths) for key, widths in {**self._activations, **self._weights}.items()}

    @property
    def bits(self) -> dict[str, Tensor]:
        """Call site -> bits of its activation for each sample, int64 (N,); of several, the most."""
        found: dict[str, Tensor] = {}
        for (site, _), widths in self._activations.items():
            each = self._each(widths)
            found[site] = torch.maximum(found[site], each) if site in found else each
        return found

    @property
    def weight_bits(self) -> dict[str, Tensor]:
        """Call site -> bits of its weight for each sample, int64 (N,); only sites that have one."""
        return {site: self._each(widths) for (site, _), widths in self._weights.items()}

    def _each(self, widths: Widths) -> Tensor:
        return torch.as_tensor(widths, dtype=torch.int64, device="cpu").expand(self.samples).clone()

    def __repr__(self) -> str:
        return f"Context(samples={self.samples}, sites={len(self.bits)}, roles={self.roles})"


class _Asked(threading.local):
    """In this thread, innermost last: models, what gives the next pass of each its context, and the list of
    those that want all."""

    stack: tuple[tuple[Any, Callable[[], Context], list[Context] | None], ...] = ()


_asked = _Asked()


def begin(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, needed: bool) -> Context | None:
    """The context of a pass of `model` that begins; None if nobody asked for one and it is not needed."""
    asked = [(make, found) for owner, make, found in reversed(_asked.stack) if owner is model]
    if not asked and not needed:
        return None
    context = asked[0][0]() if asked else Context()
    for _, found in asked:  # a block around one that names roles sees its passes, too
        if found is not None:
            found.append(context)
    context.begin(args, kwargs)
    return context


@contextmanager
def one(model: Any, roles: Roles, data: Mapping[str, Any] | None) -> Iterator[Context]:
    """The context of the one pass in the block."""
    context = Context(roles, data)
    unused = [context]

    def take() -> Context:
        if not unused:
            raise InputError(
                "a context belongs to one pass, and this is the second in its block: open another one, or "
                "use quantized.passes(), which has a context for each"
            )
        return unused.pop()

    with _asking(model, take, None):
        yield context


@contextmanager
def many(model: Any, roles: Roles, data: Mapping[str, Any] | None) -> Iterator[list[Context]]:
    """A list that gets a context for each pass in the block."""
    Context(roles, data)  # bad roles are refused here
    found: list[Context] = []

    with _asking(model, lambda: Context(roles, data), found):
        yield found


@contextmanager
def _asking(model: Any, take: Callable[[], Context], found: list[Context] | None) -> Iterator[None]:
    outer = _asked.stack
    _asked.stack = (*outer, (model, take, found))
    try:
        yield
    finally:
        _asked.stack = outer
