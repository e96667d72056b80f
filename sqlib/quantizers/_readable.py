"""Whether Python may look at the values of a tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def readable(x: Tensor) -> bool:
    """Whether values can be read at no cost: they are in main memory, and no graph is being recorded.

    Elsewhere a look waits for all that the device has to do; while `torch.export` and the like record a graph
    there are no values.
    """
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and not recorded()


def recorded() -> bool:
    """Whether torch records a graph of what runs (`torch.export`, tracing); gradients are no part of it."""
    return bool(torch._C._get_tracing_state()) or torch.compiler.is_compiling()
