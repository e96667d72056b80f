"""Recipes that start from the result of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import sqlib
from sqlib.engine.recipe import Lesson, Recipe
from sqlib.errors import InputError
from sqlib.recipes import MinMax


@dataclass(frozen=True)
class Doubled(MinMax):
    """Starts from Min-Max at 8 bits and doubles what it finds."""

    def starts_from(self) -> Recipe | None:
        return MinMax(bits=8)

    def learn(self, model: sqlib.QuantizedModel, lesson: Lesson) -> None:
        assert lesson.start is not None and lesson.start.recipe == MinMax(bits=8)
        with torch.no_grad():
            for p in model.network.parameters():
                p.mul_(2)


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3), nn.Conv2d(width, 3, 3))


CROPS = [torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))]


def test_the_start_is_made_where_it_is_not_given_and_its_weights_are_taken() -> None:
    original = network()
    weight = original[1].weight.detach().clone()
    made = sqlib.quantize_model(original, Doubled(bits=4), CROPS)
    assert torch.equal(made.network[1].weight, 2 * weight)
    start = sqlib.quantize_model(original, MinMax(bits=8), CROPS)
    with torch.no_grad():
        start.network[1].weight.mul_(10)
    made = sqlib.quantize_model(original, Doubled(bits=4), CROPS, start=start)
    assert torch.equal(made.network[1].weight, 20 * weight)
    assert torch.equal(original[1].weight, weight)
    assert torch.equal(start.network[1].weight, 10 * weight)


def test_calibration_data_that_can_be_read_once_serve_both() -> None:
    made = sqlib.quantize_model(network(), Doubled(bits=4), iter(CROPS))
    assert torch.equal(made(CROPS[0]), sqlib.quantize_model(network(), Doubled(bits=4), CROPS)(CROPS[0]))


def test_calibration_data_are_kept_before_the_start_is_made() -> None:
    """Also of a loader that fills one buffer again and again, and one tensor is one batch."""

    def refilled() -> Iterator[torch.Tensor]:
        buffer = torch.zeros(1, 3, 16, 16)
        for x in CROPS[0].split(1):
            yield buffer.copy_(x)

    for given, alike in ((refilled(), list(CROPS[0].split(1))), (CROPS[0], CROPS)):
        one, other = (sqlib.quantize_model(network(), Doubled(bits=4), data) for data in (given, alike))
        assert torch.equal(one(CROPS[0]), other(CROPS[0]))
    with pytest.raises(InputError, match="calibration is int"):
        sqlib.quantize_model(network(), Doubled(bits=4), 5)  # type: ignore[arg-type]


def test_a_recipe_refuses_before_anything_is_made() -> None:
    @dataclass(frozen=True)
    class Refusing(Doubled):
        def admit(self, network: nn.Module, pairs: Any, calibration: Any = ()) -> None:
            raise InputError(f"{len(calibration)} batches")

    start = sqlib.quantize_model(network(), MinMax(bits=8), CROPS)
    for given in (None, start):
        with pytest.raises(InputError, match="1 batches"):
            sqlib.quantize_model(network(), Refusing(bits=4), CROPS, start=given)


def test_another_start_is_refused() -> None:
    other = sqlib.quantize_model(network(), MinMax(bits=4), CROPS)
    with pytest.raises(InputError, match=r"start is made by MinMax\(bits=4.*Doubled.*needs MinMax\(bits=8"):
        sqlib.quantize_model(network(), Doubled(bits=4), CROPS, start=other)
    with pytest.raises(InputError, match="start is made by Sequential"):
        sqlib.quantize_model(network(), Doubled(bits=4), CROPS, start=network())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="starts from the network itself: leave start= out"):
        sqlib.quantize_model(network(), MinMax(bits=4), CROPS, start=other)
    wide = sqlib.quantize_model(network(6), MinMax(bits=8), CROPS)
    with pytest.raises(InputError, match="start is another network"):
        sqlib.quantize_model(network(), Doubled(bits=4), CROPS, start=wide)
