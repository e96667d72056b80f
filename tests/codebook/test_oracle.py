"""The error oracle against quantizing the data itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import Bounds, ErrorOracle, Histogram, dequantize, quantize
from sqlib.errors import InputError
from sqlib.kernels.binned import bin_sums
from sqlib.kernels.uniform_error import squared_errors

NUMBERS = st.floats(-50, 50, width=32)
DATA = st.lists(NUMBERS, min_size=1, max_size=60)


def brute_force(x, lower, upper, bits, integer_zero):
    """Quantize, restore, subtract, square, add."""
    b = Bounds(lower, upper, bits, np.nan, "x", None, integer_zero)
    x = np.asarray(x, np.float64)
    return float(np.square(x - dequantize(quantize(x, b), b, np.float64)).sum())


def skewed(n, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal(n) * 1.5
    return np.where(x > 0, x, 0.1 * x * np.exp(x)).astype(dtype)


@settings(max_examples=150, deadline=None)
@given(DATA, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), st.integers(1, 9), st.booleans())
def test_sorted_oracle_equals_brute_force(values, pairs, bits, integer_zero):
    """Bounds inside, outside and across the data."""
    lower, upper = (np.array(v) for v in zip(*[sorted(p) for p in pairs], strict=True))
    oracle = ErrorOracle.of_sorted(values)
    estimate, margin = oracle.errors(lower, upper, bits, integer_zero=integer_zero)
    truth = [brute_force(values, a, b, bits, integer_zero) for a, b in zip(lower, upper, strict=True)]
    assert np.all(np.abs(estimate - truth) <= margin + 1e-9 * np.array(truth))


@settings(max_examples=100, deadline=None)
@given(DATA, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), st.integers(1, 9), st.booleans())
def test_binned_oracle_is_right_within_its_doubt(values, pairs, bits, integer_zero):
    x = np.array(values * 3, np.float32)
    lower, upper = (np.array(v) for v in zip(*[sorted(p) for p in pairs], strict=True))
    oracle = ErrorOracle.of_binned(x, bits)
    estimate, margin = oracle.errors(lower, upper, bits, integer_zero=integer_zero)
    truth = np.array([brute_force(x, a, b, bits, integer_zero) for a, b in zip(lower, upper, strict=True)])
    offset = oracle.total - np.square(x.astype(np.float64) - oracle.lower).sum()
    slack = 2.1 * oracle.shift * np.sqrt(x.size * oracle.total) + 1e-13 * oracle.total
    assert -slack <= offset <= x.size * oracle.width**2 / 4 + slack
    difference = (estimate - estimate[0]) - (truth - truth[0])
    assert np.all(np.abs(difference) <= (margin + margin[0]) * (1 + 1e-9) + 1e-9 * truth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bins_are_narrow_enough_for_large_data(bits, dtype):
    x = skewed(300_000, dtype)
    shrink = np.linspace(0, 0.6, 13)
    lower, upper = x.min() * (1 - shrink), x.max() * (1 - shrink)
    oracle = ErrorOracle.of_binned(x, bits)
    estimate, margin = oracle.errors(lower, upper, bits)
    exact, _ = ErrorOracle.of_sorted(x).errors(lower, upper, bits)
    assert np.all(margin < 1e-3 * exact)
    offset = oracle.total - np.square(x.astype(np.float64) - oracle.lower).sum()
    slack = 2.1 * oracle.shift * np.sqrt(x.size * oracle.total)
    assert np.all(np.abs(estimate - offset - exact) <= margin + slack)
    # most of the margin is earned: bins do forget
    assert np.abs(estimate - offset - exact).max() > 0.05 * margin.max()


def test_pruning_only_removes_what_is_worse():
    x = skewed(50_000)
    shrink = np.linspace(0, 0.99, 100)
    oracle = ErrorOracle.of_binned(x)
    full, margin = oracle.errors(x.min() * (1 - shrink), x.max() * (1 - shrink), 4)
    some, _ = oracle.errors(x.min() * (1 - shrink), x.max() * (1 - shrink), 4, prune=True)
    kept = np.isfinite(some)
    assert 0 < kept.sum() < 100
    np.testing.assert_array_equal(some[kept], full[kept])
    assert full[~kept].min() > full.min() + margin.max()


@pytest.mark.parametrize("make", [ErrorOracle.of_sorted, ErrorOracle.of_binned])
def test_pruning_keeps_what_clips_almost_as_much_as_the_best_costs(make):
    """One value 1 among zeros: levels {0, 2} cost 1, and {0, 0.06} cost 0.94^2, all of it clipped."""
    oracle = make(np.array([0.0] * 10 + [1.0, 1.5e-5]))
    estimate, _ = oracle.errors([0.0, 0.0], [2.0, 0.06], 1, prune=True)
    np.testing.assert_allclose(estimate, [1.0, 0.94**2], atol=1e-4)
    assert oracle.errors([0.0, 0.0], [1.0, 0.06], 1, prune=True)[0][1] == np.inf


def test_histogram_oracle_has_the_ends_exactly_and_estimates_the_rest():
    x = np.maximum(skewed(100_000), 0)
    h = Histogram(x.min(), x.max())
    for part in np.array_split(x, 5):
        h.add(part)
    oracle = ErrorOracle.of_histogram(h)
    estimate, _ = oracle.errors(0.0, float(x.max()), 4)
    assert not oracle.certified
    np.testing.assert_allclose(estimate[0], brute_force(x, 0.0, x.max(), 4, False), rtol=1e-4)


def test_histogram_oracle_takes_values_at_the_ends_as_they_are():
    h = Histogram(0.0, 3.0, bins=8)
    h.add(np.array([0.0] * 100 + [3.0] * 50))
    estimate, _ = ErrorOracle.of_histogram(h).errors([0.0, 0.0, 0.5], [3.0, 2.0, 3.0], 1)
    np.testing.assert_allclose(estimate, [0.0, 50.0, 25.0], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bin_sums_are_integers_that_threads_do_not_change(dtype):
    x = skewed(600_000, dtype)
    lower, upper = float(x.min()), float(x.max())
    counts, sums = bin_sums(x, lower, upper, 512)
    for threads in (2, 3):
        again = bin_sums(x, lower, upper, 512, threads=threads)
        assert (counts == again[0]).all() and (sums == again[1]).all()
    assert counts.sum() == x.size
    unit = (upper - lower) / 512 / 65536
    np.testing.assert_allclose(sums.sum() * unit, (x.astype(np.float64) - lower).sum(), rtol=1e-5)
    np.testing.assert_allclose(counts, np.histogram(x, 512, (lower, upper))[0], atol=2)


def test_direct_errors_do_not_depend_on_threads():
    x = skewed(700_001)
    grids = np.array([x.min(), -0.1]), np.array([0.2, 0.3]), np.array([15.0, 7.0])
    one = squared_errors(x, *grids)
    assert (one == squared_errors(x, *grids, threads=2)).all()
    for low, scale, top, error in zip(*grids, one, strict=True):
        restored = np.rint(np.clip((x.astype(np.float64) - low) / scale, 0, top)) * scale + low
        np.testing.assert_allclose(error, np.square(x - restored).sum(), rtol=1e-12)


@pytest.mark.parametrize("make", [ErrorOracle.of_sorted, ErrorOracle.of_binned])
@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf, 0.0]])
def test_bad_data(make, bad):
    with pytest.raises(InputError):
        make(np.array(bad))


def test_constant_and_tiny_data():
    for values in ([3.0], [3.0] * 7, [0.0, 1e-200], [5e-324, 0.0]):
        oracle = ErrorOracle.of_binned(np.array(values))
        estimate, _ = oracle.errors(min(values), max(values), 4)
        assert abs(estimate[0]) < 1e-300
    with pytest.raises(InputError, match="empty"):
        ErrorOracle.of_histogram(Histogram(0, 1))
