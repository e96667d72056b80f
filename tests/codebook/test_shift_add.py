"""Shifts and additions give exact products; what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import fit_codebook, quantize, universal
from sqlib.codebook.shift_add import multiplier, multiply, multiply_reference, operations
from sqlib.errors import InputError


@pytest.mark.parametrize("words", [2, 3, 4, 5])
def test_every_value_times_every_code_of_8_bits(words):
    s = universal(words)
    codes = np.arange(-128, 256)[:, None]
    want = codes * s.numerators
    for product in (multiply, multiply_reference):
        np.testing.assert_array_equal(product(codes, np.arange(len(s)), s), want)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([2, 3, 4, 5]), st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 28))))
def test_large_codes(words, pairs):
    s = universal(words)
    codes, rows = np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)
    want = codes * s.numerators[rows]
    np.testing.assert_array_equal(multiply(codes, rows, s), want)
    np.testing.assert_array_equal(multiply_reference(codes, rows, s), want)


def test_a_dot_product_of_quantized_activations_and_weights_is_exact():
    rng = np.random.default_rng(0)
    s = universal(4)
    x = np.clip(rng.laplace(scale=0.2, size=500), -1, 1)
    book = fit_codebook(x, s, 16)
    positions = np.searchsorted(s.numerators, book.numerators)[quantize(x, book)]
    weights = rng.integers(-8, 8, (10, 500))
    sums = multiply(weights, positions, s).sum(axis=1)
    np.testing.assert_array_equal(sums, weights @ s.numerators[positions])
    np.testing.assert_allclose(sums / s.denominator, weights @ book.points[quantize(x, book)], rtol=1e-12)


def test_four_shifters_and_one_adder_is_a_sum_of_four():
    assert multiplier(4) == (4, 3, 2)
    s = universal(4)
    cost = operations(s)
    assert (cost.shifters.max(), cost.adders.max(), cost.stages.max()) == (4, 3, 2)
    at = s.index(0.8125)  # (1 + 1/4 + 1 + 1)/4
    assert [int(v) for v in operations(s, at)] == [1, 3, 2]
    assert [int(v) for v in operations(s, s.index(0))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("codes", "positions", "message"),
    [
        (0.5, 0, "integers"),
        (1, 0.5, "integer indices"),
        (1, 377, "expected 0 to 376"),
        (1, -1, "expected 0 to 376"),
        (2**41, 0, "2\\^40"),
        ([1, 2], [0, 1, 2], "do not fit"),
    ],
)
def test_bad_input(codes, positions, message):
    for product in (multiply, multiply_reference):
        with pytest.raises(InputError, match=message):
            product(codes, positions, universal(4))
