"""Whether what a network does can depend on the values of its input."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Ways out of a tensor that are no operations.
ESCAPES = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Reads(TorchDispatchMode):
    """Follows a tensor through a pass, to see whether Python, or a shape, gets to know its values.

    A branch on an activation reads a number that was computed from the input. One on a size, a setting or a
    parameter does not.

    Attributes
    ----------
    found
        Whether it has happened.
    """

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.found = False
        self._marked: set[int] = set()
        self._mark(source)

    def _mark(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._marked:
            self._marked.add(storage._cdata)
            weakref.finalize(storage, self._marked.discard, storage._cdata)

    def look(self, values: Any) -> bool:
        """Whether one of these tensors was computed from the source."""
        leaves = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
        return any(leaf.untyped_storage()._cdata in self._marked for leaf in leaves)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        derived = self.look((args, kwargs))
        self.found |= derived and not _TAGS.isdisjoint(func.tags)
        out = func(*args, **(kwargs or {}))
        if derived:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._mark(leaf)
        return out
