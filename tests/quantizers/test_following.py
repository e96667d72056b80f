"""Weight ranges that follow the weight: PAMS's maximum and DDTB's percentiles."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import sqlib
from sqlib.errors import InputError
from sqlib.quantizers import FollowingQuantizer
from sqlib.quantizers._saved import describe, rebuild


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_maximum_against_the_formula(bits: int) -> None:
    w = torch.randn(8, 4, 3, 3)
    n, alpha = 2 ** (bits - 1) - 1, w.abs().max() + 1e-8
    expected = torch.round(w * n / alpha) * alpha / n
    assert torch.allclose(FollowingQuantizer(bits)(w), expected, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_percentiles_against_numpy(bits: int) -> None:
    w = torch.randn(8, 4, 3, 3, dtype=torch.float64)
    lower, upper = np.percentile(w.numpy(), [1, 99])
    scale = (upper - lower) / (2**bits - 1)
    low = round(lower / scale) * scale
    codes = np.clip(np.rint((w.numpy() - low) / scale), 0, 2**bits - 1)
    quantizer = FollowingQuantizer(bits, percentile=99)
    assert np.allclose(quantizer(w).numpy(), codes * scale + low, atol=1e-12)
    assert float(quantizer.at(w)(torch.zeros(()))) == 0, "zero is a level"


def test_gradients_pass_straight_through_inside_the_range_alone() -> None:
    w = torch.randn(500, requires_grad=True)
    FollowingQuantizer(4)(w).sum().backward()
    assert w.grad is not None
    # the largest magnitude is the end of the range, and rounding may put it on either side
    assert w.grad[w.abs() < w.detach().abs().max()].eq(1).all()
    w.grad = None
    FollowingQuantizer(4, percentile=90)(w).sum().backward()
    assert 0.75 < float(w.grad.mean()) < 0.85
    assert set(w.grad.tolist()) == {0.0, 1.0}


def test_the_range_follows_the_weight_in_a_network() -> None:
    network = sqlib.models.create("edsr-small", scale=2)
    crops = [torch.rand(2, 3, 16, 16)]
    quantized = sqlib.quantize_model(network, sqlib.recipes.PAMS(bits=4, steps=0), crops)
    before = quantized(crops[0])
    with torch.no_grad():
        quantized.network.blocks[0].conv1.weight *= 3
    weight = quantized.network.blocks[0].conv1.weight.detach()
    key = next(k for k in quantized.weights if k.startswith("blocks/0/conv1"))
    assert torch.equal(quantized.weights[key](weight), FollowingQuantizer(4)(weight))
    assert not torch.equal(quantized(crops[0]), before)


def test_all_zeros_and_constants_stay() -> None:
    for value in (0.0, 2.5):
        w = torch.full((3, 3), value)
        assert torch.allclose(FollowingQuantizer(4)(w), w)
        assert torch.allclose(FollowingQuantizer(4, percentile=99)(w), w)


def test_saved_and_copied() -> None:
    for quantizer in (FollowingQuantizer(3), FollowingQuantizer(5, percentile=99.5)):
        again = rebuild(*describe(quantizer))
        w = torch.randn(50)
        assert torch.equal(again(w), quantizer(w))
        assert torch.equal(copy.deepcopy(quantizer)(w), quantizer(w))
        assert again.percentile == quantizer.percentile  # type: ignore[union-attr]


def test_bad_input() -> None:
    for percentile in (50, 101, "99"):
        with pytest.raises(InputError, match="percentile"):
            FollowingQuantizer(4, percentile=percentile)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="NaN or infinite"):
        FollowingQuantizer(4)(torch.tensor([1.0, torch.nan]))
