"""Which axis of a module's output is the channels: found by marking what its last layer computes.

Images are (N, C, H, W), sequences (N, L, C), maps of Swin transformers (N, H, W, C), and sizes can coincide:
a shape does not tell. The layer that computed the values does: a convolution has its channels second, a
linear layer last. The module runs on one sample with NaN in one channel of that layer's output, then with NaN
at one of its positions; where NaN leaves the module tells what became of the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sqlib.engine import ops


def channel_axis(run: Callable[[], Tensor]) -> int:
    """The channel axis of what `run` returns.

    Parameters
    ----------
    run : callable
        Calls the module on one sample, always in the same way; up to three times.

    Returns
    -------
    int
        Counted from the front. If marks do not tell (values leave a product of two activations, or mix both
        axes afterwards): 1 for four dimensions and more, else the last.
    """
    with torch.no_grad(), _Mark() as plain:
        out = run()
    for position in (False, True):
        with torch.no_grad(), _Mark(plain.layers, position):
            marked = run().isnan() & ~out.isnan()
        axes = [a for a in range(1, out.ndim) if _is_channels(marked.movedim(a, 0).flatten(1), position)]
        if len(axes) == 1:
            return axes[0]
    return 1 if out.ndim >= 4 else out.ndim - 1


def _is_channels(marked: Tensor, position: bool) -> bool:
    """Whether the rows of `marked` are channels.

    Of a marked channel, some rows are marked, and wholly; of a marked position, all rows, in the same places.
    """
    rows = marked.any(1)
    if not position:
        return bool(rows.any() and not rows.all() and marked[rows].all())
    return bool(rows.all() and not marked[0].all() and (marked == marked[:1]).all())


class _Mark(TorchFunctionMode):
    """Counts layers with a weight, and writes NaN into the output of layer number `which`, counted from 1."""

    def __init__(self, which: int = 0, position: bool = False) -> None:
        super().__init__()
        self.which, self.position = which, position
        self.layers = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in ops.COMPOSITE:
            with self:
                return ops.opened(func)(*args, **kwargs)
        out = func(*args, **kwargs)
        op = ops.OPS.get(func)
        if op is None or op.operands[-1].role != "weight":
            return out
        self.layers += 1
        if self.layers != self.which:
            return out
        channels = out.ndim - 1 if op.name == "linear" else out.ndim - 1 - int(op.name[-2])
        marked = out.clone()
        rows = marked.movedim(channels, 0)
        place = rows[(slice(None), *[0] * (out.ndim - 1))] if self.position else rows[0]
        place.fill_(torch.nan)
        return marked
