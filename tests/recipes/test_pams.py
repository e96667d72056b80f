"""PAMS as a recipe: trained on pairs, on every network, resumable, kept as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_pairs import crops, network, pairs

import sqlib
from sqlib.errors import InputError
from sqlib.fit.distillation.loss import attention_transfer
from sqlib.fit.quantization_aware.task import Answer
from sqlib.recipes import PAMS
from sqlib.recipes._trained import TransferLoss


@pytest.mark.parametrize("kind", ["edsr", "srresnet", "carn", "elan", "own"])
def test_training_moves_weights_and_bounds(kind: str) -> None:
    model = network(kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    quantized = sqlib.quantize_model(model, PAMS(bits=4, steps=2, batch=2), crops(), pairs=pairs())
    start = sqlib.quantize_model(model, PAMS(bits=4, steps=0), crops())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    layers = list(quantized.activations)
    alphas = [(quantized.activations[k].alpha, start.activations[k].alpha) for k in layers]
    assert layers and not any(torch.equal(trained, first) for trained, first in alphas)
    changed = {n for n, t in quantized.network.state_dict().items() if not torch.equal(t, before[n])}
    sites = [s for s in quantized.sites.values() if s.active and s.weight]
    assert {s.weight for s in sites} <= changed
    (outcome,) = quantized.training_log
    assert outcome.finished and len(outcome.curve) == 2
    assert not quantized.training


def test_the_loss_is_the_published_one() -> None:
    model, data = network("edsr"), pairs()
    recipe = PAMS(bits=4, steps=1, batch=6)
    start = sqlib.quantize_model(model, PAMS(bits=4, steps=0), crops())
    seen: list[Tensor] = []
    for net in (start.network, model):
        net.blocks[-1].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        output = start(data[0][0])
        model(data[0][0])
    answer = Answer(output, data[0][1], None, [seen[0]], [seen[1]], start, 0)
    maps = [x.square().mean(1).flatten(1) for x in seen]
    phi = [m / m.norm(dim=1, keepdim=True) for m in maps]
    transfer = (phi[0] - phi[1]).square().mean()
    expected = 255 * (output - data[0][1]).abs().mean() + 1000 * transfer
    assert float(TransferLoss(recipe.transfer)(answer)) == pytest.approx(float(expected), rel=1e-6)
    assert float(attention_transfer(seen[1], seen[0])) == pytest.approx(float(transfer), rel=1e-5)
    assert recipe.tapped(start) == ("blocks.1",)


def test_training_lowers_the_loss() -> None:
    recipe = PAMS(bits=2, steps=60, batch=6, seed=3, learning_rate=3e-3)
    quantized = sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs())
    curve = quantized.training_log[0].curve
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])


def test_resumed_training_is_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlib.fit.loop.loop import Loop

    recipe = PAMS(bits=4, steps=120, batch=2, halve_every=50)
    whole = sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs())
    advance = Loop.advance

    def dying(self: Loop) -> None:
        if self.step == 110:
            raise RuntimeError("killed")
        advance(self)

    monkeypatch.setattr(Loop, "advance", dying)
    with pytest.raises(RuntimeError, match="killed"):
        sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs(), resume=tmp_path)
    monkeypatch.setattr(Loop, "advance", advance)
    again = sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs(), resume=tmp_path)
    state = again.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in whole.state_dict().items())


def test_saved_and_loaded(tmp_path: Path) -> None:
    for unsigned in (False, True):
        recipe = PAMS(bits=4, steps=2, batch=2, unsigned=unsigned)
        quantized = sqlib.quantize_model(network("edsr"), recipe, crops(), pairs=pairs())
        quantized.save(tmp_path / "pams.safetensors")
        loaded = sqlib.load_quantized(tmp_path / "pams.safetensors", network("edsr"))
        x = torch.rand(1, 3, 20, 20)
        assert torch.equal(loaded(x), quantized(x))
        assert loaded.recipe == recipe


def test_unquantized_sites_as_in_the_releases() -> None:
    made = sqlib.quantize_model(
        network("edsr"), PAMS(bits=4, steps=0, unquantized=("*.conv1:input",)), crops()
    )
    bits = made.report().set_index("site")["activation_bits"]
    assert bits["blocks.0.conv1"] == 32 and bits["blocks.0.conv2"] == 4
    assert made.report().set_index("site")["weight_bits"]["blocks.0.conv1"] == 4


def test_what_the_papers_leave_alone() -> None:
    bits = sqlib.quantize_model(network("carn"), PAMS(bits=4, steps=0), crops()).report().set_index("site")
    assert not bits.loc["body.fusions.0.conv", "quantized"]
    assert bits.loc["body.stages.0.stages.0.conv1", "activation_bits"] == 4
    made = sqlib.quantize_model(network("elan"), PAMS(bits=4, steps=0), crops())
    assert "body/0/attention1/windows/0/matmul#1:left" not in made.activations
    assert {"body/0/attention1/windows/0/matmul#1:right", "body/0/attention2/windows/0/matmul:right"} <= set(
        made.activations
    )
    everything = sqlib.quantize_model(network("elan"), PAMS(bits=4, steps=0, unquantized=()), crops())
    assert "body/0/attention1/windows/0/matmul#1:left" in everything.activations


def test_schedules_are_named_truly() -> None:
    assert (PAMS().steps, PAMS().halve_every, PAMS().schedule) == (30_000, 10_000, "published")
    assert PAMS(schedule="laptop").steps == 2_000
    assert PAMS(steps=10).schedule == "custom"
    assert PAMS(transfer=0).schedule == "custom"


def test_an_alpha_that_turns_negative(tmp_path: Path) -> None:
    fast = dict(bits=4, steps=5, batch=2, bound_learning_rate=1e4)
    kept = sqlib.quantize_model(network("own"), PAMS(**fast), crops(), pairs=pairs())  # type: ignore[arg-type]
    start = sqlib.quantize_model(network("own"), PAMS(bits=4, steps=0), crops())
    alphas = [
        (a.alpha.item(), b.alpha.item())  # type: ignore[arg-type]
        for a, b in zip(kept.activations.values(), start.activations.values(), strict=True)
    ]
    assert all(a >= 0.01 * b * (1 - 1e-9) for a, b in alphas)
    with pytest.raises(InputError, match=r"bound alpha of activations.* is -.*good state, of step 0"):
        sqlib.quantize_model(network("own"), PAMS(**fast, guard=False), crops(), pairs=pairs())  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite() -> None:
    low, high = pairs()[0]
    high[:] = torch.inf
    with pytest.raises(InputError, match=r"the loss is inf.*last good state, of step 0"):
        sqlib.quantize_model(network("own"), PAMS(bits=4, steps=3), crops(), pairs=[(low, high)])


def test_pairs_are_asked_for_and_refused() -> None:
    with pytest.raises(InputError, match=r"PAMS trains on pairs.*pairs="):
        sqlib.quantize_model(network("own"), PAMS(bits=4), crops())
    with pytest.raises(InputError, match="MinMax does not train on pairs"):
        sqlib.quantize_model(network("own"), sqlib.recipes.MinMax(), crops(), pairs=pairs())
    with pytest.raises(InputError, match="expected pairs"):
        sqlib.quantize_model(network("own"), PAMS(bits=4, steps=1), crops(), pairs=crops())
