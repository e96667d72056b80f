"""Parts of a quantized network that a training loop of one's own moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sqlib
from sqlib.errors import InputError
from sqlib.fit import learnable
from sqlib.models.edsr import EDSR
from sqlib.recipes import DFSQ, PAMS, CADyQ, MinMax

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def quantized(recipe=None, network=None, **options):
    torch.manual_seed(0)
    network = network or EDSR("tiny", 2, blocks=2, features=6).eval()
    return sqlib.quantize_model(network, recipe or MinMax(4), [X], **options)


def step(model, found):
    optimizer = torch.optim.SGD(found.values(), lr=1e-3)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    (model(X) - 1).square().mean().backward()
    optimizer.step()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def test_exactly_what_is_asked_for_learns():
    model = quantized()
    found = learnable(model, "bounds", "biases")
    named = dict(model.named_parameters())
    assert all(named[name] is p for name, p in found.items())
    assert {name for name, p in named.items() if p.requires_grad} == set(found)
    bounds = {
        f"{home}.{key}.{side}"
        for home in ("weights", "activations")
        for key in getattr(model, home)
        for side in ("lower", "upper")
    }
    biases = {f"network.{n}" for n, _ in model.network.named_parameters() if n.endswith("bias")}
    assert set(found) == bounds | biases
    moved = step(model, found)
    assert moved <= set(found) and moved & bounds and moved & biases


@pytest.mark.parametrize(
    ("groups", "begins"),
    [(("weight_bounds",), "weights."), (("activation_bounds",), "activations."), (("weights",), "network.")],
)
def test_groups(groups, begins):
    model = quantized()
    found = learnable(model, *groups)
    assert found and all(name.startswith(begins) for name in found)
    assert step(model, found) <= set(found)


def test_norms_and_another_choice_afterwards():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    model = quantized(network=network.eval(), skip=[])
    assert set(learnable(model, "norms")) == {"network.1.weight", "network.1.bias"}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "network.1.weight",
        "network.1.bias",
    }
    assert set(learnable(model, "weights")) == {"network.0.weight", "network.2.weight"}
    assert not model.network[1].weight.requires_grad


def test_bounds_of_every_width_and_selectors_apart():
    model = quantized(CADyQ(8, steps=0))
    bounds, selectors = learnable(model, "activation_bounds"), learnable(model, "selectors")
    assert {name.rpartition(".")[2] for name in bounds} == {"alpha"}
    assert {name.rpartition(".")[2] for name in selectors} == {"weight", "bias"}
    assert len(bounds) == 3 * len(model.activations)


def test_the_file_knows_that_bounds_are_learnable(tmp_path):
    model = quantized()
    step(model, learnable(model, "bounds"))
    model.save(tmp_path / "q.safetensors")
    again = sqlib.load_quantized(tmp_path / "q.safetensors", EDSR("tiny", 2, blocks=2, features=6))
    assert set(learnable(again, "bounds")) == set(learnable(model, "bounds"))
    assert torch.equal(again(X), model(X))


@pytest.mark.parametrize("groups", [(), ("bound",), ("bounds", "x")])
def test_bad_groups(groups):
    with pytest.raises(InputError, match="expected one or more of weights, biases, norms, bounds"):
        learnable(quantized(PAMS(4, steps=0)), *groups)


def test_nothing_to_learn():
    model = quantized(DFSQ((32, 4), selector="exact"))
    with pytest.raises(InputError, match="nothing to learn in norms, bounds"):
        learnable(model, "norms", "bounds")
    with pytest.raises(InputError, match="model is Conv2d, expected what"):
        learnable(nn.Conv2d(3, 3, 1), "bounds")
