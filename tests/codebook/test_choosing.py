"""fit_codebook: the exact choice against brute force, heuristics, streaming, and bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import LatticeHistogram, dequantize, fit_codebook, quantize, universal, universal_set
from sqlib.codebook.exhaustive import count_subsets
from sqlib.errors import InputError

SETS = {words: universal_set(words) for words in (2, 3, 4, 5)}


def squared_error(x, points, weights):
    return float(np.sum(weights * ((x[:, None] - points) ** 2).min(axis=1)))


def brute_force(x, weights, u, levels, zero):
    """Least squared error over all subsets, each evaluated on the values themselves."""
    subsets = np.array(list(itertools.combinations(range(len(u)), levels)))
    if zero:
        subsets = subsets[(u[subsets] == 0).any(axis=1)]
    square = (x[:, None] - u) ** 2
    return float((weights[:, None] * square[:, subsets].min(axis=2)).sum(axis=0).min())


def check_exact(x, u, levels, zero, weights):
    book = fit_codebook(x, u, levels, include_zero=zero, sample_weight=weights)
    wide, w = x.astype(np.float64), np.ones(x.size) if weights is None else weights
    want = brute_force(wide, w, u, levels, zero)
    got = squared_error(wide, book.points, w)
    tiny = 1e-28 * w.sum()  # a few squared units in the last place of the values
    assert got <= want * (1 + 1e-9) + tiny
    assert abs(float(book.error) - got) <= 1e-9 * got + 1e-22 * w.sum()
    assert book.points.shape == (levels,) and len(set(book.points.tolist())) == levels
    assert set(book.points.tolist()) <= set(u.tolist()) and (not zero or 0.0 in book.points)
    assert book.gap == 1


@st.composite
def cases(draw):
    """Small problems with ties, duplicates, constants, midpoints, odd weights, K = 1 and K = |U|."""
    if draw(st.booleans()):
        full = SETS[draw(st.sampled_from(list(SETS)))]
        u = np.unique(
            [full[i % len(full)] for i in draw(st.lists(st.integers(0, 1294), min_size=1, max_size=8))]
        )
    else:
        digits = draw(st.integers(1, 7))
        u = np.unique(np.round(draw(st.lists(st.floats(-1, 1), min_size=1, max_size=8)), digits) + 0.0)
    zero = draw(st.booleans())
    if zero:
        u = np.unique(np.append(u, 0.0))
    levels = draw(st.integers(1, len(u)))
    pick = st.integers(0, len(u) - 1).map(lambda i: float(u[i]))
    value = st.one_of(
        st.floats(-1, 1),
        pick,
        st.tuples(pick, pick).map(lambda p: (p[0] + p[1]) / 2),
        st.tuples(pick, st.floats(-1e-7, 1e-7)).map(lambda p: min(max(p[0] + p[1], -1.0), 1.0)),
    )
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = np.array(draw(st.lists(value, min_size=1, max_size=10)), dtype)
    if draw(st.booleans()):
        x[:] = x[0]
    weights = None
    if draw(st.booleans()):
        some = st.one_of(st.sampled_from([0.0, 1.0, 3.0]), st.floats(1e-6, 1e6))
        weights = np.array(draw(st.lists(some, min_size=x.size, max_size=x.size)))
        weights[0] += weights.sum() == 0
    return x, u, levels, zero, weights


@settings(deadline=None, max_examples=200)
@given(cases())
def test_exact_equals_brute_force(case):
    check_exact(*case)


def test_exact_equals_brute_force_on_three_thousand_seeded_cases():
    """The same without hypothesis' overhead: as many cases again as it could generate in a minute."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        if rng.random() < 0.6:
            u = np.unique(rng.choice(SETS[int(rng.choice([2, 3, 4], p=[0.4, 0.3, 0.3]))], rng.integers(1, 9)))
        else:
            u = np.unique(np.round(rng.uniform(-1, 1, rng.integers(1, 9)), rng.integers(1, 8)) + 0.0)
        zero = bool(rng.random() < 0.4)
        u = np.unique(np.append(u, 0.0)) if zero else u
        n = int(rng.integers(1, 12))
        middle = (rng.choice(u, n) + rng.choice(u, n)) / 2
        near = np.clip(rng.choice(u, n) + rng.normal(scale=1e-7, size=n), -1, 1)
        kinds = [rng.uniform(-1, 1, n), rng.choice(u, n), near, np.full(n, rng.uniform(-1, 1)), middle]
        x = kinds[rng.integers(5)].astype(rng.choice([np.float32, np.float64]))
        weights = None if rng.random() < 0.5 else rng.choice([0.0, 1.0, 2.5, 1e-3, 7.0], n) + 1e-9
        check_exact(x, u, int(rng.integers(1, len(u) + 1)), zero, weights)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_exhaustive_and_exact_agree_and_heuristics_are_no_better(case):
    x, u, levels, zero, weights = case
    options = dict(sample_weight=weights, include_zero=zero)
    exact = fit_codebook(x, u, levels, **options)
    tiny = 1e-28 * (x.size if weights is None else weights.sum())
    every = fit_codebook(x, u, levels, method="exhaustive", **options)
    assert abs(every.error - exact.error) <= 1e-9 * exact.error + tiny + 1e-22 * (every.error > 0)
    free = fit_codebook(x, u, levels, sample_weight=weights)
    for method in ("kmeans", "release"):
        book = fit_codebook(x, u, levels, method=method, sample_weight=weights, random_state=0)
        assert book.error >= free.error * (1 - 1e-9) - tiny - 1e-22
        assert book.gap >= 1 - 1e-9 or free.error <= 1e-18
        assert book.points.shape == (levels,) and set(book.points.tolist()) <= set(u.tolist())


@pytest.mark.parametrize("words", [2, 4])
def test_large_candidate_sets_equal_a_plain_dynamic_program(words):
    """Every K at once on a full universal set, on data with gaps, atoms and ties."""
    u = SETS[words]
    rng = np.random.default_rng(words)
    channels = np.array(
        [
            np.clip(rng.laplace(scale=0.1, size=400), -1, 1),
            np.maximum(np.clip(rng.normal(scale=0.3, size=400), -1, 1), 0),
            rng.choice(u[::3], 400),
            np.round(rng.uniform(-0.3, 0.2, 400), 2),
            np.tile(u[::2], 400)[:400],
        ]
    )
    levels = [k for k in (1, 2, 3, 7, 16, 29, 64, 200, 256, 377) if k <= len(u)]
    books = {k: fit_codebook(channels, u, k) for k in levels}
    for c, x in enumerate(channels):
        best = plain_dynamic_program(x, u)
        for k in levels:
            assert books[k].error[c] == pytest.approx(best[k - 1], rel=1e-9, abs=1e-18)
            points = books[k].points[c]
            assert squared_error(x, points, np.ones(x.size)) == pytest.approx(
                best[k - 1], rel=1e-9, abs=1e-18
            )


def plain_dynamic_program(x, u):
    """Least squared error for every number of points, from direct sums of squares."""
    size = len(u)
    square = (x[:, None] - u) ** 2
    cost = np.full((size, size), np.inf)
    for i in range(size):
        inside = (x >= u[i])[:, None] & (x[:, None] < u)
        cost[i] = np.where(
            np.arange(size) > i, (np.minimum(square[:, [i]], square) * inside).sum(axis=0), np.inf
        )
    best = ((x[:, None] < u) * square).sum(axis=0)
    above = ((x[:, None] >= u) * square).sum(axis=0)
    errors = [(best + above).min()]
    for _ in range(1, size):
        best = (best[:, None] + cost).min(axis=0)
        errors.append((best + above).min())
    return np.minimum.accumulate(errors)


def test_channels_together_equal_channels_alone_and_a_histogram():
    x = np.clip(np.random.default_rng(0).laplace(scale=[[0.1], [0.3], [0.02]], size=(3, 5000)), -1, 1)
    x = x.astype(np.float32)
    u = universal(4)
    for method in ("exact", "kmeans"):
        together = fit_codebook(x, u, 16, method=method, random_state=1)
        assert together.points.shape == (3, 16) and together.error.shape == together.gap.shape == (3,)
        np.testing.assert_array_equal(together.numerators / together.denominator, together.points)
        restored = dequantize(quantize(x, together), together, np.float64)
        np.testing.assert_allclose(((x - restored) ** 2).sum(axis=1), together.error, rtol=1e-12)
    exact = fit_codebook(x, u, 16)
    for c in range(3):
        np.testing.assert_array_equal(fit_codebook(x[c], u, 16).points, exact.points[c])
    h = LatticeHistogram(channels=3)
    h.add(x)
    np.testing.assert_array_equal(fit_codebook(h, u, 16).points, exact.points)
    for method in ("kmeans", "release"):  # bins instead of values: close, not equal
        assert (fit_codebook(h, u, 16, method=method, random_state=0).gap < 3).all()


def test_release_pins_zero_keeps_duplicates_and_is_repeatable():
    x = np.clip(np.random.default_rng(0).laplace(scale=0.05, size=20_000), -1, 1)
    books = [fit_codebook(x, universal(4), 256, method="release", random_state=3) for _ in range(2)]
    np.testing.assert_array_equal(books[0].points, books[1].points)
    assert 0.0 in books[0].points and len(np.unique(books[0].points)) < 256 and books[0].levels == 256
    assert books[0].gap > 1


def test_kmeans_finds_well_separated_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([-0.75, -0.25, 0.25, 0.75])
    x = np.clip(np.repeat(centres, 500) + rng.normal(scale=0.01, size=2000), -1, 1)
    book = fit_codebook(x, universal(4), 4, method="kmeans", random_state=0)
    np.testing.assert_allclose(book.points, centres, atol=2e-3)
    assert book.gap == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("method", ["exact", "kmeans", "release", "exhaustive"])
def test_constant_data_and_fewer_values_than_levels(method):
    u = universal_set(2)[10:19]
    for value in (0.0, float(u[1]), 0.01):
        book = fit_codebook(np.full(5, value), u, 4, method=method, random_state=0)
        assert book.error == pytest.approx(5 * np.min((u - value) ** 2), rel=1e-9, abs=1e-20)
        assert book.levels == 4


def test_spare_levels_are_spread_over_the_unused_candidates():
    book = fit_codebook(np.zeros(9), universal_set(4), 16)
    assert 0.0 in book.points and len(np.unique(book.points)) == 16
    assert book.points[0] < -0.4 and book.points[-1] > 0.4


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(5)
    x, times = rng.uniform(-1, 1, 300), rng.integers(0, 4, 300)
    for u in (universal_set(3), np.linspace(-1, 1, 30)):
        a = fit_codebook(x, u, 9, sample_weight=times)
        b = fit_codebook(np.repeat(x, times), u, 9)
        np.testing.assert_array_equal(a.points, b.points)
        assert a.error == pytest.approx(float(b.error), rel=1e-9)


def test_candidates_off_the_lattice_may_leave_the_unit_range():
    x = np.random.default_rng(1).normal(scale=30, size=2000)
    book = fit_codebook(x, np.linspace(-100, 100, 57), 5)
    assert book.numerators is None and book.denominator is None
    assert squared_error(x, book.points, np.ones(x.size)) == pytest.approx(float(book.error), rel=1e-9)


def test_an_exhaustive_search_counts_before_it_starts():
    assert count_subsets(377, 16) == math.comb(377, 16)
    assert count_subsets(15, 8) == 6435
    with pytest.raises(InputError, match="5,763,292,410,433,306,512,811,686,925 subsets"):
        fit_codebook(np.zeros(3), universal_set(4), 16, method="exhaustive")


def test_layouts_dtypes_and_read_only_data():
    x = np.clip(np.random.default_rng(2).laplace(scale=0.2, size=(6, 800)), -1, 1)
    x = x.astype(np.float16).astype(np.float64)
    want = fit_codebook(x, universal(4), 8).points
    locked = x.copy()
    locked.flags.writeable = False
    big = x.astype(">f8")
    for same in (x.astype(np.float16), x.astype(np.float32), np.asfortranarray(x), locked, big, x.tolist()):
        np.testing.assert_array_equal(fit_codebook(same, universal(4), 8).points, want)
    np.testing.assert_array_equal(fit_codebook(x[::2, ::-1], universal(4), 8).points, want[::2])
    assert fit_codebook(np.array([-1, 0, 1, 1]), universal(4), 3).error == 0


U = universal_set(4)
X = np.linspace(-1, 1, 50)


@pytest.mark.parametrize(
    ("values", "candidates", "levels", "options", "message"),
    [
        (np.array([]), U, 4, {}, "at least one value"),
        (np.zeros((0, 5)), U, 4, {}, "at least one value"),
        (np.zeros((2, 2, 2)), U, 4, {}, "reshape"),
        (np.array([0.0, np.nan]), U, 4, {}, "1 of 2 values are NaN"),
        (np.array([0.0, np.inf], np.float32), U, 4, {}, "NaN or infinite"),
        (np.array([0.0, -np.inf]), [-0.3, 0.123], 1, {}, "NaN or infinite"),
        (np.array([0.0, 1.001]), U, 4, {}, "normalize"),
        (np.array([-2.0, 0.0], np.float32), U, 4, {}, "normalize"),
        (np.array([0.0, 1.001]), [-0.3, 0.123], 1, {}, "normalize"),
        (np.array(["a"]), U, 4, {}, "real numbers"),
        (np.array([1j]), U, 4, {}, "real numbers"),
        (X, U, 378, {}, "distinct candidates, 377"),
        (X, U, 512, {}, "distinct candidates, 377"),  # 9 bits
        (X, U, 0, {}, "from 1"),
        (X, U, 4.0, {}, "from 1"),
        (X, U, True, {}, "from 1"),
        (X, [0.5, 0.5], 2, {}, "distinct candidates, 1"),
        (X, [], 1, {}, "candidates"),
        (X, [np.nan, 0.0], 1, {}, "finite"),
        (X, [[0.0]], 1, {}, "candidates"),
        (X, U, 4, {"method": "magic"}, "exact, kmeans, release, exhaustive"),
        (X, [0.5, 0.25], 1, {"include_zero": True}, "0 is not among"),
        (X, U, 4, {"method": "kmeans", "include_zero": True}, "cannot force"),
        (X, U, 4, {"sample_weight": np.ones(49)}, "sample_weight of shape"),
        (X, U, 4, {"sample_weight": -np.ones(50)}, "below 0"),
        (X, U, 4, {"sample_weight": np.full(50, np.nan)}, "finite"),
        (X, U, 4, {"sample_weight": np.zeros(50)}, "above 0"),
        (X, U, 4, {"sample_weight": ["a"] * 50}, "real numbers"),
        (LatticeHistogram(), U, 4, {}, "empty"),
        (X, np.linspace(-1, 1, 5000), 4, {}, "at most 4096"),
    ],
)
def test_bad_input(values, candidates, levels, options, message):
    with pytest.raises(InputError, match=message):
        fit_codebook(values, candidates, levels, **options)


def test_a_histogram_that_does_not_fit():
    h = LatticeHistogram(192)
    h.add([0.0])
    with pytest.raises(InputError, match="denominator 192"):
        fit_codebook(h, universal_set(4), 4)
    with pytest.raises(InputError, match="sample_weight"):
        fit_codebook(h, universal_set(3), 4, sample_weight=[1])


def test_the_papers_kmeans_is_near_the_optimum_where_random_starts_are_not():
    """k-means++ spreads the starts; at 256 points random starts leave the tails to a few of them."""
    x = np.random.default_rng(0).laplace(size=20_000)
    x /= np.abs(x).max()
    gaps = {m: fit_codebook(x, U, 256, method=m, random_state=0).gap for m in ("kmeans", "release")}
    assert 1.0 <= gaps["kmeans"] < 1.3 < gaps["release"]


def test_spread_starts_are_distinct_until_values_run_out():
    from sqlib.kernels.lloyd import spread_start

    x, w = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0, 1.0])
    starts = spread_start(x, w, np.array([0.1, 0.5, 0.999, 0.3]))
    assert sorted(starts[:3]) == [0.0, 2.0, 3.0] and starts[3] in (0.0, 2.0, 3.0)
