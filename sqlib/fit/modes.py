"""What a model is in while its bounds are trained, and how it gets back to what it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sqlib.fit.variables import Variables

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


@contextmanager
def prepared(model: QuantizedModel) -> Iterator[None]:
    """Evaluation mode, no gradients to the network's parameters, half precision widened; then as before."""
    _leave_inference_mode(model)
    modes = {m: m.training for m in model.modules()}
    tensors = [*model.network.parameters(), *model.network.buffers()]
    kinds = [(t, t.dtype) for t in tensors if t.dtype in (torch.float16, torch.bfloat16)]
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for p in trained:
        p.requires_grad_(False)
    for t, _ in kinds:
        t.data = t.data.float()
    model.refresh()
    try:
        yield
    finally:
        for t, kind in kinds:
            t.data = t.data.to(kind)
        for p in trained:
            p.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
        model.refresh()


@contextmanager
def training(variables: Variables) -> Iterator[None]:
    """What is trained collects gradients; afterwards bounds are what they were, parameters or buffers."""
    mine = [q for q in variables.pairs if not isinstance(q.lower, nn.Parameter)]
    for q in mine:
        q.learnable()
    for t in variables.tensors():
        t.requires_grad_(True)
    with ExitStack() as stack:
        for hook in variables.count():
            stack.callback(hook.remove)
        try:
            yield
        finally:
            for t in variables.tensors():
                t.requires_grad_(False)
                t.grad = None
            for q in mine:
                q.fixed()


def _leave_inference_mode(model: nn.Module) -> None:
    """Replace tensors made in inference mode, which can take no part in a backward pass, by copies."""
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, t in store.items():
                if t is not None and t.is_inference():
                    copied: Any = t.detach().clone()
                    trains = isinstance(t, nn.Parameter)
                    store[name] = nn.Parameter(copied, t.requires_grad) if trains else copied
