"""`record_operands`: what the quantizers of a network would see."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sqlib
from sqlib.errors import InputError

IMAGES = [torch.rand(2, 3, 12, 12), torch.rand(1, 3, 8, 8)]


class Small(nn.Module):
    """A convolution used twice and a product of two activations."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        t = self.twice(torch.relu(self.twice(x))).flatten(2)
        return t @ t.transpose(1, 2)


def test_holds_every_operand_of_every_call_exactly():
    model = Small()
    seen = sqlib.record_operands(model, IMAGES, skip=[])
    assert list(seen) == [
        ("twice", "input"),
        ("twice", "weight"),
        ("twice#1", "input"),
        ("matmul", "left"),
        ("matmul", "right"),
    ]
    with torch.no_grad():
        for number, x in enumerate(IMAGES):
            first = torch.relu(model.twice(x))
            tokens = model.twice(first).flatten(2)
            assert torch.equal(seen["twice", "input"][number], x)
            assert torch.equal(seen["twice#1", "input"][number], first)
            assert torch.equal(seen["matmul", "left"][number], tokens)
            assert torch.equal(seen["matmul", "right"][number], tokens.transpose(1, 2))
    (weight,) = seen["twice", "weight"]
    assert torch.equal(weight, model.twice.weight)
    assert not weight.requires_grad and not any(t.requires_grad for ts in seen.values() for t in ts)


def test_keeps_copies_and_leaves_the_network_alone():
    model = Small().train()
    before = model.twice.weight.detach().clone()
    images = [x.clone() for x in IMAGES]
    seen = sqlib.record_operands(model, images, skip=[])
    images[0].zero_()
    with torch.no_grad():
        model.twice.weight.zero_()
    assert torch.equal(seen["twice", "input"][0], IMAGES[0])
    assert torch.equal(seen["twice", "weight"][0], before)
    assert model.training and not model._forward_hooks and not model.twice._forward_hooks


def test_skips_what_quantize_model_skips(photo):
    network = sqlib.models.pretrained("edsr-small", scale=4)
    crop = torch.from_numpy(photo[:16, :16].copy()).permute(2, 0, 1)[None] / 255
    seen = sqlib.record_operands(network, crop)
    report = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=8), crop).report()
    active = report[report["activation_bits"] == 8]["site"]
    assert {site for site, _ in seen} == set(active)
    assert set(sqlib.record_operands(network, crop, skip=["blocks.*", "body*"])) > {("head", "input")}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_are_computed_have_one_copy_a_call():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.make = nn.Linear(3, 9)

        def forward(self, x):
            return F.conv2d(x, self.make(x.mean((0, 2, 3))).reshape(3, 3, 1, 1))

    weights = sqlib.record_operands(Dynamic(), IMAGES, skip=[])["conv2d", "weight"]
    assert len(weights) == 2 and not torch.equal(*weights)
    normed = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 3, 1)))
    seen = sqlib.record_operands(normed, IMAGES, skip=[])
    (key,) = (key for key in seen if key[1] == "weight")
    assert all(torch.equal(w, normed[0].weight) for w in seen[key]) and len(seen[key]) == 2


def test_shows_where_values_that_are_not_finite_begin():
    seen = sqlib.record_operands(Small(), [torch.full((1, 3, 8, 8), float("nan"))], skip=[])
    assert seen["twice", "input"][0].isnan().all() and seen["matmul", "left"][0].isnan().all()


@pytest.mark.parametrize(
    ("data", "skip", "message"),
    [
        ([], None, "calibration is empty"),
        (IMAGES, "nothing.like.this", "nothing.like.this"),
        ([torch.rand(1, 4, 8, 8)], [], "expected input.* to have 3 channels, but got 4"),
    ],
)
def test_bad_input(data, skip, message):
    with pytest.raises(InputError, match=message):
        sqlib.record_operands(Small(), data, skip=skip)
