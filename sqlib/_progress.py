"""Long fits say how far they are to whoever listens; nobody does by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Hears of steps."""

    def expect(self, total: int) -> None:
        """A part of `total` steps begins."""

    def tick(self) -> None:
        """One step is done."""


_LISTENER: ContextVar[Listener | None] = ContextVar("sqlib progress", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Report the steps taken inside to `listener`."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def expect(total: int) -> None:
    """Say that a part of `total` steps begins."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.expect(total)


def tick() -> None:
    """Say that one step is done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.tick()
