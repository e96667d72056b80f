"""`fit_bounds` by density, DOBI and least squares: against brute force, and on unpleasant data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sqlib.codebook import Bounds, Histogram, dequantize, fit_bounds, quantize
from sqlib.codebook._search import Search
from sqlib.codebook.density import clip_density
from sqlib.codebook.dobi import dobi_candidates
from sqlib.codebook.mse import mse_candidates
from sqlib.errors import InputError

NUMBERS = st.floats(-50, 50, width=32)
DATA = st.lists(NUMBERS, min_size=1, max_size=40)
SEARCHED = ("density", "dobi", "mse")


def error_of(x, lower, upper, bits, integer_zero=False):
    b = Bounds(lower, upper, bits, np.nan, "x", None, integer_zero)
    x = np.asarray(x, np.float64)
    return float(np.square(x - dequantize(quantize(x, b), b, np.float64)).sum())


def least_of(x, candidates, bits, integer_zero=False):
    return min(error_of(x, lo, up, bits, integer_zero) for lo, up in zip(*candidates, strict=True))


def close(a, b, x):
    """Equal to 1e-9 relative, or to the rounding of the largest square."""
    return abs(a - b) <= 1e-9 * abs(b) + 1e-13 * float(np.square(np.ptp(x)) * len(x))


def skewed(n, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal(n) * 1.5
    return np.where(x > 0, x, 0.1 * x * np.exp(x)).astype(dtype)


def test_candidates_are_those_of_the_paper_and_of_the_release():
    low, up = dobi_candidates(-1.0, 3.0, 4)
    np.testing.assert_allclose(low, [-1, -0.5, 0, 0.5])
    np.testing.assert_allclose(up, [3, 2.5, 2, 1.5])
    low, up = dobi_candidates(-1.0, 3.0, 4, one_sided=True, variant="release")
    assert set(low) == {-1.0}
    np.testing.assert_allclose(up, [3, 2, 1, 0])
    up = dobi_candidates(-1.0, 3.0, 4, one_sided=True, variant="paper")[1]
    np.testing.assert_allclose(up, [3, 2.5, 2, 1.5])


@given(st.integers(1, 12), NUMBERS, st.floats(1e-3, 100))
@settings(max_examples=50, deadline=None)
def test_the_grid_contains_every_candidate_of_dobi_to_the_last_bit(steps, lower, span):
    grid = set(zip(*mse_candidates(lower, lower + span, steps), strict=True))
    assert len(grid) == steps * (2 * steps + 1)
    assert all(lo < up for lo, up in grid)
    for one_sided, variant in ((False, "paper"), (True, "paper"), (True, "release")):
        pairs = dobi_candidates(lower, lower + span, steps, one_sided=one_sided, variant=variant)
        assert set(zip(*pairs, strict=True)) <= grid


@settings(max_examples=120, deadline=None)
@given(
    DATA,
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from([(False, "release"), (True, "release"), (True, "paper")]),
    st.booleans(),
)
@example([0.0, 0.0, 1.0], 1, 3, (False, "release"), False)
def test_dobi_equals_brute_force(values, bits, steps, kind, integer_zero):
    x = np.array(values, np.float32)
    one_sided, variant = kind
    fitted = fit_bounds(
        x,
        bits,
        method="dobi",
        steps=steps,
        one_sided=one_sided,
        variant=variant,
        integer_zero=integer_zero,
    )
    candidates = dobi_candidates(float(x.min()), float(x.max()), steps, one_sided=one_sided, variant=variant)
    assert close(fitted.error, least_of(x, candidates, bits, integer_zero), x)
    assert close(fitted.error, error_of(x, fitted.lower, fitted.upper, bits, integer_zero), x)
    assert not one_sided or fitted.lower == x.min()


@settings(max_examples=60, deadline=None)
@given(DATA, st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_mse_is_never_worse_than_its_grid_by_brute_force(values, bits, steps, integer_zero):
    x = np.array(values, np.float32)
    fitted = fit_bounds(x, bits, method="mse", steps=steps, integer_zero=integer_zero)
    grid = mse_candidates(float(x.min()), float(x.max()), steps)
    least = least_of(x, grid, bits, integer_zero)
    assert fitted.error <= least * (1 + 1e-9) + 1e-13 * float(np.square(np.ptp(x)) * len(x))
    assert close(fitted.error, error_of(x, fitted.lower, fitted.upper, bits, integer_zero), x)
    assert x.min() <= fitted.lower <= fitted.upper <= x.max()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binned_search_finds_what_sorting_finds(bits, dtype):
    """Large data goes through bins; the choice must be the one of the exact oracle."""
    for seed, x in enumerate((skewed(150_000, dtype), np.maximum(skewed(150_000, dtype, 1), 0))):
        pairs = dobi_candidates(float(x.min()), float(x.max()))
        truth = np.array([error_of(x, lo, up, bits) for lo, up in zip(*pairs, strict=True)][:60])
        fitted = fit_bounds(x, bits, method="dobi")
        if bits >= 4:  # the least of the first 60 is the least of all
            assert fitted.lower == pairs[0][np.argmin(truth)], seed
        np.testing.assert_allclose(fitted.error, error_of(x, fitted.lower, fitted.upper, bits), rtol=1e-9)
        assert fitted.error <= truth.min() * (1 + 1e-9)
        assert fit_bounds(x, bits, method="mse").error <= fitted.error
        again = fit_bounds(x, bits, method="dobi", threads=2)
        assert (again.lower, again.upper, again.error) == (fitted.lower, fitted.upper, fitted.error)


def test_many_candidates_that_bins_cannot_tell_apart():
    """Two values: most candidates are equally good; the search falls back to sorted values."""
    x = np.tile(np.array([0.0, 1.0], np.float32), 20_000)
    search = Search(x, (0.0, 1.0), 2, False)
    assert search.oracle.width > 0
    low, up = np.zeros(50), np.full(50, 1.0)
    assert search.best(low, up) == (0, 0.0)
    for method in ("dobi", "mse"):
        assert fit_bounds(x, 2, method=method).error == 0


def test_a_vague_oracle_costs_time_but_not_the_answer(monkeypatch):
    """Bins that know nothing leave every candidate open; sorted values and the data decide."""
    x = skewed(40_000)
    low, up = dobi_candidates(float(x.min()), float(x.max()), 60)
    truth = np.array([error_of(x, *pair, 3) for pair in zip(low, up, strict=True)])
    search = Search(x, (float(x.min()), float(x.max())), 3, False)
    errors = Search._errors

    def vague(self, oracle, lower, upper, prune):
        estimate, margin = errors(self, oracle, lower, upper, prune)
        if oracle.width == 0:
            return estimate, margin
        noise = np.random.default_rng(0).uniform(-1, 1, estimate.size) * truth.max()
        return estimate + noise, margin + truth.max()

    monkeypatch.setattr(Search, "_errors", vague)
    winner, error = search.best(low, up)
    assert winner == np.argmin(truth)
    np.testing.assert_allclose(error, truth.min(), rtol=1e-9)


def test_refinement_that_was_misled_is_thrown_away(monkeypatch):
    x = skewed(3_000)
    plain = fit_bounds(x, 3, method="mse", steps=10)
    monkeypatch.setattr(Search, "estimates", lambda self, lower, upper: -np.arange(lower.size) - 1.0)
    misled = fit_bounds(x, 3, method="mse", steps=10)
    grid = mse_candidates(float(x.min()), float(x.max()), 10)
    assert close(misled.error, least_of(x, grid, 3), x) and plain.error < misled.error


def test_per_channel_equals_channel_by_channel():
    x = np.random.default_rng(1).normal(size=(3, 6, 4))
    for method in SEARCHED:
        together = fit_bounds(x, 3, method=method, axis=1, steps=20)
        assert together.lower.shape == together.error.shape == (6,)
        for c in range(6):
            alone = fit_bounds(x[:, c], 3, method=method, steps=20)
            assert (together.lower[c], together.upper[c]) == (alone.lower, alone.upper)


def literal_dbdc(x, clip):
    """The description, bin by bin."""
    counts, edges = np.histogram(x, 2048)
    counts, edges = list(counts), list(edges)
    while len(counts) > 1 and sum(counts) > (1 - clip) * len(x):
        if counts[0] < counts[-1]:
            counts, edges = counts[1:], edges[1:]
        else:
            counts, edges = counts[:-1], edges[:-1]
    return edges[0], edges[-1]


def test_density_is_the_published_loop():
    x = skewed(20_000, np.float64)
    for bits, clip in ((4, 1e-4), (8, 1e-5)):
        fitted = fit_bounds(x, bits, method="density")
        np.testing.assert_allclose((fitted.lower, fitted.upper), literal_dbdc(x, clip), atol=1e-12)
        assert fitted.lower > x.min() or fitted.upper < x.max()
    some = fit_bounds(x, 4, method="density", clip=0.05)
    np.testing.assert_allclose((some.lower, some.upper), literal_dbdc(x, 0.05), atol=1e-12)
    assert (fit_bounds(x, 4, method="density", clip=0).upper) == x.max()


def test_density_keeps_at_least_one_bin():
    assert clip_density(np.array([0, 5, 0]), 0.0, 3.0, 0.5) == (1.0, 2.0)
    assert clip_density(np.array([1, 5, 1]), 0.0, 3.0, 0.1) == (0.0, 2.0), "of equal ends the upper goes"
    assert clip_density(np.array([7]), 0.0, 3.0, 0.5) == (0.0, 3.0)


def test_streamed_histogram_is_close_and_says_so():
    x = skewed(200_000)
    h = Histogram(x.min(), x.max())
    for part in np.array_split(x, 7):
        h.add(part)
    for method in ("dobi", "mse"):
        streamed, direct = fit_bounds(h, 4, method=method), fit_bounds(x, 4, method=method)
        assert not streamed.exact and direct.exact
        np.testing.assert_allclose(streamed.error, direct.error, rtol=1e-3)
        truth = error_of(x, streamed.lower, streamed.upper, 4)
        assert truth <= direct.error * (1 + 1e-4)
    assert not fit_bounds(h, 4, method="density").exact


@pytest.mark.parametrize("method", SEARCHED)
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
@pytest.mark.parametrize("bits", [1, 4, 9, 16])
def test_constant_and_one_element_data_are_exact(method, value, bits):
    for n in (1, 9):
        x = np.full(n, value)
        b = fit_bounds(x, bits, method=method)
        assert b.error == 0 and b.lower == b.upper == value
        np.testing.assert_array_equal(dequantize(quantize(x, b), b, np.float64), x)
    h = Histogram(value, value)
    h.add(np.full(5, value))
    b = fit_bounds(h, bits, method=method)
    assert b.lower == b.upper == value and b.error == 0


@pytest.mark.parametrize("method", SEARCHED)
def test_half_precision_values_are_those_values(method):
    x = skewed(40_000).astype(np.float16)
    half, single = fit_bounds(x, 4, method=method), fit_bounds(x.astype(np.float32), 4, method=method)
    assert (half.lower, half.upper, half.error) == (single.lower, single.upper, single.error)
    big = np.array([-65504, 65504, 3], np.float16)
    assert np.isfinite(fit_bounds(big, 4, method=method).error)


@pytest.mark.parametrize("method", SEARCHED)
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-140, 1e-40, 1e30])
def test_extreme_scales(method, scale):
    x = np.random.default_rng(0).normal(size=200) * scale
    b = fit_bounds(x, 3, method=method)
    assert np.isfinite(b.error) and x.min() <= b.lower <= b.upper <= x.max()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one"),
        ([1.0, np.nan], {}, "NaN or infinity"),
        ([1.0, np.inf], {}, "NaN or infinity"),
        (np.array([1.0, np.nan], np.float16), {}, "NaN or infinity"),
        ([[1.0, 2.0], [np.nan, 0.0]], {"axis": 0}, "NaN or infinity"),
        ([1.0, 2.0], {"steps": 0}, "steps"),
        ([1.0, 2.0], {"steps": 2.5}, "steps"),
        ([1.0, 2.0], {"variant": "draft"}, "variant"),
        ([1.0, 2.0], {"one_sided": 1}, "one_sided"),
        ([1.0, 2.0], {"clip": 1.0}, "clip"),
        ([1.0, 2.0], {"clip": "some"}, "clip"),
        ([1.0, 2.0], {"axis": 3}, "axis"),
        (Histogram(0, 1), {}, "empty"),
    ],
)
@pytest.mark.parametrize("method", SEARCHED)
def test_bad_input(method, values, options, message):
    values = values if isinstance(values, Histogram) else np.array(values)
    with pytest.raises(InputError, match=message):
        fit_bounds(values, 4, method=method, **options)


@pytest.mark.parametrize("bits", [0, 17, True, "four"])
def test_bad_bits(bits):
    with pytest.raises(InputError, match="bits"):
        fit_bounds(np.ones(3), bits, method="mse")


def test_zero_stays_a_level_where_that_is_asked_for():
    x = skewed(5_000, np.float64) - 0.3
    for method in SEARCHED:
        snapped = fit_bounds(x, 4, method=method, integer_zero=True)
        assert dequantize(quantize(np.zeros(1), snapped), snapped, np.float64)[0] == 0
        assert not fit_bounds(x, 4, method=method).integer_zero
    assert fit_bounds(x, 4, method="minmax").integer_zero


def test_least_squares_is_the_default():
    x = skewed(2_000, np.float64)
    plain, wanted = fit_bounds(x, 4), fit_bounds(x, 4, method="mse")
    assert (plain.lower, plain.upper, plain.method) == (wanted.lower, wanted.upper, wanted.method)
