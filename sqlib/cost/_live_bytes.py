"""Which tensors of a forward pass are alive at once, without allocating them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Follows every tensor that operations create on one device, from creation to release.

    Parameters
    ----------
    kept : iterable of Tensor
        Tensors that exist before (the weights); they and views of them are not counted.
    device : str
        Type of the device to watch, ``"meta"`` or a real one.

    Attributes
    ----------
    peak
        Most bytes alive at one moment. Buffers inside an operation (such as a convolution's unfolded input)
        are not seen.
    """

    def __init__(self, kept: Iterable[Tensor], device: str) -> None:
        super().__init__()
        self.device = device
        self.kept = [t.untyped_storage() for t in kept]  # referenced, so that no address is used again
        self.alive: dict[int, int] = {storage._cdata: 0 for storage in self.kept}
        self.now = self.peak = 0

    def add(self, tensor: Tensor) -> None:
        """Count the memory behind a tensor, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if tensor.device.type != self.device or key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.now += self.alive[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out
