"""The fused normalized kernel: equality with its formula, bad input, layouts, threads."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sqlib.codebook import Codebook, quantize, universal
from sqlib.codebook.nearest import nearest_table
from sqlib.errors import InputError
from sqlib.kernels import _threads, vector
from sqlib.kernels.normalized import EPSILON, Statistics, fake_quantize_normalized, plane_statistics

NAN = np.array(np.nan)


def on_lattice(numerators, words=4):
    numerators = np.sort(np.asarray(numerators), axis=-1)
    d = universal(words).denominator
    return Codebook(numerators / d, NAN, NAN, "x", numerators, d, 1 if numerators.ndim == 2 else None)


def off_lattice(points):
    points = np.sort(np.asarray(points, dtype=np.float64), axis=-1)
    return Codebook(points, NAN, NAN, "x", axis=1 if points.ndim == 2 else None)


def some_points(rng, channels, levels, words=4):
    numerators = universal(words).numerators
    return np.stack(
        [rng.choice(numerators, levels, replace=levels > numerators.size) for _ in range(channels)]
    )


def reference(x, codebook, mean, maximum, epsilon=EPSILON):
    """The formula with a brute-force nearest point (first of the nearest = lower), exact on the lattice."""
    kind = x.dtype.type
    lattice = codebook.numerators is not None
    half, unit = (2 * codebook.denominator, codebook.denominator) if lattice else (2048, 1)
    points = np.atleast_2d(codebook.numerators if lattice else codebook.points)
    points = np.broadcast_to(points, (x.shape[1], points.shape[1]))
    mean, maximum = np.broadcast_to(mean, x.shape[:2]), np.broadcast_to(maximum, x.shape[:2])
    out = np.empty_like(x)
    for n, c in np.ndindex(x.shape[:2]):
        spread = maximum[n, c] + kind(epsilon)
        t = (x[n, c] - mean[n, c]) * (kind(half) / spread)
        t = np.clip(t, -half, half).astype(np.float64)
        # twice the distance in integers or in cells; float64 holds both exactly enough to compare
        scaled = 2 * points[c] if lattice else points[c] * half
        middle = (scaled[1:] + scaled[:-1]) / 2
        code = (t[:, None] > middle[None, :]).sum(axis=1)
        out[n, c] = points[c].astype(kind)[code] * (spread / kind(unit)) + mean[n, c]
    return out


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_equals_the_formula_bit_for_bit(data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 150)))
    width = 8 * np.dtype(dtype).itemsize
    pool = data.draw(hnp.arrays(dtype, 8, elements=st.floats(-(2.0**60), 2.0**60, width=width)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    # few distinct values, ordinary values, and values that stand exactly on midpoints
    kind = data.draw(st.sampled_from(["pool", "normal", "lattice"]))
    x = {
        "pool": rng.choice(pool, shape),
        "normal": rng.normal(size=shape),
        "lattice": rng.integers(-2048, 2049, shape) / 2048,
    }[kind].astype(dtype)
    channels, levels = data.draw(st.sampled_from([1, shape[1]])), data.draw(st.integers(1, 24))
    words = data.draw(st.sampled_from([2, 3, 4, 5]))
    points = some_points(rng, channels, levels, words)
    codebook = on_lattice(points, words) if data.draw(st.booleans()) else off_lattice(points / 7001.3)
    centre, channelwise = data.draw(st.booleans()), data.draw(st.booleans())
    table = nearest_table(codebook, dtype)
    got, stats = fake_quantize_normalized(x, table, centre=centre, channelwise=channelwise)
    assert got.dtype == dtype and stats.mean.shape == (shape[0], shape[1] if channelwise else 1)
    assert got.tobytes() == reference(x, codebook, *stats).tobytes()
    by_table = table._replace(few=None)  # what machines without AVX-512 do
    for other in (table, by_table):
        again, _ = fake_quantize_normalized(x, other, statistics=stats)
        assert again.tobytes() == got.tobytes()
    again, _ = fake_quantize_normalized(x, by_table, centre=centre, channelwise=channelwise)
    assert again.tobytes() == got.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 5000])
def test_statistics(dtype, size):
    x = (np.random.default_rng(size).normal(size=(2, 3, size)) * 50 + 1000).astype(dtype)
    mean, maximum = plane_statistics(x)
    exact = np.array([[math.fsum(map(float, row)) / size for row in sample] for sample in x])
    if dtype == np.float32:  # a float64 sum of so few float32 values rounds to the right float32
        np.testing.assert_array_equal(mean, exact.astype(dtype))
    np.testing.assert_allclose(mean, exact, rtol=1e-14 if dtype == np.float64 else 1e-7)
    np.testing.assert_array_equal(maximum, np.abs(x - mean[:, :, None]).max(axis=2))
    mean, maximum = plane_statistics(x, centre=False, channelwise=False)
    assert not mean.any() and mean.shape == (2, 1)
    np.testing.assert_array_equal(maximum[:, 0], np.abs(x).max(axis=(1, 2)))


def test_ties_go_to_the_lower_point_at_every_midpoint():
    """x spans [-1, 1] without centring and M + epsilon is 1: every lattice midpoint comes by exactly."""
    for words in (2, 3, 4, 5):
        numerators = universal(words).numerators[::7]
        codebook = on_lattice(numerators, words)
        d = codebook.denominator
        grid = np.arange(-2 * d, 2 * d + 1)
        x = (grid / (2 * d)).reshape(1, 1, -1)
        one = Statistics(np.zeros((1, 1)), np.ones((1, 1)))
        got, _ = fake_quantize_normalized(x, nearest_table(codebook, np.float64), statistics=one, epsilon=0.0)
        code = np.searchsorted(numerators[1:] + numerators[:-1], grid, side="left")
        np.testing.assert_array_equal(got[0, 0], numerators[code] * (1.0 / d))
        if words in (2, 4):  # the midpoints themselves are floating-point numbers
            np.testing.assert_array_equal(quantize(x[0, 0], codebook), code)


def test_off_lattice_table_agrees_with_the_lattice_table():
    rng = np.random.default_rng(3)
    for levels in (1, 2, 16, 256):
        points = some_points(rng, 4, levels)
        x = rng.laplace(size=(2, 4, 3000)).astype(np.float32)
        a, _ = fake_quantize_normalized(x, nearest_table(on_lattice(points), np.float32))
        b, _ = fake_quantize_normalized(x, nearest_table(off_lattice(points / 1024), np.float32))
        np.testing.assert_array_equal(a, b)


def test_many_points_within_one_cell():
    points = np.concatenate([0.3 + np.arange(200) * 1e-7, [-1.0, 1.0]])
    codebook = off_lattice(points)
    x = np.random.default_rng(0).uniform(0.29999, 0.30003, (1, 1, 4000)).astype(np.float32)
    x[0, 0, 0] = 1.0
    got, stats = fake_quantize_normalized(x, nearest_table(codebook, np.float32), centre=False)
    assert np.unique(got).size > 50
    np.testing.assert_array_equal(got, reference(x, codebook, *stats))


def test_constant_and_single_pixel_planes():
    table = nearest_table(on_lattice([-700, -3, 5, 800]), np.float32)  # without 0
    for value in (0.0, 3.25, -1e-12, 7e8):
        for size in (1, 200):
            x = np.full((2, 3, size), value, np.float32)
            got, stats = fake_quantize_normalized(x, table)
            np.testing.assert_allclose(got, x, rtol=0, atol=1e-10)
            assert not stats.maximum.any()
    # not centred, the value is its own maximum: it goes to the point nearest to +-1
    got, _ = fake_quantize_normalized(np.full((1, 1, 5), -2.0, np.float32), table, centre=False)
    np.testing.assert_allclose(got, -2 * 700 / 1024, rtol=1e-6)
    got, _ = fake_quantize_normalized(np.zeros((1, 1, 5), np.float32), table, centre=False)
    assert np.abs(got).max() <= 1e-10


def test_layouts_out_and_empty():
    rng = np.random.default_rng(1)
    table = nearest_table(on_lattice(some_points(rng, 4, 8)), np.float32)
    x = rng.normal(size=(3, 4, 70)).astype(np.float32)
    want, _ = fake_quantize_normalized(x, table)
    locked = x.copy()
    locked.flags.writeable = False
    for view in (np.asfortranarray(x), locked, np.repeat(x, 2, axis=2)[:, :, ::2]):
        np.testing.assert_array_equal(fake_quantize_normalized(view, table)[0], want)
    out = np.empty_like(x)
    assert fake_quantize_normalized(x, table, out=out)[0] is out
    np.testing.assert_array_equal(out, want)
    fake_quantize_normalized(x, table, out=x)
    np.testing.assert_array_equal(x, want)
    for shape in ((0, 4, 7), (2, 4, 0)):
        assert fake_quantize_normalized(np.empty(shape, np.float32), table)[0].shape == shape


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("channelwise", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_raises(value, centre, channelwise):
    rng = np.random.default_rng(2)
    table = nearest_table(on_lattice(some_points(rng, 3, 16)), np.float32)
    for position in (0, 63, 64, 129):
        x = rng.normal(size=(2, 3, 130)).astype(np.float32)
        x[1, 2, position] = value
        with pytest.raises(InputError, match="1 of 780 values"):
            fake_quantize_normalized(x, table, centre=centre, channelwise=channelwise)
        with pytest.raises(InputError, match="1 of 780 values"):
            plane_statistics(x, centre=centre, channelwise=channelwise)
        given_ = Statistics(np.zeros((1, 1)), np.ones((1, 1)))
        with pytest.raises(InputError, match="1 of 780 values"):
            fake_quantize_normalized(x, table, statistics=given_)


def test_given_statistics_clip():
    codebook = on_lattice([-1024, 0, 1024])
    x = np.array([[[-5.0, -0.4, 0.6, 3e38]]], np.float32)
    given_ = Statistics(np.zeros((1, 1)), np.ones((1, 1)))
    got, used = fake_quantize_normalized(
        x, nearest_table(codebook, np.float32), statistics=given_, epsilon=0.0
    )
    np.testing.assert_array_equal(got, [[[-1, 0, 1, 1]]])
    assert used.maximum.dtype == np.float32


def test_bad_arguments():
    rng = np.random.default_rng(0)
    table = nearest_table(on_lattice(some_points(rng, 3, 4)), np.float32)
    x = np.ones((1, 3, 5), np.float32)
    with pytest.raises(InputError, match="3 channels"):
        fake_quantize_normalized(np.ones((1, 4, 5), np.float32), table)
    with pytest.raises(InputError, match="float64"):
        fake_quantize_normalized(x.astype(np.float64), table)
    for wrong in (x.astype(np.float16), x.astype(np.int64), x[0]):
        with pytest.raises(InputError, match="expected float32 or float64"):
            fake_quantize_normalized(wrong, table)
    with pytest.raises(InputError, match="out has shape"):
        fake_quantize_normalized(x, table, out=np.empty((1, 3, 4), np.float32))
    for mean, maximum in ((np.nan, 1.0), (0.0, -1.0), (0.0, np.inf)):
        with pytest.raises(InputError, match="statistics"):
            fake_quantize_normalized(
                x, table, statistics=Statistics(np.array([[mean]]), np.array([[maximum]]))
            )
    with pytest.raises(InputError, match=r"\(samples, channels\)"):
        fake_quantize_normalized(x, table, statistics=Statistics(np.zeros((1, 2)), np.ones((1, 2))))
    with pytest.raises(InputError, match="overflows"):
        fake_quantize_normalized(np.array([[[3e38, 3e38, 3e38, -3e38]] * 3], np.float32), table)
    with pytest.raises(InputError, match="at most 256"):
        nearest_table(off_lattice(np.linspace(-1, 1, 257)), np.float32)
    with pytest.raises(InputError, match=r"within \[-1, 1\]"):
        nearest_table(off_lattice([0.0, 1.5]), np.float32)


def test_vector_search_is_used_where_it_can_be(monkeypatch):
    codebook = on_lattice(some_points(np.random.default_rng(0), 3, 16))
    assert (nearest_table(codebook, np.float32).few is not None) == vector.AVAILABLE
    assert nearest_table(codebook, np.float64).few is None
    assert nearest_table(on_lattice(universal(2).numerators, 2), np.float32).few is None
    monkeypatch.setattr(vector, "AVAILABLE", False)
    assert nearest_table(codebook, np.float32).few is None


@pytest.mark.parametrize("size", [1, 15, 16, 17, 47])
def test_planes_that_are_no_multiple_of_a_register(size):
    rng = np.random.default_rng(size)
    table = nearest_table(on_lattice(some_points(rng, 2, 9)), np.float32)
    x = rng.normal(size=(2, 2, size)).astype(np.float32)
    guarded = np.full((2, 2, size + 40), 7, np.float32)
    flat = guarded.reshape(-1)[: x.size].reshape(x.shape)
    fake_quantize_normalized(x, table, out=flat)
    np.testing.assert_array_equal(flat, fake_quantize_normalized(x, table._replace(few=None))[0])
    assert (guarded.reshape(-1)[x.size :] == 7).all()  # nothing written beyond the end


def test_threads_do_not_change_the_result(monkeypatch):
    monkeypatch.setattr(_threads, "VALUES_PER_THREAD", 100)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 7, 333)).astype(np.float32)
    for codebook in (on_lattice(some_points(rng, 7, 16)), on_lattice(some_points(rng, 1, 16)[0])):
        table = nearest_table(codebook, np.float32)
        for channelwise in (True, False):
            want = fake_quantize_normalized(x, table, channelwise=channelwise)[0]

            def call(threads, table=table, channelwise=channelwise):
                return fake_quantize_normalized(x, table, channelwise=channelwise, threads=threads)[0]

            for threads in (2, 3, 50):
                np.testing.assert_array_equal(call(threads), want)
            with ThreadPoolExecutor(8) as pool:  # many Python threads at once, each asking for its own
                assert all(np.array_equal(got, want) for got in pool.map(call, [3] * 64))
    x[2, 6, 5] = np.nan
    with pytest.raises(InputError, match="1 of"):
        fake_quantize_normalized(x, table, threads=3)
