"""Operands that share memory: the same results as without, and never one operand in another's place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sqlib
from sqlib import models
from sqlib.quantizers._workspace import Workspace, empty_like, unlent
from sqlib.recipes import DFSQ, MinMax


class Products(nn.Module):
    """Both operands of a product made from one tensor, and attention with three."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, x.transpose(-2, -1)) @ self.layer(x)
        return y + F.scaled_dot_product_attention(x, 2 * x, 3 * x)


@pytest.mark.parametrize("recipe", [MinMax(bits=4), DFSQ(bits=4, selector="exact")])
@pytest.mark.parametrize("kind", ["edsr-small", "swinir-small", "products"])
def test_lent_memory_changes_no_bit(
    recipe: sqlib.recipes.Recipe, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network: nn.Module = Products() if kind == "products" else models.create(kind, scale=2)
    shape = (2, 6, 8) if kind == "products" else (1, 3, 16, 12)
    x = torch.rand(shape)
    quantized = sqlib.quantize_model(network, recipe, [x, torch.rand(shape)], skip=[])
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(Workspace, "take", lambda self, like, role: torch.empty_like(like))
        kept = quantized(x)  # every operand has memory of its own
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            first = quantized(x)
            again = quantized(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)
        assert torch.equal(first, kept)
        torch.testing.assert_close(again, kept, rtol=0, atol=1e-4)


def test_a_workspace_has_a_buffer_per_role_and_grows() -> None:
    memory = Workspace()
    with memory.lend("left"):
        a, b = empty_like(torch.rand(4, 5)), empty_like(torch.rand(2, 3))
    with memory.lend("right"):
        c = empty_like(torch.rand(4, 5))
    assert a.data_ptr() == b.data_ptr() != c.data_ptr()
    like = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    with memory.lend("left"):
        d = empty_like(like)
        with unlent():
            own = empty_like(like), empty_like(like)
        assert empty_like(like).data_ptr() == d.data_ptr()
    assert len({t.data_ptr() for t in (d, *own)}) == 3
    assert d.shape == like.shape and d.stride() == like.stride()
    assert empty_like(like).data_ptr() != empty_like(like).data_ptr(), "nothing is lent outside the block"


def test_gradients_are_those_of_a_pass_without_lending() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    x = torch.rand(1, 3, 8, 8)
    quantized = sqlib.quantize_model(network, MinMax(bits=4), [x], skip=[])
    quantized(x).square().sum().backward()
    wanted = [p.grad.clone() for p in quantized.network.parameters() if p.grad is not None]
    quantized.zero_grad()
    out = quantized(x)
    with torch.no_grad():
        quantized(torch.rand(1, 3, 8, 8))  # between forward and backward
    out.square().sum().backward()
    found = [p.grad for p in quantized.network.parameters() if p.grad is not None]
    assert len(found) == len(wanted) == 4
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
