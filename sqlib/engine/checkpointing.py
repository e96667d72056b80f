"""Activation checkpointing inside a network: what the backward pass computes again is traced as at first.

`torch.utils.checkpoint` runs a part of the network without keeping its activations, and once more during the
backward pass, long after the pass that was traced. The functions it is given are wrapped so that this second
time sees the quantizers, module paths and call indices of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch.utils.checkpoint as torch_checkpoint

from sqlib.engine.running import running

if TYPE_CHECKING:
    from sqlib.engine.tracing import Tracer

_INSTALLED = "_traced_by_sqlib"


def install() -> None:
    """Make `torch.utils.checkpoint` tell the running tracer, if there is one in its thread; once a process.

    Networks hold on to ``checkpoint`` itself under names of their own, so its two inner halves are wrapped:
    the reentrant one is a class, the other a generator function.
    """
    reentrant = torch_checkpoint.CheckpointFunction
    if hasattr(reentrant, _INSTALLED):
        return

    def apply(cls: Any, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        tracer = running.tracer
        if tracer is not None and not tracer.recomputes:
            return function(*args)
        if tracer is not None:
            function = _Recomputed(tracer, function, first=True)
        return super(reentrant, cls).apply(function, preserve, *args)

    plain = torch_checkpoint._checkpoint_without_reentrant_generator

    def generator(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
        tracer = running.tracer
        if tracer is not None and not tracer.recomputes:
            return (None for _ in range(1))  # nothing to do before and after the function runs
        if tracer is not None:
            function = _Recomputed(tracer, function, first=False)
        return plain(function, *args, **kwargs)  # type: ignore[no-any-return]

    reentrant.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    torch_checkpoint._checkpoint_without_reentrant_generator = generator  # type: ignore[assignment]
    setattr(reentrant, _INSTALLED, True)


class _Recomputed:
    """A function that a checkpoint runs, with the state of its tracer at that moment.

    Parameters
    ----------
    tracer : Tracer
        Runs at the moment.
    function : callable
        What the checkpoint was given.
    first : bool
        Whether the first call belongs to the pass that runs at the moment.
    """

    def __init__(self, tracer: Tracer, function: Callable[..., Any], *, first: bool) -> None:
        self.function, self.first = function, first
        self.tracer, self.resume = tracer, tracer.snapshot()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.first:
            self.first = False
            with self.tracer.checkpointed():
                return self.function(*args, **kwargs)
        with self.resume():
            return self.function(*args, **kwargs)
