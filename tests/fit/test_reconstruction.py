"""Block reconstruction that was killed ends as if it had not been, and repeats no step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sqlib
from sqlib.errors import InputError
from sqlib.fit.reconstruction.learner import Learner
from sqlib.recipes.brecq import BRECQ
from sqlib.recipes.qdrop import QDrop

FAST = dict(schedule="custom", iterations=5, batch=3, learning_rate=0.05, step_learning_rate=0.01)
RECIPES = [BRECQ(3, **FAST, activation_iterations=4), QDrop(3, **FAST)]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.a(x).relu())


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(), Block(), nn.Conv2d(4, 3, 3, padding=1))
    net.default_skip = ("0", "3")
    return net.eval()


def quantize(recipe: sqlib.recipes.Recipe, resume: Path | None, seed: int = 1) -> sqlib.engine.QuantizedModel:
    data = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return sqlib.quantize_model(network(), recipe, [data], resume=resume)


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(
        n == m and (torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y) for (n, x), (m, y) in pairs
    )


class Killed(BaseException):
    pass


@pytest.mark.parametrize("recipe", RECIPES, ids=["brecq", "qdrop"])
@pytest.mark.parametrize("every", [1, 100])
def test_killed_anywhere_it_ends_the_same(
    recipe: sqlib.recipes.Recipe, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every third step, within a unit and between units; with a save at each step, or at a unit's end."""
    from sqlib.fit.loop import fit
    from sqlib.fit.reconstruction import optimize

    expected = quantize(recipe, None)
    monkeypatch.setattr(optimize, "fit", lambda task, **kw: fit(task, **{**kw, "every": every}))
    loss, taken = Learner.loss, []

    def kill(self: Learner, step: int) -> torch.Tensor:
        taken.append((self.name, self.stage.rounding, step))
        if len(taken) % 4 == 0 and len(taken) < 13:
            raise Killed
        return loss(self, step)

    monkeypatch.setattr(Learner, "loss", kill)
    for _ in range(3):
        with pytest.raises(Killed):
            quantize(recipe, tmp_path / "state")
    found = quantize(recipe, tmp_path / "state")
    assert same(found, expected) and found.reconstruction == expected.reconstruction
    total = 2 * 5 + (2 * 4 if isinstance(recipe, BRECQ) else 0)
    assert len(set(taken)) == total
    if every == 1:
        assert len(taken) == total + 3  # the step at each kill alone is taken again
    taken.clear()
    assert same(quantize(recipe, tmp_path / "state"), expected) and not taken  # finished: no step at all


@pytest.mark.parametrize("recipe", RECIPES, ids=["brecq", "qdrop"])
def test_other_data_and_options_are_other_runs(recipe: sqlib.recipes.Recipe, tmp_path: Path) -> None:
    quantize(recipe, tmp_path)
    assert same(quantize(recipe, tmp_path, seed=2), quantize(recipe, None, seed=2))
    changed = type(recipe)(**{**vars(recipe), "regularization": 0.02, "schedule": "custom"})
    assert same(quantize(changed, tmp_path), quantize(changed, None))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_loss_that_is_not_finite_stops_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Learner.loss
    monkeypatch.setattr(
        Learner, "loss", lambda self, i: loss(self, i) * (torch.nan if (self.unit.path, i) == ("2", 3) else 1)
    )
    with pytest.raises(InputError, match="reconstruction of '2' stopped at step 3: the loss is nan"):
        quantize(RECIPES[1], None)
