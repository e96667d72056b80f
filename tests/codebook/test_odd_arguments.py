"""Odd arguments of `fit_bounds`, `Bounds` and `Histogram`: the same result, or a clear error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.codebook import (
    Bounds,
    Histogram,
    dequantize,
    fit_bounds,
    fit_codebook,
    quantize,
    universal_set,
)
from sqlib.errors import InputError

METHODS = ("minmax", "percentile", "density", "dobi", "mse")
X = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)


def same(one: Bounds, other: Bounds) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("lower", "upper", "error"))


@pytest.mark.parametrize("method", METHODS)
def test_numpy_scalars_mean_what_python_numbers_mean(method: str) -> None:
    plain = fit_bounds(X, 4, method=method, steps=20, clip=0.001, percentile=99.0, axis=0, threads=2)
    numpy = fit_bounds(
        X,
        np.int8(4),  # type: ignore[arg-type]
        method=method,
        steps=np.int64(20),  # type: ignore[arg-type]
        clip=np.float64(0.001),
        percentile=np.float32(99.0),  # type: ignore[arg-type]
        axis=np.int64(0),  # type: ignore[arg-type]
        one_sided=np.False_,  # type: ignore[arg-type]
        integer_zero=np.bool_(method in ("minmax", "percentile")),  # type: ignore[arg-type]
        threads=np.int32(2),  # type: ignore[arg-type]
    )
    assert same(plain, numpy) and type(numpy.axis) is int and type(numpy.integer_zero) is bool


@pytest.mark.parametrize("method", METHODS)
def test_values_of_any_container_and_real_type(method: str) -> None:
    expected = fit_bounds(X, 4, method=method)
    for values in (X.tolist(), torch.from_numpy(X), X.astype(">f4"), X[::-1, ::-1], np.asfortranarray(X)):
        np.testing.assert_allclose(fit_bounds(values, 4, method=method).lower, expected.lower, rtol=1e-6)
        np.testing.assert_allclose(fit_bounds(values, 4, method=method).upper, expected.upper, rtol=1e-6)
    integers = (X * 100).astype(np.int16)
    assert same(fit_bounds(integers, 4, method=method), fit_bounds(integers.astype(float), 4, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (True, "dtype bool"),
        (X > 0, "dtype bool"),
        (X.astype(complex), "dtype complex"),
        (X.astype(object), "dtype object"),
        ("abc", "dtype <U3"),
        (None, "dtype object"),
        ({1: 2}, "dtype object"),
        (iter([1, 2]), "dtype object"),
        (np.array(["2020-01-01"], "M8[D]"), "dtype datetime64"),
        ([], "0 values"),
        (np.zeros((0, 3)), "0 values"),
        ([[1, 2], [3]], "cannot be read as an array"),
        (torch.ones(3, requires_grad=True), "cannot be read as an array"),
        (torch.ones(3, dtype=torch.bfloat16), "cannot be read as an array"),
        (np.ma.masked_less(X, 0), "masked array"),
        ([np.nan, 1], "NaN or infinity"),
        ([-np.inf, 1], "NaN or infinity"),
        ([-1e308, 1e308], "more than float32 can hold"),
        ([0, 1e39], "float32 can hold"),
        ([1e300], "float32 can hold"),
    ],
)
def test_values_that_have_no_range(method: str, values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_bounds(values, 4, method=method)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": True},
        {"bits": 4.0},
        {"bits": "4"},
        {"bits": None},
        {"bits": np.nan},
        {"method": None},
        {"method": ["mse"]},
        {"method": "MSE"},
        {"percentile": np.nan},
        {"percentile": "99"},
        {"percentile": 99j},
        {"percentile": None},
        {"clip": "x"},
        {"clip": np.nan},
        {"clip": True},
        {"clip": -1},
        {"clip": np.float32(1)},
        {"steps": 0},
        {"steps": np.int64(-3)},
        {"steps": 10.0},
        {"steps": True},
        {"steps": None},
        {"one_sided": 1},
        {"one_sided": "no"},
        {"integer_zero": "no"},
        {"integer_zero": 0},
        {"variant": ["paper"]},
        {"axis": 2},
        {"axis": -3},
        {"axis": True},
        {"axis": 0.0},
        {"axis": "0"},
        {"axis": (0,)},
        {"threads": 0},
        {"threads": -1},
        {"threads": "2"},
        {"threads": 1.5},
        {"threads": None},
        {"threads": True},
    ],
    ids=str,
)
def test_options_that_are_none(options: dict) -> None:
    arguments = {"bits": 4, **options}
    with pytest.raises(InputError, match=next(iter(options))):
        fit_bounds(X, arguments.pop("bits"), **arguments)


@pytest.mark.parametrize(
    "fields",
    [
        {"lower": "0"},
        {"lower": None},
        {"lower": 0j},
        {"lower": True},
        {"upper": np.inf},
        {"lower": np.nan},
        {"lower": 2.0},
        {"lower": -3e38, "upper": 3e38},
        {"lower": 1e39, "upper": 1e39},
        {"error": "x"},
        {"error": [[1], [1, 2]]},
        {"axis": "0"},
        {"axis": 1.5},
        {"axis": True},
        {"axis": 0},
        {"integer_zero": "no"},
        {"exact": 1},
        {"bits": "4"},
    ],
    ids=str,
)
def test_bounds_made_by_hand(fields: dict) -> None:
    with pytest.raises(InputError, match=r"[Bb]ounds|bits"):
        Bounds(**{"lower": 0.0, "upper": 1.0, "bits": 4, "error": 0.0, "method": "mine", **fields})


def test_bounds_of_integers_and_numpy_scalars() -> None:
    made = Bounds(np.float32(-1), 2, np.uint8(2), np.nan, "mine", None, np.False_)  # type: ignore[arg-type]
    assert (made.lower.dtype, made.upper.dtype, made.levels) == (np.float64, np.float64, 4)
    assert dequantize(quantize(np.array([-5.0, 0.1, 9.0]), made), made, np.float64).tolist() == [-1, 0, 2]
    for dtype in (int, complex, "x", "i4", torch.float32, object):
        with pytest.raises(InputError, match="dtype"):
            made.grid(dtype)  # type: ignore[arg-type]
    assert made.grid("f4").scale.dtype == made.grid(np.dtype(np.float32)).scale.dtype == np.float32


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", 1),
        (None, 1),
        (0j, 1),
        (True, 2),
        (np.nan, 1),
        (1, 0),
        (0, 1, 0),
        (0, 1, -1),
        (0, 1, 2.5),
        (0, 1, True),
        (0, 1, "8"),
        (0, 1, 10**14),
    ],
    ids=str,
)
def test_histograms_of_no_range(arguments: tuple) -> None:
    with pytest.raises(InputError, match="Histogram"):
        Histogram(*arguments)


def test_histograms_take_real_values_and_shares_from_0_to_100() -> None:
    histogram = Histogram(np.float32(0), 1, np.int64(16))
    for values in (None, "a", ["a"], X.astype(complex), X.astype(object), [[1], [1, 2]], [np.nan]):
        with pytest.raises(InputError, match=r"Histogram\.add"):
            histogram.add(values)
    with pytest.raises(InputError, match="masked"):
        histogram.add(np.ma.masked_less(X, 0))
    assert histogram.count == 0
    histogram.add(np.linspace(0, 1, 51))
    for q in (-1, 101, np.nan, "5", None, True, 50j):
        with pytest.raises(InputError, match="from 0 to 100"):
            histogram.percentile(q)  # type: ignore[arg-type]
    assert histogram.percentile(np.float64(0)) == 0 and histogram.percentile(100) == 1


@pytest.mark.parametrize(
    "values",
    [[[1], [1, 2]], torch.ones(3, requires_grad=True), torch.ones(3).bfloat16(), np.ma.masked_less(X, 0)],
    ids=lambda values: type(values).__name__,
)
def test_what_numpy_cannot_read_is_refused_everywhere(values: object) -> None:
    candidates = universal_set(2)
    inside = np.linspace(-1, 1, 40)
    codebook, bounds = fit_codebook(inside, candidates, 4), fit_bounds(inside, 2)
    for call in (
        lambda: fit_codebook(values, candidates, 4),
        lambda: fit_codebook(inside, values, 4),  # type: ignore[arg-type]
        *(lambda q=q: quantize(values, q) for q in (codebook, bounds)),  # type: ignore[arg-type]
        *(lambda q=q: dequantize(values, q) for q in (codebook, bounds)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"cannot be read as an array|masked array"):
            call()


@pytest.mark.parametrize("state", ["x", -1, 1.5])
def test_seeds_that_are_none(state: object) -> None:
    with pytest.raises(InputError, match="random_state"):
        fit_codebook(np.linspace(-1, 1, 40), universal_set(2), 4, method="kmeans", random_state=state)  # type: ignore[arg-type]
