"""Memory that fake-quantized operands of one forward pass share.

A fresh tensor of some megabytes costs several times its arithmetic in page faults. A quantized operand is
read by one product and then never again, so within a pass the next operand can have its memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class _Lent(threading.local):
    """The workspace and the role that the running quantizer writes for, if any."""

    to: tuple[Workspace, str] | None = None


_lent = _Lent()


class Workspace:
    """One buffer per operand role ("input", "left", ...) and dtype, as large as the largest operand so far.

    Only for passes without gradients (autograd keeps operands), and only for tensors that nobody keeps.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    @contextmanager
    def lend(self, role: str) -> Iterator[None]:
        """Within the block, in this thread, :func:`empty_like` takes CPU memory from here."""
        outer = _lent.to
        _lent.to = self, role
        try:
            yield
        finally:
            _lent.to = outer

    def take(self, like: Tensor, role: str) -> Tensor:
        """A tensor of the shape, layout and dtype of ``torch.empty_like(like)``; overwrites the last one."""
        key = role, like.dtype
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < like.numel():
            buffer = self._buffers[key] = torch.empty(like.numel(), dtype=like.dtype)
        stride = like.stride() if like.is_contiguous() else torch.empty_like(like, device="meta").stride()
        return buffer.as_strided(like.shape, stride)


@contextmanager
def apart() -> Iterator[None]:
    """Within the block, :func:`empty_like` leaves alone what it gave before."""
    outer = _lent.to
    _lent.to = None if outer is None else (outer[0], outer[1] + " apart")
    try:
        yield
    finally:
        _lent.to = outer


@contextmanager
def unlent() -> Iterator[None]:
    """Within the block, :func:`empty_like` has no lent memory: several results are needed at once."""
    outer = _lent.to
    _lent.to = None
    try:
        yield
    finally:
        _lent.to = outer


def empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like(x)``, in lent memory where there is some."""
    if _lent.to is None or x.device.type != "cpu":
        return torch.empty_like(x)
    workspace, role = _lent.to
    return workspace.take(x, role)
