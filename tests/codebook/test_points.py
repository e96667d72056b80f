"""Codebook: the tie rule, thresholds, channels, and the one pair of functions for every fitted quantizer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import Codebook, dequantize, fit_bounds, fit_codebook, quantize, universal, universal_set
from sqlib.errors import InputError


def book(points, **options):
    return Codebook(points, np.nan, np.nan, "test", **options)


def test_ties_go_to_the_lower_point_and_infinities_to_the_ends():
    b = book([-0.5, 0.0, 0.5])
    x = np.array([-0.25, 0.25, np.nextafter(0.25, 1), -np.inf, np.inf, 7.0])
    np.testing.assert_array_equal(quantize(x, b), [0, 1, 2, 0, 2, 2])
    assert dequantize(quantize(x, b), b, np.float64).tolist() == [-0.5, 0, 0.5, -0.5, 0.5, 0.5]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([2, 3, 4, 5]),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
    st.sampled_from([np.float32, np.float64, np.float16]),
)
def test_nearest_point_and_thresholds_of_every_dtype(words, picks, values, dtype):
    s = universal(words)
    points = np.sort(s.values[np.array(picks) % len(s)])
    b = book(points)
    middle = ((points[:-1] + points[1:]) / 2).astype(dtype)
    x = np.concatenate([np.array(values, dtype), middle, np.nextafter(middle, dtype(1)), -middle])
    codes = quantize(x, b)
    distance = np.abs(x.astype(np.float64)[:, None] - points)
    np.testing.assert_allclose(distance[np.arange(x.size), codes], distance.min(axis=1), rtol=0, atol=1e-15)
    np.testing.assert_array_equal(codes, (b.midpoints(dtype) < x[:, None]).sum(axis=1))


def test_channels_on_any_axis_equal_channel_by_channel():
    rng = np.random.default_rng(0)
    points = np.sort(rng.uniform(-1, 1, (5, 4)), axis=1)
    x = rng.uniform(-1, 1, (2, 5, 3, 3)).astype(np.float32)
    per_channel = dataclasses.replace(book(points), axis=1)
    codes = quantize(x, per_channel)
    for c in range(5):
        np.testing.assert_array_equal(codes[:, c], quantize(x[:, c], book(points[c])))
    got = dequantize(codes, per_channel)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[:, 2], points[2].astype(np.float32)[codes[:, 2]])
    assert book(points).axis == 0


def test_layouts_and_code_types():
    x = np.random.default_rng(1).uniform(-1, 1, (6, 4)).astype(np.float32)
    x.flags.writeable = False
    b = book(np.linspace(-1, 1, 16))
    np.testing.assert_array_equal(quantize(x.T[::2], b), quantize(x, b).T[::2])
    assert quantize(x, b).dtype == np.uint8
    assert quantize(x, book(np.linspace(-1, 1, 257))).dtype == np.uint16
    assert quantize(np.empty((0, 3)), b).shape == (0, 3)
    assert dequantize(quantize(np.float32(0.3), b), b).shape == ()


def test_bounds_and_codebooks_share_the_functions():
    x = np.linspace(-1, 1, 9)
    bounds = fit_bounds(x, 2, method="minmax")
    grid = book(dequantize(np.arange(4), bounds, np.float64))
    assert np.abs(quantize(x, bounds).astype(int) - quantize(x, grid)).max() <= 1  # ties differ: even, lower
    for function in (quantize, dequantize):
        with pytest.raises(InputError, match="expected Bounds or Codebook"):
            function(x, "codebook")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(np.array([np.nan]), book([0.0])), "NaN"),
        (lambda: quantize(np.array([1]), book([0.0])), "floating"),
        (lambda: quantize(np.zeros((3, 2)), book(np.zeros((2, 4)))), "2 channels"),
        (lambda: quantize(np.zeros(2), dataclasses.replace(book(np.zeros((2, 4))), axis=1)), "dimensions"),
        (lambda: dequantize(np.array([2]), book([0.0, 1.0])), "expected 0 to 1"),
        (lambda: dequantize(np.array([-1]), book([0.0])), "expected 0 to 0"),
        (lambda: dequantize(np.array([0.0]), book([0.0])), "integers"),
        (lambda: book([0.5, 0.0]), "not sorted"),
        (lambda: book([np.nan]), "finite"),
        (lambda: book([]), "finite"),
        (lambda: book(0.5), "shape"),
        (lambda: book([0.5], numerators=[1]), "both or neither"),
        (lambda: book([0.5], numerators=[1], denominator=4), "differ"),
        (lambda: book([0.5], axis=1), "axis"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_stretched_points_keep_their_numerators():
    narrow = fit_codebook(np.linspace(-0.5, 0.5, 99), universal_set(4), 8)
    wide = narrow.stretched(0.5)
    np.testing.assert_array_equal(wide.points, 2 * narrow.points)
    np.testing.assert_array_equal(wide.numerators, narrow.numerators)
    assert (wide.denominator, wide.error, wide.gap) == (512, 4 * narrow.error, narrow.gap)
    off_lattice = book([0.1, 0.3]).stretched(0.25)
    np.testing.assert_allclose(off_lattice.points, [0.4, 1.2])
    assert off_lattice.denominator is None


@pytest.mark.parametrize("reach", [0, -0.5, 0.3, 2, float("nan"), 2.0**-11])
def test_bad_reach(reach):
    with pytest.raises(InputError, match="reach="):
        fit_codebook(np.linspace(-0.5, 0.5, 99), universal_set(4), 8).stretched(reach)
