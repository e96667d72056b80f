"""Recipes as data: options, round trips, bad values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import sqlib
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


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (recipes.MinMax, {}),
        (recipes.DFSQ, {}),
        (recipes.CompensatedDFSQ, {}),
        (recipes.BRECQ, {"schedule": "laptop", "iterations": 4, "activation_iterations": 4, "batch": 2}),
        (recipes.QDrop, {"schedule": "laptop", "iterations": 4, "batch": 2, "scale_steps": 20}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bits_mixed_per_layer(recipe, options):
    """A recipe of one's own gives every layer its bits, and every layer then has as many levels."""

    class Mixed(recipe):
        def weight_quantizer(self, weight, site):
            return of(site).weight_quantizer(weight, site)

        def activation_observer(self, site, operand):
            return of(site).activation_observer(site, operand)

    def of(site):
        return recipe(bits=(8, 6) if site.module == "0" else (2, 3), **options)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)).eval()
    images = torch.rand(2, 3, 16, 16)
    quantized = sqlib.quantize_model(net, Mixed(bits=4, **options), [images], skip=[])
    report = quantized.report().set_index("site")
    assert report["weight_bits"].tolist() == [8, 2] and report["activation_bits"].tolist() == [6, 3]
    weights = {site.weight: quantized.weight_quantizer(site.weight_key) for site in quantized.sites.values()}
    for name, most in (("0.weight", 256), ("2.weight", 4)):
        levels = [len(row.unique()) for row in weights[name](net.get_parameter(name).detach()).flatten(1)]
        assert max(levels) <= most
    with torch.no_grad():
        assert torch.isfinite(quantized(images)).all()
        assert float((quantized(images) - net(images)).square().mean()) < float(net(images).var())


@pytest.mark.parametrize("recipe", [recipes.BRECQ, recipes.QDrop])
def test_a_schedule_with_another_shape_is_custom(recipe):
    assert recipe().schedule == "published" and recipe(schedule="laptop").schedule == "laptop"
    shapes = {"warmup": 0.9, "regularization": 1.0, "beta": (3, 2), "loss_norm": 1, "scale_norm": 2}
    shapes |= {"scale_steps": 5, "weight_per": "tensor", "iterations": 5}
    for name, value in shapes.items():
        assert recipe(**{name: value}).schedule == "custom", name
    assert recipe(beta=[20, 2]).schedule == "published"  # as JSON has it
    for schedule in ("published", "laptop"):
        assert recipes.from_dict(recipe(schedule=schedule).to_dict()) == recipe(schedule=schedule)
    assert recipes.BRECQ(activation_norm=2).schedule == "custom"
    assert recipes.QDrop(drop_probability=0.1).schedule == "custom"
