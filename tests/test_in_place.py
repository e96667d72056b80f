"""A network that changes tensors in place is quantized as its twin that does not; the data stay the same."""

from __future__ import annotations

import pytest
import torch
from test_copies import EVERY
from torch import Tensor, nn

import sqlib
from sqlib.fit import train_quantized
from sqlib.fit.quantization_aware.task import Answer, l1
from sqlib.recipes import BRECQ, DDTB, PAMS, QDrop, TwoDQuant

SHORT = {"schedule": "custom", "steps": 2, "halve_every": 2, "bound_learning_rate": 0.01, "batch": 2}
TAPPED = {"features": ("blocks.1",)}
RECIPES = {
    **{name: recipe for name, recipe in EVERY.items() if name != "refqsr"},  # which is for residual blocks
    "brecq": BRECQ(4, schedule="laptop", iterations=3, activation_iterations=2),
    "qdrop": QDrop(4, schedule="laptop", iterations=3),
    "twodquant": TwoDQuant(4, schedule="laptop", iterations=2, **TAPPED),
    "pams": PAMS(4, **SHORT, **TAPPED),
    "ddtb": DDTB(4, **SHORT, **TAPPED),
}


class Block(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=in_place)
        self.first, self.second = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)  # in place: the block's own input
        return self.second(self.relu(self.first(x)))


class Network(nn.Module):
    """Shifts its input, begins its blocks with a ReLU, and adds to what the last block returned."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.head = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(in_place), Block(in_place))
        self.tail = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5) if self.in_place else x - 0.5
        shallow = self.head(x)
        deep = self.blocks(shallow.clone())
        deep = deep.add_(shallow) if self.in_place else deep + shallow
        return self.tail(deep)


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def pairs() -> list[tuple[Tensor, Tensor]]:
    return [(images(), images().repeat_interleave(2, -1).repeat_interleave(2, -2))]


def numbers(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("lasting", [True, False], ids=["list", "generator"])
def test_every_recipe_makes_the_same_of_both(name: str, lasting: bool) -> None:
    made, recipe = [], RECIPES[name]
    for in_place in (True, False):
        data = [images(), images(2)]
        given = data if lasting else (x for x in data)
        more = {"pairs": pairs()} if recipe.paired else {}
        made.append(sqlib.quantize_model(Network(in_place).eval(), recipe, given, **more))
        assert torch.equal(data[0], images()) and torch.equal(data[1], images(2))
    first, second = map(numbers, made)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_training_makes_the_same_of_both() -> None:
    """Teacher, network and every step have batches of their own; a feature is what its module returned."""

    def loss(answer: Answer) -> Tensor:
        there, here = answer.teacher_features[0], answer.features[0]
        return l1(answer) + (here - there).abs().mean()

    curves = []
    for in_place in (True, False):
        model = sqlib.quantize_model(Network(in_place).eval(), EVERY["minmax"], [images()])
        data = [images()]
        done = train_quantized(
            model, data, steps=4, batch=2, teacher="self", loss=loss, train={"bounds": 0.01}, **TAPPED
        )
        curves.append(done.curve)
        assert torch.equal(data[0], images())
    assert curves[0] == curves[1]
