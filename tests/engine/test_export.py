"""A quantized network is a graph as well: `torch.export`, of any height and width, with every recipe."""

from __future__ import annotations

import inspect
import io

import pytest
import torch
from test_copies import BANKS, EVERY, data
from torch import nn
from torch.export import Dim, export

import sqlib
from sqlib.errors import InputError
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR

SIZES = [(14, 18), (41, 23)]
"""Beside that of the example; the second has several tiles of a recipe with statistics by patches."""


def cnn():
    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=2, features=6).eval()


def image(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))


def graph(model, unit=1):
    sides = {axis: unit * Dim(name, min=2, max=400) for axis, name in ((2, "h"), (3, "w"))}
    return export(model, (image(16, 20),), dynamic_shapes=(sides,)).module()


def equal(model, exported, sizes):
    with torch.no_grad():
        return [torch.equal(model(image(*size)), exported(image(*size))) for size in sizes]


def test_compiled_code_calls_it_as_it_is():
    model = sqlib.quantize_model(cnn(), EVERY["minmax"], data(0))
    assert equal(model, torch.compile(model, backend="eager"), [(16, 20), *SIZES]) == [True, True, True]


def test_traces_are_refused():
    model = sqlib.quantize_model(cnn(), EVERY["minmax"], data(0))
    with pytest.raises(InputError, match=r"torch.jit.trace cannot.*torch.export.export.*export_onnx"):
        torch.jit.trace(model, image(16, 20))


@pytest.mark.parametrize("name", EVERY)
def test_every_recipe_gives_the_bits_of_eager(name):
    model = sqlib.quantize_model(cnn(), EVERY[name], data(0))
    assert equal(model, graph(model), [(16, 20), *SIZES]) == [True, True, True]


@pytest.mark.parametrize("name", ["twodquant", "dfsq"])
def test_windows(name):
    """Whole windows: how much padding a side needs is nothing that torch.export can leave open."""
    network = SwinIR("tiny", 2, features=8, depths=(2,), heads=2, window=4).eval()
    model = sqlib.quantize_model(network, EVERY[name], data(0))
    assert equal(model, graph(model, unit=4), [(16, 20), (12, 32), (40, 8)]) == [True, True, True]


def test_bits_of_the_graph_depend_on_the_image():
    """The graph of CADyQ chooses as the network does, here by the gradients of the image alone."""
    model = sqlib.quantize_model(cnn(), EVERY["cadyq"], data(0))
    for bank in model.activations.values():
        with torch.no_grad():
            bank.selector.weight.zero_()[:, 0] = torch.tensor([-1.0, 0.0, 1.0])
            bank.selector.bias.copy_(torch.tensor([1.0, 0.0, -3.0]))
            bank.selector.gradient_scale.fill_(90.0)
    exported, chosen = graph(model), []
    for factor in (0.02, 0.3, 1.0):
        x = factor * image(24, 18)
        with torch.no_grad(), model.context() as context:
            assert torch.equal(exported(x), model(x))
        chosen.append(int(context.bits["blocks.0.conv1"]))
    assert chosen == [4, 6, 8]


def test_the_graph_needs_nothing_of_sqlib():
    model = sqlib.quantize_model(cnn(), EVERY["dfsq"], data(0))
    file = io.BytesIO()
    torch.export.save(export(model, (image(16, 20),)), file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert {str(n.target).split(".")[0] for n in loaded.graph.nodes if n.op == "call_function"} <= {
        "aten",
        "<built-in function getitem>",
    }
    assert equal(model, loaded.module(), [(16, 20)]) == [True]


def test_bits_of_a_weight_that_follow_from_the_input_are_no_graph():
    model = sqlib.quantize_model(cnn(), BANKS["bank of weights"], data(0))
    for bank in model.weights.values():
        bank.selector = _FirstPixel()
    assert model(image(16, 20)).shape == (1, 3, 32, 40)
    with pytest.raises(InputError, match="bits of a weight follow from the values of the input"):
        export(model, (image(16, 20),))


class _FirstPixel(nn.Module):
    def forward(self, x, site, context):
        return (context.args[0].flatten()[:1] >= 0).long() * 6


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image: torch.Tensor, *, gain: torch.Tensor, bias: float = 0.0) -> torch.Tensor:
        return self.b(torch.relu(self.a(image))) * gain + bias


def test_forward_has_the_signature_of_the_network():
    network, inputs = Pair(), {"image": image(8, 8), "gain": torch.rand(3, 1, 1)}
    model = sqlib.quantize_model(network, EVERY["minmax"], [inputs], skip=[])
    assert inspect.signature(model.forward) == inspect.signature(network.forward)
    h = Dim("h", min=2, max=99)
    shapes = {"image": {2: h}, "gain": None}
    exported = export(model, (), inputs, dynamic_shapes=shapes).module()
    other = {**inputs, "image": image(13, 8)}
    assert torch.equal(exported(**other), model(**other))


class Opaque(nn.Module):
    """A network whose ``forward`` is no Python function."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.forward = _Unsigned(self.layer)


class _Unsigned:
    __signature__ = "none"

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


def test_a_network_without_a_signature_runs():
    model = sqlib.quantize_model(Opaque(), EVERY["minmax"], data(0), skip=[])
    assert model(image(8, 8)).shape == (1, 3, 8, 8)
    assert str(inspect.signature(model.forward)) == "(*args: 'Any', **kwargs: 'Any') -> 'Any'"
