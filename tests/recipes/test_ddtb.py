"""DDTB as a recipe: dynamic layers, warm-up, training on pairs on every network, resumable, kept."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_pairs import network, pairs, refilled

import sqlib
from sqlib.engine.recipe import Lesson
from sqlib.errors import InputError
from sqlib.fit.loop.loop import Loop
from sqlib.fit.quantization_aware.task import Answer
from sqlib.quantizers import FollowingQuantizer, GatedQuantizer, UniformQuantizer
from sqlib.recipes import DDTB
from sqlib.recipes._trained import TransferLoss
from sqlib.recipes.ddtb import WarmUpLoss, _logits, gated


def crops() -> list[Tensor]:
    low = pairs()[0][0]
    return [low[:3], 0.4 * low[3:], 0.7 * low[1:4]]


def quantized(kind="own", data=None, resume=None, **options):
    recipe = DDTB(**{"bits": 4, "steps": 0, "batch": 2, "dynamic": 50, **options})
    return sqlib.quantize_model(network(kind), recipe, data or crops(), pairs=pairs(), resume=resume)


@pytest.mark.parametrize("kind", ["edsr", "srresnet", "carn", "elan", "own"])
def test_training_moves_weights_bounds_and_gates(kind, tmp_path):
    start, trained = quantized(kind), quantized(kind, steps=12)
    assert len(gated(trained)) == round(len(gated(quantized(kind, dynamic=100))) / 2) > 0
    assert all(q.on for q in gated(trained).values()) and not any(q.on for q in gated(start).values())
    for key, q in trained.activations.items():
        before = start.activations[key]
        assert not torch.equal(q.upper, before.upper) or not torch.equal(q.lower, before.lower), key
        assert not q.trainable and float(q.upper) > float(q.lower)
        if isinstance(q, GatedQuantizer):
            assert not torch.equal(q.gate.second.bias, before.gate.second.bias), key
            assert not torch.equal(q.gate.mean, before.gate.mean)
    weights = {s.weight for s in trained.sites.values() if s.active and s.weight}
    old = start.network.state_dict()
    changed = {n for n, t in trained.network.state_dict().items() if not torch.equal(t, old[n])}
    assert weights <= changed
    assert all(isinstance(q, FollowingQuantizer) for q in trained.weights.values())
    assert [len(o.curve) for o in trained.training_log] == [1, 11]
    assert not trained.training and trained.report()["activation_bits"].min() == 4
    trained.save(tmp_path / "ddtb.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "ddtb.safetensors", network(kind))
    x = pairs()[0][0]
    with_gradients = trained(x).detach()
    with torch.no_grad():
        out = trained(x)
        assert torch.equal(out, with_gradients)
        assert torch.equal(loaded(x), out) and torch.equal(copy.deepcopy(trained)(x), out)
        assert bool(torch.isfinite(out).all()) and loaded.recipe == trained.recipe
        for q in gated(loaded).values():
            q.on = False
        assert not torch.equal(loaded(x), out)


def test_pairs_that_can_be_read_once_serve_both_trainings():
    recipe = DDTB(bits=4, steps=12, batch=2, dynamic=50)
    made = [
        sqlib.quantize_model(network("own"), recipe, crops(), pairs=given)
        for given in (refilled(), [tuple(x.clone() for x in pair) for pair in refilled()])
    ]
    assert [len(o.curve) for o in made[0].training_log] == [1, 11]
    assert made[0].training_log[-1].curve == made[1].training_log[-1].curve


def test_the_layers_whose_range_differs_most_are_dynamic():
    for kind, percent in (("edsr", 30), ("srresnet", 10), ("own", 30)):
        model = quantized(kind, dynamic=None)
        candidates = gated(quantized(kind, dynamic=100))
        expected = sorted(candidates, key=lambda k: -float(candidates[k].spread))
        assert set(gated(model)) == set(expected[: round(len(expected) * percent / 100)])
        assert all(type(q) in (UniformQuantizer, GatedQuantizer) for q in model.activations.values()), (
            "no other quantizers"
        )
    assert not gated(quantized(dynamic=0))


def test_spread_is_the_variance_over_batches():
    seen: list[Tensor] = []
    net = network("own")
    net.middle[0].register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    with torch.no_grad():
        for batch in crops():
            net(batch)
    quantizer = quantized(dynamic=100).activations["middle/0:input"]
    expected = np.var([float(x.max()) for x in seen]) + np.var([float(x.min()) for x in seen])
    assert float(quantizer.spread) == pytest.approx(expected)
    first = seen[0].double().numpy()
    assert [quantizer.lower.item(), quantizer.upper.item()] == np.percentile(first, (1, 99)).tolist()


def test_the_start_of_the_release():
    for bits, found in ((2, None), (4, [-10, 10])):
        model = quantized(bits=bits, start="release")
        own = [[q.lower.item(), q.upper.item()] for q in model.activations.values()]
        expected = quantized(bits=bits).activations.values()
        assert own == [found or [q.lower.item(), q.upper.item()] for q in expected]


def test_unquantized_sites_as_in_the_release():
    model = quantized("edsr", unquantized=("*.conv1:input",))
    bits = model.report().set_index("site")["activation_bits"]
    assert bits["blocks.0.conv1"] == 32 and bits["blocks.0.conv2"] == 4


def test_schedules_are_named_truly_and_split_as_published():
    made = DDTB()
    assert (made.steps, made.halve_every, made.batch, made.schedule) == (60_000, 10_000, 16, "published")
    assert (made.learning_rate, made.bound_learning_rate, made.transfer) == (1e-4, 1e-2, 1000)
    assert DDTB(schedule="laptop").steps == 2_000 and DDTB(steps=10).schedule == "custom"
    assert DDTB(steps=10, halve_every=5) == sqlib.recipes.from_json(DDTB(steps=10, halve_every=5).to_json())
    with pytest.raises(InputError, match="dynamic=101"):
        DDTB(dynamic=101)
    with pytest.raises(InputError, match="percentile=100"):
        DDTB(percentile=100)
    calls: list[tuple[int, int, bool]] = []

    class Watched(DDTB):
        def train(self, model, lesson, *, loss, steps, first, **others):
            calls.append((first, steps, loss is not None))

    model = quantized()
    Watched().learn(model, Lesson(None, model.network, None, ()))
    assert calls == [(1000, 4000, True), (5000, 55_000, False)]  # epochs 2 to 5, and 6 to 60
    calls.clear()
    Watched().learn(quantized(dynamic=0), Lesson(None, model.network, None, ()))
    assert calls == [(1000, 59_000, False)]


def test_the_rate_goes_on_where_the_gates_begin(monkeypatch):
    rates: list[float] = []
    advance = Loop.advance

    def watched(self: Loop) -> None:
        advance(self)
        rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Loop, "advance", watched)
    quantized(steps=24, halve_every=5)
    assert rates == [1e-4 * 0.5 ** (step // 5) for step in range(24)]


def test_warm_up_brings_the_factors_to_one():
    model, teacher = quantized(dynamic=100), network("own")
    recipe = DDTB(bits=4, steps=150, batch=6, transfer=0, learning_rate=0.01)
    dynamic, (low, high) = list(gated(model).values()), pairs()[0]

    def squares() -> float:
        with _logits(dynamic) as seen, torch.no_grad():
            output = model(low)
            answer = Answer(output, high, None, [], [], model, 0)
            extra = sum(float(v.square().mean()) for v in seen.values())
            found = float(WarmUpLoss(0.0, None, seen)(answer)) - float(TransferLoss(0.0)(answer))
            assert len(seen) == 2 and found == pytest.approx(extra, rel=1e-3, abs=1e-4)
        return extra

    with torch.no_grad():
        for quantizer in dynamic:
            quantizer.gate.second.bias += torch.tensor([1.0, -1.0])
    before = squares()
    with _logits(dynamic) as seen:
        loss = WarmUpLoss(0.0, None, seen)
        lesson = Lesson(pairs(), teacher, None, ())
        recipe.train(model, lesson, teacher=teacher, loss=loss, rates={"selectors": 0.01})
    assert squares() < 0.1 * before and not any(q._forward_pre_hooks for q in dynamic)


def test_training_lowers_the_loss():
    model = quantized(bits=2, steps=120, batch=6, learning_rate=3e-3)
    curve = [v for outcome in model.training_log[1:] for v in outcome.curve]
    assert sum(curve[-5:]) < 0.93 * sum(curve[:5])


@pytest.mark.parametrize("step", [4, 105])
def test_resumed_training_is_the_same_bit_for_bit(tmp_path: Path, monkeypatch, step):
    """Killed in the warm-up, where nothing is saved yet, and with the gates acting, after 100 saved steps."""
    options = dict(steps=130, halve_every=50)
    whole = quantized(**options)
    advance, done = Loop.advance, []

    def dying(self: Loop) -> None:
        if self.step == step and (step < 10 or len(done) > 50):
            raise RuntimeError("killed")
        done.append(self.step)
        advance(self)

    monkeypatch.setattr(Loop, "advance", dying)
    with pytest.raises(RuntimeError, match="killed"):
        quantized(**options, resume=tmp_path)
    monkeypatch.setattr(Loop, "advance", lambda self: (done.append(self.step), advance(self))[1])
    done.clear()
    again = quantized(**options, resume=tmp_path)
    assert len(done) == (128 if step < 10 else 20)
    state = again.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in whole.state_dict().items())


def test_nothing_is_drawn_from_the_generator_of_the_process():
    net, recipe = network("own"), DDTB(bits=4, steps=24, batch=2, dynamic=50)
    before = torch.get_rng_state()
    sqlib.quantize_model(net, recipe, crops(), pairs=pairs())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_leaves_the_last_good_state():
    model = quantized()
    state = copy.deepcopy(model.state_dict())
    low, high = pairs()[0]
    for bad in ((low, torch.full_like(high, torch.inf)), (torch.full_like(low, torch.nan), high)):
        recipe = DDTB(bits=4, steps=24, batch=2, dynamic=50)
        with pytest.raises(InputError, match=r"the loss is (inf|nan).*last good state, of step 0"):
            recipe.learn(model, Lesson([bad], network("own"), None, ()))
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_bounds_never_cross_however_fast_they_are():
    start, model = quantized(), quantized(steps=24, bound_learning_rate=1e4, learning_rate=0.1)
    for key, q in model.activations.items():
        before = start.activations[key]
        assert float(q.upper - q.lower) >= 0.01 * float(before.upper - before.lower) * (1 - 1e-9)
    with torch.no_grad():
        assert bool(torch.isfinite(model(crops()[0])).all())


def test_constant_images():
    data = [torch.full((2, 3, 12, 12), 0.5)] * 2
    flat = [(data[0], torch.full((2, 3, 24, 24), 0.5))]
    recipe = DDTB(bits=4, steps=24, batch=2, dynamic=100)
    model = sqlib.quantize_model(network("own"), recipe, data, pairs=flat)
    with torch.no_grad():
        assert bool(torch.isfinite(model(data[0])).all())


def test_batches_of_one_image():
    model = quantized(data=[crops()[0][:1]], steps=24, batch=1)
    with torch.no_grad():
        assert bool(torch.isfinite(model(crops()[0])).all())


def test_pairs_are_asked_for():
    with pytest.raises(InputError, match=r"DDTB trains on pairs.*pairs="):
        sqlib.quantize_model(network("own"), DDTB(bits=4), crops())


class Attention(nn.Module):
    """Linear layers and products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.heads = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).chunk(3, -1)
        x = self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return self.heads(x, x, x, need_weights=False)[0]


def test_layers_without_channels_of_samples_have_no_gate():
    torch.manual_seed(0)
    data = [torch.randn(3, 5, 6), torch.randn(3, 5, 6)]
    model = sqlib.quantize_model(Attention(), DDTB(bits=4, steps=0, dynamic=100), data, skip=[])
    assert set(gated(model)) == {"project:input", "out:input"}
    for q in gated(model).values():
        q.on = True
    with torch.no_grad():
        assert model(data[0]).shape == (3, 5, 6)
