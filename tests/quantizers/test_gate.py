"""DDTB's gate: what it computes, how it starts, and that it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.codebook import Bounds
from sqlib.errors import InputError
from sqlib.quantizers import FollowingQuantizer, Gate, UniformQuantizer

X = torch.randn(6, 5, 7, 8, generator=torch.Generator().manual_seed(0))
X = X * 2 + torch.linspace(-1, 1, 30).view(6, 5, 1, 1)


def gate(seed=0):
    made = Gate(5, seed=seed)
    made.start(made.pool(X), 99.0)
    return made


def narrow(x, lower, upper):
    return UniformQuantizer(Bounds(lower.item(), upper.item(), 2, np.nan))(x)


@pytest.mark.parametrize("training", [True, False])
def test_the_formula(training):
    g = gate().train(training)
    two_bits = FollowingQuantizer(2, percentile=99.0)
    hidden = narrow(X.mean((2, 3)), g.lower[0], g.upper[0]) @ two_bits(g.first.weight).T
    mean, variance = (hidden.mean(0), hidden.var(0, correction=0)) if training else (0.0, 1.0)
    hidden = torch.relu((hidden - mean) / (variance + 1e-5) ** 0.5)
    logits = narrow(hidden, g.lower[1], g.upper[1]) @ two_bits(g.second.weight).T + g.second.bias
    assert torch.allclose(g(X), 2 / (1 + torch.exp(-logits)), rtol=1e-5, atol=1e-6)
    assert torch.allclose(g.logits(X) if training else logits, logits, atol=1e-5)
    assert len(two_bits(g.first.weight).unique()) <= 4


def test_it_starts_at_percentiles_of_what_it_is_given():
    g = gate()
    pooled = X.mean((2, 3)).double().numpy()
    assert np.allclose([g.lower[0].item(), g.upper[0].item()], np.percentile(pooled, (1, 99)))
    assert g.lower[1].item() == 0 and g.upper[1].item() > 0.5
    assert torch.equal(g.mean, torch.zeros(32))
    other = Gate(5)
    other.start(torch.full((3, 5), 2.0), 99.0)  # a range without extent
    assert other.lower.tolist()[0] == 2 and other.upper.tolist()[0] == 3
    assert bool(torch.isfinite(other(X)).all())


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn():
    before = torch.get_rng_state()
    assert torch.equal(gate().first.weight, gate().first.weight)
    assert not torch.equal(gate().first.weight, gate(1).first.weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(gate().first.weight.detach().abs().max()) <= 5**-0.5


@pytest.mark.parametrize("samples", [1, 6])
def test_it_trains(samples):
    """Towards given factors; a batch of one sample has the running statistics."""
    g, x = gate().train(), X[:samples]
    optimizer = torch.optim.Adam(g.parameters(), lr=0.02)
    wanted = torch.tensor([0.5, 1.5]) + 0.3 * torch.sign(x.mean((1, 2, 3)) - x.mean()).view(-1, 1)
    first = float((g(x) - wanted).square().mean().detach())
    before = g.mean.clone()
    for _ in range(100):
        optimizer.zero_grad()
        loss = (g(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * first
    assert torch.equal(before, g.mean) is (samples == 1)
    assert all(p.grad is not None for p in g.parameters())


def test_bounds_that_training_has_crossed_change_places():
    g, crossed = gate().eval(), gate().eval()
    with torch.no_grad():
        crossed.lower.copy_(g.upper)
        crossed.upper.copy_(g.lower)
    assert torch.equal(crossed(X), g(X)) and not torch.equal(g(X), g(X)[:1].expand(6, 2))
    for made in (g, crossed):
        made(X)[:, 1].sum().backward()
    assert torch.equal(crossed.lower.grad, g.upper.grad) and torch.equal(crossed.upper.grad, g.lower.grad)
    with torch.no_grad():
        g.upper.copy_(g.lower)
    assert torch.equal(g(X), g(X)[:1].expand(6, 2)) and bool(torch.isfinite(g(X)).all())


def test_other_channels_are_refused():
    with pytest.raises(
        InputError, match=r"shape \(6, 4, 7, 8\), expected samples with 5 channels on axis -3"
    ):
        gate()(X[:, :4])
    with pytest.raises(InputError, match="expected samples with 5 channels"):
        gate()(torch.zeros(5))


def test_it_is_rebuilt_from_its_options():
    g = gate(3).train()
    g(X)
    again = Gate.rebuild(g.options(), g.state_dict())
    assert torch.equal(again.eval()(X), g.eval()(X))
