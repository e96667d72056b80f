"""Recipes as data: options, round trips, bad values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sqlib import recipes
from sqlib.errors import InputError
from sqlib.recipes import MinMax, Percentile

ALL = [
    MinMax(),
    MinMax(bits=4, weight_per="tensor"),
    MinMax(bits=(8, 32)),
    Percentile(bits=(4, 8), percentile=99.5, weight_percentile=99),
]


@pytest.mark.parametrize("recipe", ALL, ids=repr)
def test_round_trips(recipe):
    assert recipes.from_dict(recipe.to_dict()) == recipe
    assert recipes.from_json(recipe.to_json()) == recipe
    assert type(recipe).from_json(recipe.to_json()) == recipe
    assert json.loads(recipe.to_json())["version"] == recipe.version
    assert hash(recipe) == hash(recipes.from_json(recipe.to_json()))


def test_bits_of_each_side():
    assert (MinMax(bits=4).weight_bits, MinMax(bits=4).activation_bits) == (4, 4)
    assert (MinMax(bits=(8, 32)).weight_bits, MinMax(bits=[8, 32]).activation_bits) == (8, 32)
    assert recipes.names() == sorted(recipes.names())
    assert {"dfsq", "minmax", "percentile"} <= set(recipes.names())
    assert recipes.create("percentile", bits=4) == Percentile(bits=4)


@pytest.mark.parametrize(
    "bits", [0, 1, 9, 33, -4, "four", 4.0, None, True, (4,), (4, 4, 4), (4, 33), (1, 4), (32, 32), 32]
)
def test_bad_bits(bits):
    with pytest.raises(InputError, match="bits"):
        MinMax(bits=bits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipes.create("minmaxx"), "did you mean 'minmax'"),
        (lambda: recipes.create(None), "unknown recipe"),
        (lambda: recipes.create("minmax", clip=3), "no option clip"),
        (lambda: MinMax(weight_per="row"), "weight_per"),
        (lambda: Percentile(percentile=50), "percentile=50"),
        (lambda: Percentile(percentile="all"), "percentile"),
        (lambda: Percentile(weight_percentile=101), "weight_percentile"),
        (lambda: recipes.from_dict({"bits": 4}), "name"),
        (lambda: recipes.from_dict({"name": "minmax", "version": 99}), "version"),
        (lambda: recipes.from_json("{"), "JSON"),
        (lambda: recipes.from_json("[1]"), "JSON"),
        (lambda: Percentile.from_dict(MinMax().to_dict()), "minmax"),
    ],
)
def test_bad_values(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_importing_recipes_loads_neither_torch_nor_numpy():
    code = (
        "import sys, sqlib.recipes as r; r.Percentile(bits=4); "
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
