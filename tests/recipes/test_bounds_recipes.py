"""DOBI, MSE and Density through the front door: placement, counts, streams and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sqlib
from sqlib import models, recipes
from sqlib.codebook import dequantize, fit_bounds, quantize
from sqlib.errors import InputError
from sqlib.quantizers import BoundsObserver, DensityObserver, UniformQuantizer
from sqlib.recipes import DOBI, MSE, Density, MinMax, Percentile, TwoDQuant

SEARCHED = [
    DOBI(bits=4, steps=20),
    DOBI(bits=4, steps=20, variant="paper"),
    MSE(bits=4, steps=20),
    Density(bits=4),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Conv2d(8, 3, 3)
    ).eval()


def images(n: int = 2, size: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, size, size, generator=generator) for _ in range(n)]


@pytest.fixture(scope="module")
def swin_light() -> nn.Module:
    torch.manual_seed(0)
    return models.create("swinir-light", scale=4).eval()


def quantizers(model: nn.Module) -> list[UniformQuantizer]:
    return [m for m in model.modules() if isinstance(m, UniformQuantizer)]


@pytest.mark.parametrize("recipe", [*SEARCHED, DOBI(one_sided=["a", "b.*"]), Density(clip=0)], ids=repr)
def test_round_trips(recipe):
    assert recipes.from_json(recipe.to_json()) == recipe
    assert hash(recipe) == hash(recipes.from_dict(recipe.to_dict()))


def test_swinir_light_has_the_384_quantizers_of_2dquant(swin_light):
    """144 weights, 144 inputs of linear layers, 96 operands of matrix products: 768 bounds, per tensor."""
    model = sqlib.quantize_model(swin_light, DOBI(bits=4), [torch.rand(1, 3, 8, 8)])
    report = model.report()
    linear, matmul = (report[report.quantized & (report.op == op)] for op in ("linear", "matmul"))
    assert len(linear) == 144 and len(matmul) == 48 and report.quantized.sum() == 192
    assert set(linear.weight_per) == {"tensor"} and set(report[~report.quantized].op) == {"conv2d"}
    assert sum(len(b) for b in linear.bounds) == 144 and sum(len(b) for b in matmul.bounds) == 96
    found = quantizers(model)
    assert len(found) == 384
    assert sum(p.numel() for q in found for p in q.learnable().parameters()) == 768
    assert {q.method for q in found} == {"dobi"} and not any(q.integer_zero for q in found)
    # pitfall 34: q, k and v see the same tensor through quantizers of their own
    base = "groups.0.layers.0.attn."
    three = [model.activation_quantizer(model.sites[base + name], "input") for name in "qkv"]
    assert len({id(q) for q in three}) == 3 and len({q.upper.item() for q in three}) == 1


def test_paper_variant_keeps_the_lower_end_of_softmax_and_gelu_only(swin_light):
    model = sqlib.quantize_model(
        swin_light, DOBI(bits=3, variant="paper", steps=10), [torch.rand(1, 3, 8, 8)]
    )
    one_sided = {
        (site.op, role)
        for site in model.sites.values()
        for role in site.activation_keys
        if model.activation_quantizer(site, role).method == "dobi one-sided"
    }
    assert one_sided == {("linear", "input"), ("matmul", "left")}
    names = [q.method for q in quantizers(model)]
    assert names.count("dobi one-sided") == 24 + 24 and names.count("dobi") == 384 - 48
    sites = list(model.sites.values())
    maps = [model.activation_quantizer(s, "left") for s in sites if s.name.endswith("matmul#1")]
    assert len(maps) == 24 and all(q.method == "dobi one-sided" and q.lower >= 0 for q in maps)
    gelus = [model.activation_quantizer(s, "input") for s in sites if s.name.endswith("fc2")]
    assert len(gelus) == 24 and all(q.method == "dobi one-sided" for q in gelus)


@pytest.mark.parametrize("recipe", SEARCHED, ids=lambda r: f"{r.name}-{getattr(r, 'variant', '')}")
def test_convolutional_network(recipe):
    original, data = network(), images()
    model = sqlib.quantize_model(original, recipe, data, skip=[])
    with torch.no_grad():
        out = model(data[0])
        assert torch.isfinite(out).all()
        noise = (out - original(data[0])).square().mean()
        coarse = sqlib.quantize_model(original, type(recipe)(bits=2), data, skip=[])
        assert 0 < noise < (coarse(data[0]) - original(data[0])).square().mean()
    report = model.report()
    assert set(report.weight_bits) == {4} and set(report.activation_bits) == {4}


def test_small_sr_networks_of_both_kinds():
    for name in ("edsr-small", "swinir-small"):
        original = models.create(name, scale=2).eval()
        for recipe in (DOBI(bits=8), MSE(bits=8, steps=20), Density(bits=8)):
            model = sqlib.quantize_model(original, recipe, images(1))
            with torch.no_grad():
                assert torch.isfinite(model(images(1)[0])).all()


def test_weights_have_the_bounds_of_the_pure_function():
    original = network()
    for recipe, method in ((DOBI(bits=3), "dobi"), (MSE(bits=3), "mse")):
        for per in ("tensor", "channel"):
            chosen = type(recipe)(bits=3, weight_per=per, steps=30)
            model = sqlib.quantize_model(original, chosen, images(1), skip=[])
            weight = original[2].weight.detach().numpy()
            axis = 0 if per == "channel" else None
            expected = fit_bounds(weight, 3, method=method, steps=30, axis=axis)
            found = model.weight_quantizer(model.sites["2"].weight_key)
            np.testing.assert_array_equal(found.lower.numpy(), expected.lower)
            np.testing.assert_array_equal(found.upper.numpy(), expected.upper)


def test_streamed_observers_agree_with_all_values_together_and_keep_their_size():
    generator = torch.Generator().manual_seed(3)
    batches = [torch.nn.functional.gelu(torch.randn(20_000, generator=generator)) for _ in range(6)]
    x = torch.cat(batches).numpy()
    for method in ("dobi", "mse"):
        observer = BoundsObserver(4, method=method)
        for number in range(observer.passes):
            for batch in batches:
                observer.update(batch, number)
        assert observer.histogram.counts.size == 8192
        streamed, direct = observer.finish().bounds(), fit_bounds(x, 4, method=method)
        assert not streamed.integer_zero
        error = np.square(dequantize(quantize(x, streamed), streamed, np.float64) - x).sum()
        assert direct.error * (1 - 1e-5) <= error <= direct.error * (1 + 1e-3)


def test_one_sided_where_the_data_is():
    for values, expected in ((torch.rand(500), "dobi one-sided"), (torch.rand(500) - 0.1, "dobi")):
        observer = BoundsObserver(4, method="dobi", one_sided=None)
        for number in (0, 1):
            observer.update(values, number)
        assert observer.finish().method == expected


def test_density_is_the_mean_of_the_batches():
    batches = [torch.randn(3000) * k for k in (1.0, 2.0, 3.0)]
    observer = DensityObserver(4)
    for batch in batches:
        observer.update(batch)
    each = [fit_bounds(b.numpy(), 4, method="density") for b in batches]
    found = observer.finish()
    np.testing.assert_allclose(float(found.lower), np.mean([b.lower for b in each]), rtol=1e-12)
    np.testing.assert_allclose(float(found.upper), np.mean([b.upper for b in each]), rtol=1e-12)


@pytest.mark.parametrize("recipe", SEARCHED, ids=lambda r: f"{r.name}-{getattr(r, 'variant', '')}")
def test_constant_activations_and_one_pixel(recipe):
    original = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)).eval()
    for data in (torch.full((1, 1, 4, 4), 0.5), torch.zeros(2, 1, 3, 3), torch.full((1, 1, 1, 1), 0.25)):
        model = sqlib.quantize_model(original, recipe, [data], skip=[])
        with torch.no_grad():
            assert torch.isfinite(model(data)).all()
        lower, upper = model.report().bounds[0]["input"]
        assert lower == upper == data.flatten()[0]


@pytest.mark.parametrize("recipe", SEARCHED, ids=lambda r: f"{r.name}-{getattr(r, 'variant', '')}")
def test_half_precision_network(recipe):
    for kind in (torch.float16, torch.bfloat16):
        original = network().to(kind)
        model = sqlib.quantize_model(original, recipe, images(1), skip=[])
        with torch.no_grad():
            out = model(images(1)[0].to(kind))
        assert out.dtype == kind and torch.isfinite(out).all()
        assert all(q.lower.dtype == torch.float64 for q in quantizers(model))


@pytest.mark.parametrize("recipe", SEARCHED, ids=lambda r: f"{r.name}-{getattr(r, 'variant', '')}")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "calibration is empty"),
        ([torch.full((1, 3, 16, 16), float("nan"))], "NaN or infinity"),
        ([torch.rand(1, 3, 16, 16), torch.full((1, 3, 16, 16), float("inf"))], "batch 1.*NaN or infinity"),
        ([torch.rand(0, 3, 16, 16)], "no values"),
    ],
)
def test_bad_calibration(recipe, data, message):
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(network(), recipe, data, skip=[])


@pytest.mark.parametrize("kind", [DOBI, MSE, Density])
@pytest.mark.parametrize("bits", [0, 1, 9, 16, (4, 1), (9, 4), 4.0, "four"])
def test_recipes_take_2_to_8_bits(kind, bits):
    with pytest.raises(InputError, match="bits"):
        kind(bits=bits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DOBI(variant="draft"), "variant"),
        (lambda: DOBI(one_sided="*.fc2"), "one_sided"),
        (lambda: DOBI(one_sided=[""]), "one_sided"),
        (lambda: DOBI(steps=0), "steps"),
        (lambda: MSE(steps=True), "steps"),
        (lambda: MSE(weight_per="row"), "weight_per"),
        (lambda: Density(clip=1), "clip"),
        (lambda: Density(clip="0.1"), "clip"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("kind", [DOBI, MSE, Density])
def test_one_side_in_full_precision(kind):
    for bits, expected in (((4, 32), (4, 32)), ((32, 4), (32, 4))):
        row = sqlib.quantize_model(network(), kind(bits=bits), images(1), skip=[]).report().iloc[1]
        assert (row.weight_bits, row.activation_bits) == expected


def test_observers_without_data_say_so():
    for observer in (BoundsObserver(4, method="mse"), DensityObserver(4)):
        with pytest.raises(InputError, match="no values"):
            observer.finish()
    unseen = BoundsObserver(4, method="mse")
    unseen.update(torch.rand(4), 0)
    with pytest.raises(InputError, match="second"):
        unseen.finish()


def test_search_beats_minmax_where_it_looks():
    """On the calibration data, per weight: least squares is no worse than DOBI, DOBI than min-max."""
    original, data = network(), images()
    sqnr = {}
    for recipe in (MinMax(bits=3, weight_per="tensor"), DOBI(bits=3), MSE(bits=3)):
        sqnr[recipe.name] = sqlib.quantize_model(original, recipe, data, skip=[]).report().weight_sqnr_db
    assert (sqnr["mse"] >= sqnr["dobi"] - 1e-6).all()
    assert sqnr["dobi"].sum() > sqnr["minmax"].sum()


@pytest.mark.parametrize("kind", [MinMax, Percentile])
def test_the_extremes_themselves_without_an_integer_zero(kind):
    """2DQuant has no zero points; with one, the range moves so that zero is a level."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    x = torch.rand(2, 3, 12, 12)
    options = {"weight_per": "tensor", **({"percentile": 100.0} if kind is Percentile else {})}
    real = sqlib.quantize_model(network, kind(2, **options, integer_zero=False), [x], skip=[])
    moved = sqlib.quantize_model(network, kind(2, **options), [x], skip=[])
    for name, data in (("2/weight|0", network[2].weight.detach()), ("0:input", x)):
        bounds, other = (
            (m.weights if "weight" in name else m.activations)[name].bounds() for m in (real, moved)
        )
        assert not bounds.integer_zero and other.integer_zero
        ends = (data.min().item(), data.max().item())
        assert (float(bounds.lower), float(bounds.upper)) == pytest.approx(ends, rel=1e-3)
    with pytest.raises(InputError, match="integer_zero='no': expected True or False"):
        kind(4, integer_zero="no")


def test_2dquant_starts_without_zero_points():
    for start in ("minmax", "percentile"):
        assert TwoDQuant(4, bounds_from=start).start().integer_zero is False
