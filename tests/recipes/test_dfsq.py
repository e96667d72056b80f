"""DFSQ as a recipe: options, which sites are centred, whole networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sqlib
from sqlib import models, recipes
from sqlib.codebook import universal_set
from sqlib.errors import InputError
from sqlib.quantizers import SubsetQuantizer, UniformQuantizer
from sqlib.recipes import DFSQ

ALL = [
    DFSQ(),
    DFSQ(bits=(8, 4), words=3, selector="exact"),
    DFSQ(bits=4, selector="kmeans", post_relu="never", seed=7),
    DFSQ(bits=3, channelwise=False, points_per="layer", post_relu="auto"),
    DFSQ(bits=4, normalize="static"),
    DFSQ(bits=4, statistics="patch", patch=32),
]


@pytest.mark.parametrize("recipe", ALL, ids=repr)
def test_round_trips(recipe):
    assert recipes.from_dict(recipe.to_dict()) == recipe
    assert DFSQ.from_json(recipe.to_json()) == recipe
    assert json.loads(recipe.to_json())["name"] == "dfsq"
    assert recipes.create("dfsq", bits=4) == DFSQ(bits=4)


def test_variants_are_options_by_the_name_of_their_source():
    assert DFSQ.variant("release", 4) == DFSQ(bits=4)
    paper = DFSQ.variant("paper", 3, seed=5)
    assert (paper.selector, paper.post_relu, paper.bits, paper.seed) == ("kmeans", "never", 3, 5)
    assert paper.version == DFSQ.version and recipes.from_dict(paper.to_dict()) == paper
    assert DFSQ.variant("exact", (8, 4), words=3) == DFSQ(bits=(8, 4), selector="exact", words=3)
    with pytest.raises(InputError, match="'release', 'paper', 'exact'"):
        DFSQ.variant("print")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 6}, "words=6"),
        ({"words": True}, "words=True"),
        ({"selector": "best"}, "'release', 'kmeans', 'exact'"),
        ({"normalize": True}, "normalize=True"),
        ({"points_per": "tensor"}, "points_per"),
        ({"post_relu": "always"}, "post_relu"),
        ({"statistics": "batch"}, "statistics"),
        ({"channelwise": 1}, "channelwise=1"),
        ({"patch": 0}, "patch=0"),
        ({"seed": -1}, "seed=-1"),
        ({"bits": 5, "words": 2}, "32 points"),
        ({"bits": 7, "words": 3}, "128 points"),
        ({"normalize": "none", "statistics": "patch"}, "normalize='dynamic'"),
        ({"bits": 1}, "bits"),
        ({"bits": 9}, "bits"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        DFSQ(**options)


def test_weight_only_needs_no_points():
    assert DFSQ(bits=(4, 32), words=2).observe(None, "input") is None
    assert DFSQ(bits=(32, 4)).quantize_weight(None, None) is None


def tiny_edsr():
    from sqlib.models.edsr import EDSR

    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=2, features=8).eval()


def calibration(n=2, size=12):
    return [torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(n)]


def centred(quantized):
    return {
        s.name: quantized.activation_quantizer(s, "input").centre
        for s in quantized.sites.values()
        if s.active
    }


def test_which_edsr_layers_are_centred():
    network, data = tiny_edsr(), calibration()
    for option, second in (("release", False), ("auto", False), ("never", True)):
        quantized = sqlib.quantize_model(network, DFSQ(bits=4, post_relu=option), data)
        assert centred(quantized) == {
            "blocks.0.conv1": True,
            "blocks.0.conv2": second,
            "blocks.1.conv1": True,
            "blocks.1.conv2": second,
        }


def test_a_prelu_network_is_centred_everywhere():
    """The release's rule is by name, but calibration that shows negative values overrules it."""
    network = tiny_edsr()
    for block in network.blocks:
        block.relu = nn.PReLU()
    assert all(centred(sqlib.quantize_model(network, DFSQ(bits=4), calibration())).values())


def test_quantizers_of_a_network():
    network, data = tiny_edsr(), calibration()
    quantized = sqlib.quantize_model(network, DFSQ(bits=(8, 4), words=3), data)
    report = quantized.report().query("quantized")
    assert len(report) == 4
    assert set(report.weight_bits) == {8} and set(report.activation_bits) == {4}
    assert set(report.weight_per) == {"channel"}
    assert all(isinstance(q, UniformQuantizer) for q in quantized.weights.values())
    for q in quantized.activations.values():
        assert isinstance(q, SubsetQuantizer) and q.points.shape == (8, 16) and q.denominator == 192
        assert np.isin(q.points.numpy(), universal_set(3)).all()
        assert (q.points == 0).any(1).all()  # the release pins a centre at 0
    assert all(s.activation_keys == {} for s in quantized.sites.values() if not s.active)


def test_the_network_computes_what_the_formula_says():
    """Layer by layer by hand, from the stored weights and points."""
    network, data = tiny_edsr(), calibration()
    quantized = sqlib.quantize_model(network, DFSQ(bits=4), data)
    x = torch.rand(1, 3, 15, 11)

    def layer(name, conv, value):
        site = quantized.sites[name]
        q = quantized.activation_quantizer(site, "input")
        weight = quantized.weight_quantizer(site.weight_key)(conv.weight)
        mean = value.double().mean((2, 3), keepdim=True).float() if q.centre else 0.0
        spread = (value - mean).abs().amax((2, 3), keepdim=True) + 1e-8
        hat = ((value - mean) / spread)[..., None]
        points = q.points.float()[None, :, None, None, :]
        nearest = (hat - points).abs().argmin(-1, keepdim=True)
        restored = torch.gather(points.expand(*value.shape, 16), -1, nearest)[..., 0] * spread + mean
        return F.conv2d(restored, weight, conv.bias, padding=1)

    with torch.no_grad():
        shallow = network.head(network.rgb_mean.subtract(x))
        deep = shallow
        for i, block in enumerate(network.blocks):
            middle = F.relu(layer(f"blocks.{i}.conv1", block.conv1, deep))
            deep = deep + layer(f"blocks.{i}.conv2", block.conv2, middle)
        want = network.rgb_mean.add(network.tail(network.upsampler(network.body_end(deep) + shallow)))
        torch.testing.assert_close(quantized(x), want, rtol=1e-4, atol=1e-4)


def test_saves_and_loads():
    network, data = tiny_edsr(), calibration()
    first = sqlib.quantize_model(network, DFSQ(bits=4), data)
    other = sqlib.quantize_model(network, DFSQ(bits=4, seed=3), [b * 0.3 for b in data])
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert not torch.equal(first(x), other(x))
        other.load_state_dict(first.state_dict())
        assert torch.equal(first(x), other(x))


def test_seeded():
    network, data = tiny_edsr(), calibration()
    a, b, c = (sqlib.quantize_model(network, DFSQ(bits=4, seed=s), data).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_exact_points_lose_least_on_the_calibration_data():
    network, data = tiny_edsr(), calibration()

    def error(selector):
        quantized = sqlib.quantize_model(network, DFSQ(bits=(32, 3), selector=selector), data)
        with torch.no_grad():
            # the first quantized layer sees the same input whatever the selector
            q = quantized.activation_quantizer(quantized.sites["blocks.0.conv1"], "input")
            total = 0.0
            for batch in data:
                x = network.head(network.rgb_mean.subtract(batch))
                spread = (x - x.mean((2, 3), keepdim=True)).abs().amax((2, 3), keepdim=True)
                total += float(((q(x) - x) / spread).square().sum())
        return total

    exact = error("exact")
    assert exact <= error("release") * 1.0001 and exact <= error("kmeans") * 1.0001


@pytest.mark.parametrize("name", ["carn", "carn-m"])
def test_carn(name):
    torch.manual_seed(0)
    network = models.create(name, scale=2)
    quantized = sqlib.quantize_model(network, DFSQ(bits=8, selector="exact"), calibration(1, 16))
    x = calibration(1, 16)[0]
    with torch.no_grad():
        full, low = network(x), quantized(x)
    assert quantized.report().quantized.sum() == (30 if name == "carn" else 39)
    assert 0 < float((full - low).square().mean()) < 0.01 * float(full.var())


class Mixed(nn.Module):
    """A convolution of every kind, linear layers and products."""

    def __init__(self):
        super().__init__()
        self.conv1d, self.conv3d = nn.Conv1d(4, 4, 1), nn.Conv3d(4, 4, 1)
        self.transposed, self.linear = nn.ConvTranspose2d(4, 6, 1), nn.Linear(6, 6)

    def forward(self, x):
        x = self.conv3d(x[:, :, None])[:, :, 0] + self.conv1d(x.flatten(2)).reshape(x.shape)
        x = self.transposed(x)
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens


def test_any_network():
    torch.manual_seed(0)
    network = Mixed().eval()
    data = [torch.randn(2, 4, 5, 6)]
    quantized = sqlib.quantize_model(network, DFSQ(bits=8, selector="exact"), data, skip=[])
    axes = {key: q.axis for key, q in quantized.activations.items()}
    assert sorted(axes.values(), key=str) == sorted([-4, -2, -3, -1, None, None, None, None], key=str)
    with torch.no_grad():
        full, low = network(data[0]), quantized(data[0])
    assert 0 < float((full - low).square().mean()) < 0.01 * float(full.var())


def test_fine_tuning_reaches_the_weights():
    network, data = tiny_edsr(), calibration()
    quantized = sqlib.quantize_model(network, DFSQ(bits=4), data)
    quantized(data[0]).square().sum().backward()
    assert all(float(b.conv1.weight.grad.abs().sum()) > 0 for b in quantized.network.blocks)


def test_bad_calibration_names_the_site():
    network = tiny_edsr()
    broken = torch.full((1, 3, 12, 12), 1e38)
    with pytest.raises(InputError, match=r"blocks\.0\.conv1|NaN|infin"):
        sqlib.quantize_model(network, DFSQ(bits=4), [broken])
