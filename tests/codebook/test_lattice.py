"""LatticeHistogram: streaming equals one shot, errors equal direct sums, bad values change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import LatticeHistogram, fit_codebook, universal, universal_set
from sqlib.errors import InputError


def data(seed, shape, scale=0.2):
    x = np.random.default_rng(seed).laplace(scale=scale, size=shape)
    return np.clip(x, -1, 1).astype(np.float32)


def assert_equal(a, b):
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_allclose(a.sums, b.sums, rtol=0, atol=1e-6)
    np.testing.assert_allclose(a.squares, b.squares, rtol=1e-12)


@pytest.mark.parametrize("words", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_follow_the_definition(words, dtype):
    d = universal(words).denominator
    u = universal_set(words)
    x = np.concatenate([data(0, 3000), u, u / 2, [1, -1, 0]]).astype(dtype)
    h = LatticeHistogram(d)
    h.add(x)
    t = x.astype(np.float64) * d
    nearest = np.rint(t)
    bins = (2 * nearest - (t < nearest) + 2 * d).astype(int)
    np.testing.assert_array_equal(h.counts[0], np.bincount(bins, minlength=4 * d + 1))
    assert h.count == x.size == h.counts.sum()
    want = np.bincount(bins, t - nearest, minlength=4 * d + 1)
    np.testing.assert_allclose(h.sums[0], want, rtol=0, atol=x.size * 2.0**-32)
    np.testing.assert_allclose(h.squares[0], ((t - nearest) ** 2).sum(), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(0, 3), st.sampled_from([2, 3, 4]), st.booleans())
def test_streaming_and_adding_equal_one_shot(parts, channels, words, weighted):
    d = universal(words).denominator
    shape = (channels, 997) if channels else (997,)
    x = data(parts, shape)
    w = np.random.default_rng(1).integers(0, 3, shape) if weighted else None
    one = LatticeHistogram(d, channels or None)
    one.add(x, sample_weight=w)
    streamed = LatticeHistogram(d, channels or None)
    added = LatticeHistogram(d, channels or None)
    for piece in np.array_split(np.arange(997), parts):
        v, part = None if w is None else w[..., piece], LatticeHistogram(d, channels or None)
        streamed.add(x[..., piece], sample_weight=v)
        part.add(x[..., piece], sample_weight=v)
        added = added + part
    assert_equal(streamed, one)
    assert_equal(added, one)
    u = universal_set(words)
    want = fit_codebook(x, u, 7, sample_weight=w)
    got = fit_codebook(streamed, u, 7)
    np.testing.assert_array_equal(got.points, want.points)
    np.testing.assert_allclose(got.error, want.error, rtol=1e-9)


def test_many_equal_values_do_not_overflow_the_packed_bins():
    for value in (0.0, 1.0, -1.0, np.float32(0.99951), np.nextafter(np.float32(0), np.float32(-1))):
        h = LatticeHistogram()
        h.add(np.full(200_001, value, np.float32))
        assert h.count == 200_001 and h.counts.max() == 200_001
        m = round(float(value) * 1024)
        want = 200_001 * (float(value) - m / 1024) ** 2
        assert h.error([m]) == pytest.approx(want, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inner", [1, 3])
def test_short_rows_do_not_overflow_the_packed_bins(dtype, inner):
    """Values that come singly or in threes go to one of the two tables more often than to the other."""
    outer = 140_000 // inner
    x = np.full((outer, 2, inner), 0.30001, dtype)
    h = LatticeHistogram(1024, 2)
    h.add(x, axis=1)
    t = float(x[0, 0, 0]) * 1024
    np.testing.assert_array_equal(h.count, outer * inner)
    np.testing.assert_allclose(h.sums.sum(axis=1), outer * inner * (t - np.rint(t)), rtol=1e-8)


def test_channels_on_any_axis():
    x = data(3, (2, 3, 17, 5))
    a, b = LatticeHistogram(channels=3), LatticeHistogram(channels=3)
    a.add(x, axis=1)
    b.add(np.moveaxis(x, 1, 0))
    assert_equal(a, b)
    c = LatticeHistogram()
    c.add(x)
    np.testing.assert_array_equal(c.counts[0], a.counts.sum(axis=0))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-1024, 1024), min_size=1, max_size=9), st.integers(0, 99), st.booleans())
def test_error_of_any_points_equals_direct_sums(points, seed, weighted):
    rng = np.random.default_rng(seed)
    near = rng.choice(points, 9) / 1024 * (1 + 1e-9 * (rng.random() < 0.5))
    x = np.concatenate([rng.uniform(-1, 1, 40), near])
    x = np.clip(x, -1, 1)
    w = rng.uniform(0, 5, x.size) if weighted else np.ones(x.size)
    h = LatticeHistogram()
    h.add(x, sample_weight=w if weighted else None)
    q = np.sort(points)
    want = (w * ((x[:, None] - q / 1024) ** 2).min(axis=1)).sum()
    assert h.error(q) == pytest.approx(want, rel=1e-9)


def test_values_a_few_ulp_outside_are_moved_onto_the_end():
    h = LatticeHistogram()
    h.add(np.array([1 + 2e-7, -1 - 4e-7, 0.5], np.float32))
    assert h.counts[0, [0, -1]].tolist() == [1, 1] and h.error([-1024, 512, 1024]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.00001, -1.00001])
@pytest.mark.parametrize("place", [0, 1500, 2999])
def test_one_bad_value_raises_and_changes_nothing(bad, place):
    h, same = LatticeHistogram(channels=2), LatticeHistogram(channels=2)
    good = data(4, (2, 3000))
    h.add(good)
    same.add(good)
    worse = good.copy()
    worse[1, place] = bad
    for values in (worse, worse.astype(np.float64)):
        for weights in (None, np.ones((2, 3000))):
            with pytest.raises(InputError, match="NaN or infinite" if not np.isfinite(bad) else "normalize"):
                h.add(values, sample_weight=weights)
    assert_equal(h, same)


def test_bad_arguments():
    for options in (
        {"denominator": 100},
        {"denominator": None},
        {"channels": 0},
        {"channels": 2.5},
        {"channels": True},
    ):
        with pytest.raises(InputError, match="expected"):
            LatticeHistogram(**options)
    h = LatticeHistogram(channels=3)
    for values, axis in (
        (np.zeros((2, 5)), 0),
        (np.zeros((2, 5)), 1),
        (np.zeros((3, 5)), 2),
        (np.zeros(4), 0),
    ):
        with pytest.raises(InputError, match="3 channels"):
            h.add(values, axis=axis)
    with pytest.raises(InputError, match="real numbers"):
        h.add(np.array(["a"]))
    with pytest.raises(InputError, match="cannot add"):
        h += LatticeHistogram()
    with pytest.raises(TypeError):
        h + 1
    with pytest.raises(InputError, match="sorted integers"):
        h.error([3, 1])
    h.add(np.empty((0, 3)))
    assert (h.count == 0).all()
