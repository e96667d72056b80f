"""Rounding variables, learned steps and the range searches they start from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.codebook import Bounds, Histogram, fit_bounds
from sqlib.codebook.norm_search import scan_bounds, shrink_bounds
from sqlib.errors import InputError
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers.adaround import AdaRound
from sqlib.quantizers.learned_step import SMALLEST, LearnedStep
from sqlib.quantizers.norm_observer import NormObserver


def rounding(bits=3, shape=(4, 3, 3, 3), seed=0):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    quantizer = UniformQuantizer(shrink_bounds(weight.numpy(), bits, axis=0))
    return weight, quantizer, AdaRound(quantizer, weight)


def on_grid(values, quantizer):
    """Codes of values that must lie exactly on the quantizer's grid."""
    lower, scale, top = quantizer.grid(values)
    codes = torch.round((values - lower) / scale)
    assert torch.equal(codes * scale + lower, values)
    assert codes.min() >= 0 and bool((codes <= top).all())
    return codes


def test_soft_weight_starts_at_the_clipped_weight_and_hard_at_nearest_rounding():
    weight, quantizer, learned = rounding()
    lower, scale, top = quantizer.grid(weight)
    clipped = torch.minimum(torch.maximum(weight, lower), lower + top * scale)
    torch.testing.assert_close(learned.soft().detach(), clipped, atol=1e-5, rtol=1e-5)
    hard = learned.harden()
    assert torch.equal(hard(weight), quantizer(weight))


def test_hard_weight_follows_the_variables_and_stays_on_the_grid():
    weight, quantizer, learned = rounding()
    lower, scale, top = quantizer.grid(weight)
    inside = (weight > lower) & (weight < lower + top * scale)
    for value, step in ((9.0, torch.ceil), (-9.0, torch.floor)):
        with torch.no_grad():
            learned.variables.fill_(value)
        assert learned.up().unique().tolist() == [float(value > 0)]
        assert float(learned.regularizer(2.0).detach()) == 0
        hard = learned.harden()(weight)
        codes = on_grid(hard, quantizer)
        assert torch.equal(codes[inside], step((weight - lower) / scale)[inside])
        torch.testing.assert_close(learned.soft().detach(), hard)
        assert learned.harden().bits == 3


def test_gradients_move_the_weight_towards_the_wanted_output():
    weight, _, learned = rounding(bits=2)
    target = weight + 0.3 * weight.std()
    optimizer = torch.optim.Adam([learned.variables], lr=0.05)
    first = float((learned.soft() - target).detach().square().sum())
    for _ in range(50):
        loss = (learned.soft() - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first
    assert learned.soft().mean() > weight.mean()


def test_regularizer_decides():
    _, _, learned = rounding()
    optimizer = torch.optim.Adam([learned.variables], lr=0.05)
    for i in range(300):
        loss = learned.regularizer(20 - 18 * i / 300)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    up = learned.up().detach()
    assert float(((up > 0.05) & (up < 0.95)).float().mean()) < 0.05


@pytest.mark.parametrize("relative", [True, False])
def test_step_gradients_against_differentiating_the_formula(relative):
    quantizer = UniformQuantizer(Bounds(-0.9, 1.2, 3, np.nan, "x"))
    learned = LearnedStep(quantizer, relative=relative)
    x = torch.randn(200, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.linspace(-1, 1, 200)
    out = learned(x)
    torch.testing.assert_close(out.detach(), quantizer.fake_torch(x.detach()), atol=1e-6, rtol=0)
    (out * weight).sum().backward()
    # the same with the rounding detached
    y = x.detach().clone().requires_grad_()
    step = torch.tensor(learned.start, requires_grad=True)
    position = torch.clamp(y / step + learned.zero, 0, 7)
    rounded = position + (torch.round(position) - position).detach()
    ((rounded - learned.zero) * step * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(learned.variable.grad, step.grad * learned.unit, rtol=1e-4, atol=1e-5)


def test_learned_step_is_written_back_with_the_zero_point_kept():
    quantizer = UniformQuantizer(Bounds(-2.0, 5.0, 3, np.nan, "x"))  # scale 1, zero at code 2
    learned = LearnedStep(quantizer, relative=True)
    before = quantizer(torch.zeros(3))
    with torch.no_grad():
        learned.variable.mul_(0.5)
    learned.write_back()
    assert (float(quantizer.lower), float(quantizer.upper)) == (-1.0, 2.5)
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(quantizer(x), quantizer.fake_torch(x))  # no path remembers the old range
    assert torch.equal(quantizer(torch.zeros(3)), before)
    with torch.no_grad():
        learned.variable.fill_(-4.0)
    assert learned.step().item() == pytest.approx(SMALLEST * learned.start)


def test_shrunk_ranges_are_the_best_of_their_candidates():
    rng = np.random.default_rng(0)
    rows = rng.standard_t(3, (3, 400))
    found = shrink_bounds(rows, 3, norm=2.4, steps=60, axis=0)
    for channel in range(3):
        x = rows[channel]
        errors = []
        for i in range(60):
            low, up = x.min() * (1 - i / 100), x.max() * (1 - i / 100)
            s = (up - low) / 7
            zero = np.rint(low / s)
            codes = np.clip(np.rint(x / s - zero), 0, 7)
            errors.append((np.abs(x - (codes + zero) * s) ** 2.4).sum())
        i = int(np.argmin(errors))
        assert found.upper[channel] == pytest.approx(x.max() * (1 - i / 100))
        assert i > 0
    assert np.all(found.error < fit_bounds(rows, 3, axis=0, method="minmax").error)


def test_scan_finds_the_zero_point_of_skewed_data():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.2, 3000), rng.uniform(0, 8, 3000), [-8.0]])
    h = Histogram(float(x.min()), float(x.max()), 2048)
    h.add(x)
    shrunk, scanned = shrink_bounds(h, 4), scan_bounds(h, 4)
    assert scanned.error < 0.7 * shrunk.error  # one value far on the left cost half of the levels
    assert scanned.lower > -4 and scanned.upper > 7
    # no candidate is better; tried one by one
    best = np.inf
    for i in range(1, 101):
        s = (x.max() - x.min()) * i / 100 / 15
        for zero in range(16):
            codes = np.clip(np.rint(x / s) + zero, 0, 15)
            best = min(best, (np.abs(x - (codes - zero) * s) ** 2.4).sum())
    zero = np.rint(-scanned.lower / scanned.scale)
    found = x - (np.clip(np.rint(x / scanned.scale) + zero, 0, 15) - zero) * scanned.scale
    assert (np.abs(found) ** 2.4).sum() < 1.01 * best  # the histogram knows its values to a bin
    positive = Histogram(0.0, 8.0, 512)
    positive.add(np.abs(x))
    assert scan_bounds(positive, 4).lower == 0.0
    negative = Histogram(-8.0, 0.0, 512)
    negative.add(-np.abs(x))
    assert scan_bounds(negative, 4).upper == pytest.approx(0.0, abs=1e-12)
    constant = Histogram(0.0, 0.0)
    constant.add(np.zeros(5))
    assert float(scan_bounds(constant, 4).upper) == float(shrink_bounds(constant, 4).upper) == 0.0


@pytest.mark.parametrize("scan", [False, True])
def test_observer_in_two_passes(scan):
    x = torch.randn(4000, generator=torch.Generator().manual_seed(2)) ** 3
    observer = NormObserver(4, steps=100, scan=scan)
    for number in range(observer.passes):
        for part in x.chunk(3):
            observer.update(part, number)
    fitted = observer.finish()
    plain = UniformQuantizer(fit_bounds(x.numpy(), 4, method="minmax"))
    assert (fitted(x) - x).square().sum() < (plain(x) - x).square().sum()
    with pytest.raises(InputError, match="second"):
        only = NormObserver(4)
        only.update(x, 0)
        only.finish()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shrink_bounds([1.0, 2.0], 4, norm=0), "norm"),
        (lambda: shrink_bounds([1.0, 2.0], 4, steps=101), "steps"),
        (lambda: shrink_bounds([1.0, np.nan], 4), "NaN"),
        (lambda: shrink_bounds([], 4), "at least one"),
        (lambda: shrink_bounds([[1.0]], 4, axis=2), "axis"),
        (lambda: scan_bounds(Histogram(0, 1), 4), "empty"),
        (lambda: shrink_bounds(Histogram(0, 1), 4), "empty"),
    ],
)
def test_bad_searches(call, message):
    with pytest.raises(InputError, match=message):
        call()
