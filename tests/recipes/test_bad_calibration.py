"""Every recipe of issue 5 on calibration data and networks that are odd, broken or degenerate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sqlib import quantize_model
from sqlib.errors import InputError
from sqlib.recipes import DFSQ, CompensatedDFSQ, MinMax
from sqlib.recipes.brecq import BRECQ
from sqlib.recipes.qdrop import QDrop

SHORT = dict(schedule="custom", iterations=4, batch=4, learning_rate=0.05, step_learning_rate=0.01)


def recipes(bits):
    return [
        MinMax(bits),
        DFSQ(bits),
        DFSQ(bits, selector="exact", statistics="patch", patch=4),
        CompensatedDFSQ(bits),
        BRECQ(bits, activation_iterations=2, **SHORT),
        QDrop(bits, **SHORT),
    ]


def name(recipe):
    return f"{recipe.name}-{getattr(recipe, 'statistics', '')}".strip("-")


every_recipe = pytest.mark.parametrize("recipe", recipes(4), ids=name)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 3, 3, padding=1),
    )
    net.default_skip = ("0", "4")
    return net.eval()


def images(n=4, seed=1, size=12):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def relative_error(net, quantized, x):
    with torch.no_grad():
        wanted = net(x)
        return float((quantized(x) - wanted).square().mean() / wanted.square().mean())


@every_recipe
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "calibration is empty"),
        ([torch.zeros(0, 3, 8, 8)], r"no values: batch 0 is \(0, 3, 8, 8\) float32"),
        ([torch.rand(2, 4, 8, 8)], r"batch 0 \(\(2, 4, 8, 8\) float32\).*cannot run on it.*3 channels"),
        ([images(), torch.rand(2, 1, 8, 8)], r"batch 1 \(\(2, 1, 8, 8\) float32\).*3 channels"),
        ([torch.rand(1, 3, 0, 8)], r"no values: batch 0 is \(1, 3, 0, 8\) float32"),
        ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], r"batch 0 .*uint8.*cannot run on it"),
        ([images(), images() * float("inf")], r"batch 1: call site '1'.*NaN"),
    ],
    ids=["none", "no images", "channels", "channels later", "no pixels", "uint8", "infinite"],
)
def test_unusable_calibration(recipe, data, message):
    with pytest.raises(InputError, match=message):
        quantize_model(network(), recipe, data)


@every_recipe
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_one_constant_image(recipe, value):
    net, image = network(), torch.full((1, 3, 8, 8), value)
    quantized = quantize_model(net, recipe, [image])
    assert relative_error(net, quantized, image) < 0.02
    assert torch.isfinite(quantized(images())).all()


@every_recipe
def test_one_pixel(recipe):
    net, image = network(), torch.full((1, 3, 1, 1), 0.5)
    quantized = quantize_model(net, recipe, [image])
    assert relative_error(net, quantized, image) < 0.02


@every_recipe
def test_one_image_without_the_axis_of_samples(recipe):
    """Equal to the same image with it: nothing may take its channels for samples."""
    net, (one, two) = network(), images(2)
    bare, full = (quantize_model(net, recipe, data) for data in ([one, two], [one[None], two[None]]))
    x = images(seed=5)
    if isinstance(recipe, CompensatedDFSQ):  # single images are not joined into one batch, so passes differ
        assert relative_error(net, bare, x) < 1.5 * relative_error(net, full, x)
    elif isinstance(recipe, (BRECQ, QDrop)):  # these draw samples along the first axis, and say so
        assert bare.report().query("quantized").rule.str.contains("not reconstructed").all()
    else:
        with torch.no_grad():
            assert torch.equal(bare(x), full(x))
    assert relative_error(net, bare, x) < 0.02


@every_recipe
def test_networks_with_nothing_to_quantize(recipe):
    for net in (nn.ReLU(), nn.Sequential(nn.PixelShuffle(1), nn.BatchNorm2d(3)).eval()):
        with pytest.raises(InputError, match="no call that can be quantized"):
            quantize_model(net, recipe, [images()])
    net, x = network(), images()
    with torch.no_grad():
        assert torch.equal(quantize_model(net, recipe, [x], skip="*")(x), net(x))


def degenerate(kind):
    net = network()
    with torch.no_grad():
        if kind == "dead inputs":  # the second convolution sees zeros in half of its channels
            net[1].weight[:4] = 0
            net[1].bias[:4] = -1
        elif kind == "dead layer":
            net[1].weight.zero_()
            net[1].bias.fill_(-1)
        elif kind == "twins":  # inputs that are copies of each other: any split of a weight does
            net[0].weight[4:] = net[0].weight[:4]
            net[0].bias[4:] = net[0].bias[:4]
        elif kind == "zero weights":
            net[3].weight.zero_()
    return net


@every_recipe
@pytest.mark.parametrize("kind", ["dead inputs", "dead layer", "twins", "zero weights"])
def test_singular_gram_matrices(recipe, kind):
    net, x = degenerate(kind), images(seed=3)
    quantized = quantize_model(net, recipe, [images()])
    assert relative_error(net, quantized, x) < 0.02
    if kind == "zero weights":  # all that is left is float32 rounding of the mean output
        assert relative_error(net, quantized, x) < 1e-10


@pytest.mark.parametrize("recipe", recipes((4, 8)), ids=name)
def test_bits_of_each_side(recipe):
    net, x = network(), images(seed=3)
    quantized = quantize_model(net, recipe, [images()])
    report = quantized.report().query("quantized")
    assert set(report.weight_bits) == {4} and set(report.activation_bits) == {8}
    for site in quantized.sites.values():
        if site.active:
            weight = quantized.network.get_parameter(site.weight).detach()
            values = quantized.weight_quantizer(site.weight_key)(weight)
            assert max(len(row.unique()) for row in values.flatten(1)) <= 16
    both = quantize_model(net, replace(recipe, bits=4), [images()])
    assert relative_error(net, quantized, x) < relative_error(net, both, x)
