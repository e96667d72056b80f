"""QDrop: what dropping changes, and what it leaves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sqlib
from sqlib import recipes
from sqlib.errors import InputError
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.recipes.qdrop import QDrop

SHORT = dict(schedule="custom", iterations=60, batch=8, learning_rate=0.05, step_learning_rate=0.01)

FEW = 15


class Block(nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.a, self.b = nn.Conv2d(n, n, 3, padding=1), nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x):
        return x + self.b(self.a(x).relu())


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), Block(), Block(), nn.Conv2d(6, 3, 3, padding=1))
    net.default_skip = ("0", "3")
    return net.eval()


def crops(seed=1):
    return torch.rand(8, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def quantize(bits=3, **options):
    return sqlib.quantize_model(network(), QDrop(bits, **{**SHORT, **options}), [crops()])


def outputs(quantized, seed=5):
    with torch.no_grad():
        return quantized(crops(seed))


def uppers(quantized):
    return [float(q.upper) for q in quantized.activations.values()]


@pytest.fixture(scope="module")
def start():
    return quantize(iterations=0)


@pytest.mark.parametrize("p", [0, 0.5])
def test_held_out_error_falls_with_weights_and_steps_learned(start, p):
    quantized = quantize(drop_probability=p)
    with torch.no_grad():
        wanted = network()(crops(99))
    before, after = (float((outputs(q, 99) - wanted).square().mean()) for q in (start, quantized))
    assert after < 0.8 * before
    assert all(o.after < o.before for o in quantized.reconstruction)
    assert all(a != b for a, b in zip(uppers(quantized), uppers(start), strict=True))
    for key in quantized.weight_keys:
        rounded = quantized.weight_quantizer(key)
        assert isinstance(rounded, RoundedWeight)
        weight = rounded(quantized.network.get_parameter(key.split("|")[0])).detach()
        lower, scale, _ = rounded.grid(weight)
        codes = torch.round((weight - lower) / scale)
        assert torch.equal(codes * scale + lower, weight) and codes.min() >= 0 and codes.max() <= 7


def test_dropping_everything_learns_weights_as_if_activations_were_full_precision(start):
    always = quantize(iterations=FEW, drop_probability=1)
    assert uppers(always) == uppers(start)
    # activations of other bits are never seen, so the codes are the same
    eight = quantize((3, 8), iterations=FEW, drop_probability=1)
    for key in always.weight_keys:
        assert torch.equal(always.weight_quantizer(key).stored, eight.weight_quantizer(key).stored)
    never = quantize(iterations=FEW, drop_probability=0)
    assert any(
        not torch.equal(always.weight_quantizer(k).stored, never.weight_quantizer(k).stored)
        for k in always.weight_keys
    )


def test_dropping_everything_with_full_precision_weights_leaves_the_start():
    only = quantize((32, 3), iterations=FEW, drop_probability=1)
    assert all(o.before == o.after for o in only.reconstruction)
    assert uppers(only) == uppers(quantize((32, 3), iterations=0))
    assert uppers(quantize((32, 3), iterations=FEW, drop_probability=0)) != uppers(only)


def test_seed_decides_the_drops():
    few = dict(iterations=8, drop_probability=0.5)
    assert torch.equal(outputs(quantize(**few, seed=1)), outputs(quantize(**few, seed=1)))
    assert not torch.equal(outputs(quantize(**few, seed=1)), outputs(quantize(**few, seed=2)))


def test_no_iterations_is_nearest_rounding(start):
    for key in start.weight_keys:
        assert type(start.weight_quantizer(key)) is UniformQuantizer


def test_callers_without_gradients():
    with torch.no_grad():
        inside = quantize(iterations=5)
    assert torch.equal(outputs(inside), outputs(quantize(iterations=5)))


@pytest.mark.parametrize(
    "recipe", [QDrop(), QDrop(4, schedule="laptop"), QDrop(2, **SHORT, drop_probability=1)], ids=repr
)
def test_round_trips(recipe):
    assert recipes.from_dict(recipe.to_dict()) == recipe
    assert recipes.from_json(recipe.to_json()) == recipe


def test_schedules_say_what_they_are():
    published = QDrop(4)
    assert (published.schedule, published.iterations, published.batch) == ("published", 20_000, 32)
    assert (published.step_learning_rate, published.scale_steps) == (4e-5, 100)
    assert QDrop(4, schedule="laptop").to_dict()["iterations"] == 500
    assert QDrop(4, iterations=100).schedule == "custom"


@pytest.mark.parametrize("value", [-0.1, 1.1, "half", None, True, float("nan")])
def test_bad_drop_probability(value):
    with pytest.raises(InputError, match="drop_probability"):
        QDrop(4, drop_probability=value)


def test_unknown_options_name_the_known_ones():
    with pytest.raises(InputError, match="activation_norm"):
        recipes.create("qdrop", activation_norm=2.0)
