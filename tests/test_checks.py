"""Numbers as users give them: NumPy's scalars are numbers, booleans and words are none."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import sqlib
from sqlib._checks import (
    as_integer,
    as_number,
    check_bits,
    check_choice,
    check_clip,
    check_integer,
    check_number,
    check_percentile,
    check_steps,
)
from sqlib.codebook.dobi import dobi_candidates
from sqlib.codebook.norm_search import shrink_bounds
from sqlib.cost import patch_sizes
from sqlib.cost._sizes import image_size, upscaling
from sqlib.errors import InputError
from sqlib.fit.distillation.options import Options
from sqlib.metrics import Protocol
from sqlib.patches import Grid, Tiling
from sqlib.quantizers.content_bits import ContentBits

INTEGERS = [np.int64(4), np.uint8(4), np.array(4)]
NUMBERS = [np.float16(0.5), np.float32(0.5), np.float64(0.5), Fraction(1, 2)]
NONE = [True, np.bool_(True), "4", None, [4], math.nan, 1j, np.array([4, 4])]


@pytest.mark.parametrize("value", INTEGERS)
def test_integers(value: Any) -> None:
    for found in (check_bits(value), check_steps(value), check_integer("n", value, 1, 9)):
        assert type(found) is int and found == 4


@pytest.mark.parametrize("value", [*NUMBERS, np.int64(0)])
def test_numbers(value: Any) -> None:
    for found in (check_clip(value), check_number("x", value, 0, 1), check_percentile(value + 60) - 60):
        assert type(found) is float and found == value


@pytest.mark.parametrize("value", NONE)
def test_what_is_no_number(value: Any) -> None:
    assert as_integer(value) is None
    assert math.isnan(as_number(value))
    for check in (check_bits, check_steps, check_percentile):
        with pytest.raises(InputError):
            check(value)
    for named in (check_integer, check_number):
        with pytest.raises(InputError, match="n="):
            named("n", value, 1, 9)


def test_an_integer_of_hundreds_of_digits() -> None:
    with pytest.raises(InputError):
        check_number("x", 10**400, 0, math.inf)


def test_choices() -> None:
    check_choice("on", "a", ("a", "b"))
    for value in ("c", None, ["a"], np.array(["a", "b"])):
        with pytest.raises(InputError, match="expected one of a, b"):
            check_choice("on", value, ("a", "b"))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16])
def test_objects_keep_ints(kind: Any) -> None:
    """Those of NumPy cannot be written to JSON, and small ones overflow."""
    grid = Grid(kind(250), kind(200), kind(72), kind(6)) if kind is not np.uint8 else Grid(250, 200, 72, 6)
    assert grid == Grid(250, 200, 72, 6) and grid.kept(kind(4)) == grid.kept(4)
    for found, expected in (
        (Tiling(kind(72), kind(6)), Tiling(72, 6)),
        (Protocol(crop=kind(4)), Protocol(crop=4)),
        (Options(iterations=kind(5), batch=kind(2), seed=kind(1)), Options(iterations=5, batch=2, seed=1)),
    ):
        assert found == expected
        assert json.dumps(asdict(found)) == json.dumps(asdict(expected))  # type: ignore[call-overload]
    assert type(ContentBits((4, 6), kind(3)).channels) is int


def test_functions_that_take_them() -> None:
    x = np.random.default_rng(0).normal(size=(4, 30))
    assert shrink_bounds(x, 4, steps=np.int8(80), axis=np.int64(0)).lower.tolist() == (  # type: ignore[arg-type]
        shrink_bounds(x, 4, axis=0).lower.tolist()
    )
    low, high = dobi_candidates(-1.0, 1.0, np.int8(100))  # type: ignore[arg-type]
    assert np.array_equal([low, high], dobi_candidates(-1.0, 1.0, 100))
    options = {"clip": np.float32(0), "steps": np.int8(20), "threads": np.int64(1), "axis": np.int64(0)}
    bounds = sqlib.codebook.fit_bounds(x, np.int64(4), method="dobi", **options)  # type: ignore[arg-type]
    assert np.array_equal(
        bounds.lower, sqlib.codebook.fit_bounds(x, 4, method="dobi", steps=20, axis=0).lower
    )
    assert image_size(np.array([1280, 720]), "size") == (1280, 720)
    assert upscaling(np.int64(4), None) == 4  # type: ignore[arg-type]
    assert patch_sizes((320, 180), None, np.int64(0)) == {(320, 180): 1}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="axis="):
        sqlib.codebook.fit_bounds(x, 4, axis=True)
    with pytest.raises(InputError, match="bits="):
        sqlib.recipes.MinMax(bits=np.bool_(True))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tau="):
        sqlib.recipes.RefQSR(tau=np.bool_(True))  # type: ignore[arg-type]
