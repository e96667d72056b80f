"""PAMS's quantizer against its formula in float64, and its gradients against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sqlib.errors import InputError
from sqlib.quantizers import SymmetricQuantizer


def formula(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Eq. 3 with the rounding passed straight through."""
    n = 2 ** (bits - 1) - 1
    clipped = torch.where(x > alpha, alpha, torch.where(x < -alpha, -alpha, x))
    u = clipped * n / alpha
    return (u + (torch.round(u) - u).detach()) * alpha / n


def off_ties(x: Tensor, alpha: float, bits: int) -> Tensor:
    """Values that lie halfway between two levels are moved a little."""
    u = x * (2 ** (bits - 1) - 1) / alpha
    return torch.where(((u % 1) - 0.5).abs() < 1e-6, x + 1e-4 * alpha, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 5, 5), ()])
@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), alpha=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_the_formula_and_its_gradients(
    dtype: torch.dtype, shape: tuple[int, ...], bits: int, alpha: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = off_ties(torch.randn(shape, generator=generator, dtype=torch.float64) * alpha, alpha, bits)
    x = x.to(dtype).requires_grad_()
    quantizer = SymmetricQuantizer(alpha, bits).learnable()
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    y = quantizer(x)
    (y.double() * weight).sum().backward()
    exact = x.detach().double().requires_grad_()
    bound = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    expected = formula(exact, bound, bits)
    (expected * weight).sum().backward()
    tolerance = (
        dict(rtol=1e-5, atol=1e-5 * alpha) if dtype == torch.float32 else dict(rtol=1e-12, atol=1e-12 * alpha)
    )
    assert torch.allclose(y.double(), expected, **tolerance)
    assert torch.allclose(x.grad.double(), exact.grad, rtol=1e-6)  # type: ignore[union-attr, arg-type]
    # the closed form of the module's docstring
    n = 2 ** (bits - 1) - 1
    u = exact.detach() * n / alpha
    slope = torch.where(u.abs() > n, u.sign(), (torch.round(u) - u) / n)
    total = float((weight * slope).sum())
    assert float(bound.grad) == pytest.approx(total, rel=1e-9, abs=1e-9)  # type: ignore[arg-type]
    close = 2e-4 if dtype == torch.float32 else 1e-9
    assert float(quantizer.alpha.grad) == pytest.approx(total, rel=close, abs=close)  # type: ignore[arg-type]


def test_levels_are_one_fewer_and_symmetric() -> None:
    quantizer = SymmetricQuantizer(1.5, 3)
    found = quantizer(torch.linspace(-4, 4, 10001)).unique()
    assert torch.allclose(found, torch.arange(-3, 4) * 0.5)
    assert set(quantizer.codes(torch.linspace(-4, 4, 1001)).unique().tolist()) == set(range(7))
    assert quantizer(torch.zeros(5)).eq(0).all()


def test_paths_agree_bit_for_bit() -> None:
    x = torch.randn(4, 8, 33, 17) * 2
    for bits in (2, 4, 8):
        quantizer = SymmetricQuantizer(1.7, bits)
        assert torch.equal(quantizer(x), quantizer.fake_torch(x))
        strided = x.to(memory_format=torch.channels_last)
        assert torch.equal(quantizer(strided), quantizer(x))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_bounds_that_are_none(alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha=.*: expected a positive bound"):
        SymmetricQuantizer(alpha, 4)
    quantizer = SymmetricQuantizer(1.0, 4).learnable()
    with torch.no_grad():
        quantizer.alpha.fill_(alpha)
    for x in (torch.ones(3), torch.ones(3, requires_grad=True)):
        with pytest.raises(InputError, match="lower its rate"):
            quantizer(x)


def test_state_travels() -> None:
    one, other = SymmetricQuantizer(1.0, 4), SymmetricQuantizer(2.5, 4)
    one.load_state_dict(other.state_dict())
    assert float(one.alpha) == 2.5
    with pytest.raises(RuntimeError, match="saved with bits=4, here it is bits=3"):
        SymmetricQuantizer(1.0, 3).load_state_dict(other.state_dict())
    again = SymmetricQuantizer.rebuild(other.learnable().options(), other.state_dict())
    assert again.trainable and again.alpha.item() == 2.5 and again.fixed().trainable is False
    assert again.half().alpha.dtype == torch.float64
