"""DDTB's quantizer: forward pass and gradients against the formulas, batches against samples, state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from sqlib.codebook import Bounds
from sqlib.errors import InputError
from sqlib.quantizers import Gate, GatedQuantizer, UniformQuantizer, _saved
from sqlib.quantizers._workspace import Workspace


class Factors(nn.Module):
    """A gate that says what it is told to."""

    axis = -3

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = nn.Parameter(factors)

    def forward(self, x: Tensor) -> Tensor:
        return self.factors


def gated(lower=-0.8, upper=1.7, bits=4, gate=None, channels=4, axis=-3, seed=0):
    return GatedQuantizer(Bounds(lower, upper, bits, np.nan), gate or opened(channels, axis, seed))


def opened(channels=4, axis=-3, seed=0):
    """A gate whose factors differ between samples."""
    gate = Gate(channels, axis, seed=seed)
    gate.start(torch.randn(64, channels, generator=torch.Generator().manual_seed(seed)), 99.0)
    with torch.no_grad():
        gate.second.weight.mul_(20)
    return gate.eval()


def on(quantizer):
    quantizer.on = True
    return quantizer


def images(samples=5, channels=4, side=9, seed=1, dtype=torch.float32):
    """Samples of very different means and contrasts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, channels, side, side - 1, generator=generator, dtype=dtype)
    return x * torch.linspace(0.2, 2, samples, dtype=dtype).view(-1, 1, 1, 1) + torch.randn(
        samples, channels, 1, 1, generator=generator, dtype=dtype
    )


def published(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    """The expression of the release, every rounding passed straight through."""

    def rounded(v: Tensor) -> Tensor:
        return v + (torch.round(v) - v).detach()

    scale = (2**bits - 1) / (upper - lower)
    zero = rounded(scale * lower) + 2 ** (bits - 1)
    codes = rounded(scale * torch.minimum(torch.maximum(x, lower), upper) - zero)
    return (codes + zero) / scale


def off_ties(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    """Values halfway between levels, or on a bound, are moved a little."""
    step = (upper - lower) / (2**bits - 1)
    near = ((x / step % 1) - 0.5).abs() < 1e-6
    return torch.where(near, x + 1e-4 * step, x)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    lower=st.floats(-3, 0.2),
    width=st.floats(0.5, 5),
    snapped=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_formula_and_its_gradients(bits, lower, width, snapped, seed):
    generator = torch.Generator().manual_seed(seed)
    factors = 0.5 + torch.rand(3, 2, generator=generator, dtype=torch.float64)
    if snapped:  # then zero is a level between the bounds as they are, and both gradients are the same
        lower = round(lower * (2**bits - 1) / width) * width / (2**bits - 1)
        factors = factors[:, :1].expand(3, 2).clone()
    if float((factors[:, 1] * (lower + width) - factors[:, 0] * lower).min()) < 0.1 * width:
        return
    quantizer = on(gated(lower, lower + width, bits, Factors(factors.clone()))).learnable()
    bounds = [t.detach() for t in quantizer.sample_bounds(torch.zeros(3, 1, 1, 1))]
    columns = [b.view(-1, 1, 1, 1) for b in bounds]
    x = torch.randn(3, 4, 5, 5, generator=generator, dtype=torch.float64) * width
    x = off_ties(x, *columns, bits)
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    own = x.clone().requires_grad_()
    out = quantizer(own)
    (out * weight).sum().backward()

    l, u = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (lower, lower + width))  # noqa: E741
    beta = factors.clone().requires_grad_()
    theirs = x.clone().requires_grad_()
    l_n, u_n = ((b * beta[:, i]).view(-1, 1, 1, 1) for i, b in enumerate((l, u)))
    expected = published(theirs, l_n, u_n, bits)
    (expected * weight).sum().backward()
    assert torch.allclose(out, expected, rtol=1e-9, atol=1e-9 * width)

    # the closed forms of the module's docstring
    step = (columns[1] - columns[0]) / (2**bits - 1)
    low = step * torch.round(columns[0] / step)
    high = low + columns[1] - columns[0]
    share = (expected.detach() - torch.minimum(torch.maximum(x, low), high)) / (high - low)
    to_u = (weight * ((x > high).double() + share)).sum((1, 2, 3))
    to_l = (weight * ((x < low).double() - share)).sum((1, 2, 3))
    close = dict(rtol=1e-8, atol=1e-8)
    assert torch.equal(own.grad, weight * ((x >= low) & (x <= high)))
    assert torch.allclose(quantizer.upper.grad, (factors[:, 1] * to_u).sum(), **close)
    assert torch.allclose(quantizer.lower.grad, (factors[:, 0] * to_l).sum(), **close)
    to_factors = torch.stack([lower * to_l, (lower + width) * to_u], 1)
    assert torch.allclose(quantizer.gate.factors.grad, to_factors, **close)
    if snapped:
        assert torch.allclose(own.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        assert torch.allclose(quantizer.upper.grad, u.grad, **close)
        assert torch.allclose(quantizer.lower.grad, l.grad, **close)
        assert torch.allclose(quantizer.gate.factors.grad, beta.grad, **close)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 2.0), (-2.0, 0.0)])
def test_gradients_of_clipped_values_are_true_ones(lower, upper):
    """Clipped values are not rounded where one bound is zero, a level whatever the other one is."""
    x = torch.tensor([-5.0, 6.0, 7.0, -4.0], dtype=torch.float64).view(2, 2, 1, 1)
    factors = torch.tensor([[0.7, 1.1], [1.2, 0.9]], dtype=torch.float64)
    quantizer = on(gated(lower, upper, 3, Factors(factors))).learnable()
    side = int(upper > 0)
    bound = quantizer.upper if side else quantizer.lower
    found = torch.autograd.grad(quantizer(x).sum(), [bound, quantizer.gate.factors])
    sums = quantizer(x).detach().sum((1, 2, 3))  # one of two values of each sample is at the moving bound
    assert sums.tolist() == pytest.approx((factors[:, side] * (lower + upper)).tolist())
    assert float(found[0]) == pytest.approx(float(difference(quantizer, x, bound, ...)), rel=1e-6)
    for n in (0, 1):
        expected = difference(quantizer, x, quantizer.gate.factors, (n, side))
        assert float(found[1][n, side]) == pytest.approx(float(expected), rel=1e-6)


@torch.no_grad()
def difference(quantizer, x, parameter, place, h=1e-6):
    """Derivative of the summed output with respect to an entry of a parameter, by central differences."""
    sums = []
    for step in (h, -2 * h):
        parameter[place] += step
        sums.append(quantizer(x).sum())
    parameter[place] += h
    return (sums[0] - sums[1]) / (2 * h)


def test_gradients_of_the_gate_are_true_ones_between_its_roundings():
    """Behind the last bias nothing is rounded any more; through the roundings gradients pass."""
    gate = opened().double()
    x = images(3, dtype=torch.float64)
    weight = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((gate(x) * weight).sum(), [gate.second.bias, gate.first.weight])

    def weighted(_):
        return (gate(x) * weight).sum()

    for i in (0, 1):
        assert float(found[0][i]) == pytest.approx(
            float(difference(weighted, x, gate.second.bias, i)), rel=1e-6
        )
    assert float(found[1].abs().max()) > 0


def test_no_gradient_goes_through_the_gate_to_the_values():
    x = images().requires_grad_()
    quantizer = on(gated())
    factors = quantizer.gate(x.detach()).detach()
    through = torch.autograd.grad(quantizer(x).sum(), x)[0]
    fixed = torch.autograd.grad(on(gated(gate=Factors(factors)))(x).sum(), x)[0]
    assert torch.equal(through, fixed)


LAYOUTS = {
    "plain": images(),
    "channels last": images().to(memory_format=torch.channels_last),
    "strided": images()[:, :, ::2],
    "double": images(dtype=torch.float64),
    "bfloat16": images().bfloat16(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_equals_its_samples_alone(layout):
    x, quantizer = LAYOUTS[layout], on(gated().eval())
    alone = torch.cat([quantizer(one) for one in x.split(1)])
    assert torch.equal(quantizer(x), alone) and quantizer(x).dtype == x.dtype
    assert torch.equal(quantizer(x.clone().requires_grad_()).detach(), alone)
    assert torch.equal(quantizer.codes(x), torch.cat([quantizer.codes(one) for one in x.split(1)]))
    assert torch.equal(quantizer(x[1]), alone[1])  # without a batch axis
    with torch.inference_mode(), Workspace().lend("input"):
        assert torch.equal(quantizer(x), alone)
    assert not torch.equal(alone[:1], gated().eval()(x[:1]))  # the gate does something


def test_every_sample_is_the_uniform_quantizer_between_its_bounds():
    x, quantizer = images(), on(gated().eval())
    lower, upper = (b.tolist() for b in quantizer.sample_bounds(x))
    assert len(set(upper)) > 3
    for i, one in enumerate(x):
        assert torch.equal(quantizer(x)[i], UniformQuantizer(Bounds(lower[i], upper[i], 4, np.nan))(one))


def test_sequences_have_their_channels_last():
    x = images(3, 7, 6).flatten(2).transpose(1, 2)
    quantizer = on(gated(channels=7, axis=-1).eval())
    assert torch.equal(quantizer(x), torch.cat([quantizer(one) for one in x.split(1)]))
    rows = x.mean(1)
    assert torch.equal(quantizer(rows)[1], quantizer(rows[1]))
    assert torch.equal(quantizer.gate.pool(rows), rows)


def test_off_it_is_the_uniform_quantizer():
    x, quantizer = images(), gated()
    assert torch.equal(quantizer(x), quantizer.static()(x))
    assert quantizer.bits == 4 and quantizer.top == 15 and type(quantizer.static()) is UniformQuantizer
    assert torch.equal(quantizer.codes(x), quantizer.static().codes(x))


def test_factors_of_one_change_nothing():
    x = images()
    assert torch.equal(on(gated(gate=Factors(torch.ones(5, 2))))(x), gated()(x))


@pytest.mark.parametrize("lower", [0.5, -1.7, -2.0])
def test_bounds_that_would_cross_keep_a_distance(lower):
    upper = lower + 1.0
    factors = torch.tensor([[2.0, 0.01], [0.01, 2.0], [1.0, 1.0]])
    quantizer = on(gated(lower, upper, 4, Factors(factors))).learnable()
    low, high = quantizer.sample_bounds(torch.zeros(3, 4, 1, 1))
    assert bool((high - low >= 0.01 - 1e-12).all()) and torch.equal(low[2], quantizer.lower)
    out = quantizer(images(3))
    out.sum().backward()
    assert bool(torch.isfinite(out).all()) and bool(torch.isfinite(quantizer.gate.factors.grad).all())


def test_bounds_without_extent_and_constant_images():
    flat = on(gated(0.3, 0.3))
    assert bool(torch.isfinite(flat(images())).all())
    quantizer = on(gated())
    out = quantizer(torch.full((3, 4, 5, 5), 0.25))
    assert len(out.unique()) == 1 and abs(out[0, 0, 0, 0].item() - 0.25) < 0.2


def test_nan_stays_where_it_is():
    x = images()
    x[1, 2, 3, 4] = torch.nan
    quantizer = on(gated().eval())
    found, clean = quantizer(x), quantizer(images())
    assert torch.equal(torch.isnan(found), torch.isnan(x))
    assert torch.equal(found[0], clean[0]) and torch.equal(found[2:], clean[2:])
    static = quantizer.static()(x[1])
    assert torch.equal(found[1].nan_to_num(), static.nan_to_num())
    x[1, 2, 3, 4] = torch.inf
    assert bool(torch.isfinite(quantizer(x)).all())


def test_an_empty_batch_stays_empty():
    assert on(gated().eval())(images()[:0]).shape == (0, 4, 9, 8)


def test_state_travels():
    one, other = gated(), on(gated(-2.0, 3.0, seed=4)).learnable()
    x = images()
    one.load_state_dict(other.state_dict())
    assert one.on and torch.equal(one.eval()(x), other.eval()(x))
    entry, tensors = _saved.describe(other)
    again = _saved.rebuild(entry, tensors)
    assert again.trainable and again.on and torch.equal(again.eval()(x), other.eval()(x))
    assert torch.equal(copy.deepcopy(other)(x), other(x))
    with pytest.raises(RuntimeError, match="saved with bits=4, here it is bits=3"):
        gated(bits=3).load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for gate"):
        gated(channels=5).load_state_dict(other.state_dict())
    half = copy.deepcopy(other).half()
    assert half.lower.dtype == torch.float64 and torch.equal(half(x), other(x))
    assert not other.fixed().trainable and next(n for n, _ in other.named_parameters()).startswith("gate.")


def test_bounds_that_are_refused():
    with pytest.raises(InputError, match="axis=1 and integer_zero=True; expected bounds for the whole"):
        GatedQuantizer(Bounds(np.zeros(4), np.ones(4), 4, np.full(4, np.nan), axis=1), opened())
    with pytest.raises(InputError, match="integer_zero=False; expected"):
        GatedQuantizer(Bounds(0, 1, 4, np.nan, integer_zero=False), opened())


@pytest.mark.parametrize("update", [get_ema_multi_avg_fn(0.9), get_swa_multi_avg_fn()])
def test_averages_of_everything(update):
    """Every number of a gate is a floating one, so that averages over parameters and buffers can be taken."""
    one, other = gated(), gated(-2.0, 3.0, seed=4)
    averaged = AveragedModel(one, multi_avg_fn=update, use_buffers=True)
    averaged.update_parameters(one)
    averaged.update_parameters(other)
    assert one.lower < averaged.module.lower < other.lower or other.lower < averaged.module.lower < one.lower
    assert averaged.module.gate.mean.shape == (32,) and all(t.is_floating_point() for t in one.buffers())
