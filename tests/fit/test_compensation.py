"""Compensated rounding: the identities it rests on, brute force, and degenerate inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import dequantize, fit_bounds, quantize
from sqlib.errors import InputError
from sqlib.fit.compensation.rows import damped, fit_compensated, fit_nearest, retarget, row_errors
from sqlib.kernels.compensation import descend_rows, round_rows


def _layer(seed, rows=6, columns=12, positions=200):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns)) * np.exp(-np.arange(columns) / 4)
    x = mixing @ rng.normal(size=(columns, positions))
    return rng.normal(size=(rows, columns)), x


def _values(bounds, codes):
    return bounds.scale[:, None] * codes + bounds.lower[:, None]


def _round(w, h, scale, zero, top):
    factor = np.linalg.cholesky(h)
    diagonal = np.diagonal(factor).copy()
    factor = factor / diagonal
    np.fill_diagonal(factor, diagonal)
    codes, errors = np.empty(w.shape, np.int64), np.empty(len(w))
    round_rows(
        w, np.ascontiguousarray(factor), np.full(len(w), scale), np.full(len(w), zero), top, codes, errors
    )
    return codes, errors


def _obq(w, h, scale, zero, top):
    """Optimal brain quantization as published: columns from the last to the first, each error spread over the
    columns still free by the inverse of their part of H."""
    w, codes = w.copy(), np.empty(w.shape, np.int64)
    for j in range(w.shape[1] - 1, -1, -1):
        inverse = np.linalg.inv(h[: j + 1, : j + 1])
        codes[:, j] = np.clip(np.rint(w[:, j] / scale - zero), 0, top)
        error = (w[:, j] - scale * (codes[:, j] + zero)) / inverse[j, j]
        w[:, : j + 1] -= error[:, None] * inverse[j, : j + 1]
    return codes


@pytest.mark.parametrize("seed", range(20))
def test_rounding_by_the_factor_is_optimal_brain_quantization(seed):
    w, x = _layer(seed)
    h = damped(x @ x.T, 0.01)
    codes, errors = _round(w, h, 0.4, -4.0, 7.0)
    assert np.array_equal(codes, _obq(w, h, 0.4, -4.0, 7.0))
    assert np.allclose(errors, row_errors(w, h, 0.4 * (codes - 4.0)), rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 2))
def test_against_every_choice_of_codes(seed, columns, bits):
    """Never better than the best codes on the fitted grid, and a local optimum: no one code improves it."""
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(2, columns)), rng.normal(size=(columns, 5))
    h = x @ x.T
    bounds, codes = fit_compensated(w, h, bits)
    h = damped(h, 0.01)
    assert np.allclose(bounds.error, row_errors(w, h, _values(bounds, codes)), rtol=1e-9, atol=1e-12)
    for row in range(2):
        choices = np.array(list(itertools.product(range(2**bits), repeat=columns)))
        values = bounds.scale[row] * choices + bounds.lower[row]
        errors = row_errors(np.repeat(w[row : row + 1], len(choices), axis=0), h, values)
        assert bounds.error[row] >= errors.min() - 1e-9
        near = np.abs(choices - codes[row]).sum(axis=1) == 1
        assert bounds.error[row] <= errors[near].min(initial=np.inf) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_better_than_rounding_to_the_nearest_level(bits):
    w, x = _layer(3, rows=16, columns=40, positions=500)
    h = x @ x.T
    bounds, codes = fit_compensated(w, h, bits)
    minmax = fit_bounds(w, bits, axis=0, method="minmax")
    nearest, plain = fit_nearest(w, bits)
    assert codes.min() >= 0 and codes.max() < 2**bits
    assert bounds.error.sum() < 0.5 * row_errors(w, damped(h, 0.01), _values(nearest, plain)).sum()
    rounded = dequantize(quantize(w, minmax), minmax, np.float64)
    assert (nearest.error <= np.square(rounded - w).sum(axis=1) * (1 + 1e-12)).all()


def test_refits_and_descent_only_help():
    w, x = _layer(5, rows=16, columns=40, positions=500)
    h = x @ x.T
    assert fit_compensated(w, h, 3)[0].error.sum() < fit_compensated(w, h, 3, refits=0)[0].error.sum()
    h = damped(h, 0.01)
    codes, errors = _round(w, h, 0.5, -4.0, 7.0)
    better = codes.copy()
    descend_rows(w, h, np.full(16, 0.5), np.full(16, -4.0), 7.0, better, 50)
    after = row_errors(w, h, 0.5 * (better - 4.0))
    assert (after <= errors * (1 + 1e-9)).all() and after.sum() < errors.sum()


def test_the_grid_is_what_the_quantizer_computes():
    """An integer zero point: the stored bounds restore the fitted values."""
    w, x = _layer(7)
    bounds, codes = fit_compensated(w, x @ x.T, 4)
    assert np.allclose(dequantize(codes, bounds, np.float64), _values(bounds, codes), rtol=1e-12, atol=1e-12)
    zero = bounds.lower / bounds.scale
    assert np.allclose(zero, np.rint(zero), atol=1e-9)


def test_retargeting_is_the_ridge_regression_solution():
    w, x = _layer(11)
    rng = np.random.default_rng(1)
    seen = x + 0.3 * rng.normal(size=x.shape)
    found = retarget(w, seen @ seen.T, (w @ x) @ seen.T, ridge=1e-9)
    expected = np.linalg.lstsq(seen.T, (w @ x).T, rcond=None)[0].T
    assert np.allclose(found, expected, atol=1e-6)
    assert np.allclose(retarget(w, x @ x.T, (w @ x) @ x.T), w)
    held = retarget(w, seen @ seen.T, (w @ x) @ seen.T, ridge=1e9)
    assert np.allclose(held, w, atol=1e-6)


def test_rounding_what_was_re_targeted_is_rounding_what_was_wanted():
    """The ridge error of any weights is that of the re-targeted ones plus their distance from these in the
    metric H + lambda I, so the rounding may take them for the truth."""
    w, x = _layer(12)
    rng = np.random.default_rng(2)
    seen = x + 0.3 * rng.normal(size=x.shape)
    gram = seen @ seen.T
    best = retarget(w, gram, (w @ x) @ seen.T, ridge=0.02)
    metric = damped(gram, 0.02)
    ridge = metric[0, 0] - gram[0, 0]

    def error(v):
        return np.square(v @ seen - w @ x).sum(1) + ridge * np.square(v - w).sum(1)

    other = best + rng.normal(size=best.shape)
    assert np.allclose(error(other), error(best) + row_errors(best, metric, other), rtol=1e-9)


@pytest.mark.parametrize("columns", [1, 2, 3, 9, 16])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("offset", [0, 3])
def test_no_row_is_worse_than_rounded_to_the_nearest_level(columns, bits, offset):
    """Depthwise and narrow 1x1 layers have few columns, where greedy rounding by itself may lose."""
    rng = np.random.default_rng(columns)
    causes = max(2, columns // 2)
    x = rng.normal(size=(columns, causes)) @ rng.normal(size=(causes, 100))
    w, h = rng.normal(size=(60, columns)) + offset, x @ x.T
    ours, _ = fit_compensated(w, h, bits)
    plain = row_errors(w, damped(h, 0.01), _values(*fit_nearest(w, bits)))
    assert (ours.error <= plain * (1 + 1e-9) + 1e-12).all()


def test_dead_inputs_keep_their_weights():
    w, x = _layer(13)
    x[[2, 5]] = 0
    kept = retarget(w, x @ x.T, (w @ x) @ x.T)
    assert np.allclose(kept[:, [2, 5]], w[:, [2, 5]])
    bounds, codes = fit_compensated(w, x @ x.T, 4, damping=1e-6)
    inside = np.clip(w, bounds.lower[:, None], bounds.upper[:, None])[:, [2, 5]]
    assert (np.abs(_values(bounds, codes)[:, [2, 5]] - inside) <= bounds.scale[:, None] / 2 + 1e-9).all()


def test_no_input_at_all_rounds_to_the_nearest_level():
    w, _ = _layer(17)
    bounds, codes = fit_compensated(w, np.zeros((12, 12)), 4)
    nearest, plain = fit_nearest(w, 4)
    assert np.allclose(_values(bounds, codes), _values(nearest, plain))


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("fit", [fit_compensated, None])
def test_constant_rows_are_exact(value, fit):
    w = np.full((2, 5), value)
    x = np.random.default_rng(0).normal(size=(5, 20))
    bounds, codes = fit_nearest(w, 2) if fit is None else fit(w, x @ x.T, 2)
    assert np.allclose(_values(bounds, codes), w, atol=1e-12)
    assert np.allclose(bounds.error, 0, atol=1e-18)


def test_scale_invariance():
    w, x = _layer(19)
    one, codes = fit_compensated(w, x @ x.T, 3)
    two, same = fit_compensated(w * 2.0**20, x @ x.T * 2.0**-30, 3)
    assert np.array_equal(codes, same)
    assert np.allclose(two.scale, one.scale * 2.0**20)


@pytest.mark.parametrize(
    ("weight", "gram", "message"),
    [
        (np.ones((2, 3)), np.eye(2), "shape"),
        (np.ones(3), np.eye(3), "shape"),
        (np.ones((0, 3)), np.eye(3), "shape"),
        (np.full((2, 3), np.nan), np.eye(3), "NaN"),
        (np.ones((2, 3)), np.full((3, 3), np.inf), "NaN"),
        (np.ones((2, 3)), np.diag([1.0, 1.0, -1.0]), "positive semi-definite"),
    ],
)
def test_bad_input(weight, gram, message):
    with pytest.raises(InputError, match=message):
        fit_compensated(weight, gram, 4)


def test_bad_cross_moments():
    with pytest.raises(InputError, match="cross"):
        retarget(np.ones((2, 3)), np.eye(3), np.ones((3, 2)))
