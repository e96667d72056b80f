"""Bounds: definitions, degenerate data, histograms and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import Bounds, Histogram, dequantize, fit_bounds, quantize
from sqlib.errors import InputError


def test_minmax_is_the_range_and_error_is_recomputed():
    x = np.random.default_rng(0).normal(size=(5, 40))
    b = fit_bounds(x, 4, method="minmax")
    assert (b.lower, b.upper) == (x.min(), x.max())
    np.testing.assert_allclose(
        b.error, np.sum((dequantize(quantize(x, b), b, np.float64) - x) ** 2), rtol=1e-12
    )


def test_per_channel_equals_channel_by_channel():
    x = np.random.default_rng(1).normal(size=(3, 6, 4))
    for method in ("minmax", "percentile"):
        together = fit_bounds(x, 3, method=method, percentile=90, axis=1)
        for c in range(6):
            alone = fit_bounds(x[:, c], 3, method=method, percentile=90)
            assert (together.lower[c], together.upper[c]) == (alone.lower, alone.upper)
            np.testing.assert_allclose(together.error[c], alone.error)


def test_dfsq_weight_quantizer_formula():
    """The released DFSQ formula, evaluated literally per filter, gives the same values."""
    w = np.random.default_rng(2).normal(size=(4, 27))
    for bits in (2, 4, 8):
        step = (w.max(1) - w.min(1))[:, None] / (2**bits - 1)
        zero = np.rint(w.min(1)[:, None] / step) + 2 ** (bits - 1)
        q = np.clip(np.rint(w / step) - zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        b = fit_bounds(w, bits, axis=0, method="minmax")
        np.testing.assert_allclose(dequantize(quantize(w, b), b, np.float64), (q + zero) * step, atol=1e-12)


@settings(deadline=None)
@given(
    st.integers(2, 8), st.floats(-100, -1e-3), st.floats(1e-3, 100), st.sampled_from([np.float32, np.float64])
)
def test_zero_is_exactly_a_level_when_the_range_holds_it(bits, lower, upper, dtype):
    b = Bounds(lower, upper, bits, np.nan, "minmax")
    assert dequantize(quantize(np.zeros(1, dtype), b), b, dtype)[0] == 0


def test_percentile_matches_numpy_and_collapsed_range_is_widened():
    x = np.random.default_rng(3).normal(size=10_000)
    b = fit_bounds(x, 8, method="percentile", percentile=99)
    np.testing.assert_allclose([b.lower, b.upper], np.percentile(x, [1, 99]))
    sparse = np.zeros(10_000)
    sparse[3] = 7.0
    b = fit_bounds(sparse, 8, method="percentile", percentile=99)
    assert (b.lower, b.upper) == (0, 7)
    assert "collapsed" in b.method


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_constant_data_is_exact(value):
    b = fit_bounds(np.full(9, value), 4, method="minmax")
    assert b.error == 0
    np.testing.assert_array_equal(
        dequantize(quantize(np.array([value, 9.0]), b), b, np.float64), [value, value]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60), min_size=1, max_size=4),
    st.floats(0, 100),
)
def test_streamed_percentile_is_within_one_bin(batches, q):
    arrays = [np.array(b, np.float32) for b in batches]
    x = np.concatenate(arrays).astype(np.float64)
    h = Histogram(x.min(), x.max(), bins=64)
    for a in arrays:
        h.add(a)
    assert abs(h.percentile(q) - np.percentile(x, q)) <= h.width * (1 + 1e-9) + 1e-12
    assert h.counts.sum() == h.count == x.size


def test_histogram_fit_keeps_relu_zero_exact_and_flags_itself_approximate():
    x = np.maximum(np.random.default_rng(4).normal(size=20_000), 0)
    h = Histogram(x.min(), x.max())
    for part in np.array_split(x, 7):
        h.add(part)
    streamed = fit_bounds(h, 4, method="percentile", percentile=99.5)
    direct = fit_bounds(x, 4, method="percentile", percentile=99.5)
    assert streamed.lower == 0 and not streamed.exact and direct.exact
    assert abs(streamed.upper - direct.upper) <= h.width
    np.testing.assert_allclose(streamed.error, direct.error, rtol=0.01)


@pytest.mark.parametrize("bits", [0, 17, 33, -1, "four", 4.0, True, None])
def test_bad_bits(bits):
    with pytest.raises(InputError, match="bits"):
        fit_bounds(np.ones(3), bits, method="minmax")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.array([]), {}, "at least one"),
        (np.array([1.0, np.nan]), {}, "NaN or infinity"),
        (np.array([1.0, -np.inf]), {}, "NaN or infinity"),
        (np.array(["a"]), {}, "real number"),
        (np.ones(3), {"method": "magic"}, "minmax, percentile"),
        (np.ones(3), {"percentile": 50}, "percentile"),
        (np.ones(3), {"percentile": "high"}, "percentile"),
        (np.ones((3, 2)), {"axis": 2}, "axis"),
        (Histogram(0, 1), {}, "empty"),
    ],
)
def test_bad_input(values, options, message):
    with pytest.raises(InputError, match=message):
        fit_bounds(values, 4, **{"method": "minmax", **options})


def test_bad_bounds_histograms_and_codes():
    for lower, upper in ((1.0, 0.0), (np.nan, 1.0), (0.0, np.inf), (-3e38, 3e38)):
        with pytest.raises(InputError, match="Bounds"):
            Bounds(lower, upper, 8, 0.0, "minmax")
    with pytest.raises(InputError, match="Histogram"):
        Histogram(1, 0)
    with pytest.raises(InputError, match="NaN"):
        Histogram(0, 1).add(np.array([np.nan]))
    b = fit_bounds(np.arange(4.0), 2, method="minmax")
    with pytest.raises(InputError, match="NaN"):
        quantize(np.array([np.nan]), b)
    with pytest.raises(InputError, match="codes from"):
        dequantize(np.array([4]), b)
    with pytest.raises(InputError, match="integers"):
        dequantize(np.array([0.5]), b)
    with pytest.raises(InputError, match="channels"):
        quantize(np.ones((2, 3)), fit_bounds(np.ones((2, 4)), 2, axis=1, method="minmax"))
