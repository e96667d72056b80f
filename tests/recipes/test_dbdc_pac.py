"""DBDC+Pac: two stages, one after the other, and what the release leaves out."""

from __future__ import annotations

import pytest
import torch

import sqlib
from sqlib import recipes
from sqlib.errors import InputError
from sqlib.models.carn import CARN
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.recipes import DBDCPaC, Density

QUICK = dict(bits=3, iterations=3, weight_iterations=3)
FAST = dict(learning_rate=0.02, weight_learning_rate=0.02, relative=True)


def crops(n=3, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def tiny(name):
    torch.manual_seed(0)
    made = {
        "swinir": lambda: SwinIR("tiny", 2, features=12, depths=(1, 1), heads=2),
        "edsr": lambda: EDSR("tiny", 2, blocks=2, features=6),
        "carn": lambda: CARN("tiny", 2, mobile=True, groups=4, scales=(2,)),
    }
    return made[name]().eval()


def bounds(home):
    return {k: torch.stack([q.lower, q.upper]) for k, q in home.items()}


def differ(a, b):
    return {k for k in a if not torch.equal(a[k], b[k])}


@pytest.mark.parametrize("name", ["swinir", "edsr", "carn"])
def test_activations_then_weights(name):
    net = tiny(name)
    for p in net.parameters():  # an untrained transformer attends to everything alike: no gradient to q, k
        p.data *= 5 if name == "swinir" else 1
    start = sqlib.quantize_model(net, Density(bits=3), [crops()])
    model = sqlib.quantize_model(net, DBDCPaC(**QUICK), [crops()])
    first, second = model.distillation
    assert first.trained == len(model.activations) and second.trained == len(model.weights)
    assert first.features == second.features != () and len(first.curve) == len(second.curve) == 3
    assert second.before == pytest.approx(first.after)
    assert differ(bounds(start.weights), bounds(model.weights)) == set(start.weights)
    assert differ(bounds(start.activations), bounds(model.activations)) == set(start.activations)
    # At 5e-6 a step, weights hardly move: at most the rate times the iterations, as Adam goes.
    for key, pair in bounds(model.weights).items():
        assert (pair - bounds(start.weights)[key]).abs().max() < 3 * 5e-6 * 1.1
    assert all(q.axis is not None for q in model.weights.values())
    with torch.no_grad():
        assert torch.isfinite(model(crops())).all()


def test_stages_touch_their_own_bounds_only():
    net = tiny("edsr")
    start = sqlib.quantize_model(net, Density(bits=3), [crops()])
    for iterations, moved, still in (((3, 0), "activations", "weights"), ((0, 3), "weights", "activations")):
        recipe = DBDCPaC(bits=3, iterations=iterations[0], weight_iterations=iterations[1])
        model = sqlib.quantize_model(net, recipe, [crops()])
        assert differ(bounds(getattr(start, moved)), bounds(getattr(model, moved)))
        assert not differ(bounds(getattr(start, still)), bounds(getattr(model, still)))


def test_release_features_give_a_value_but_no_gradient():
    """Pitfall 36: detached features train exactly as no features do."""
    made = {}
    for label, options in {
        "paper": dict(variant="paper"),
        "release": dict(variant="release"),
        "none": dict(feature_weight=0),
    }.items():
        made[label] = sqlib.quantize_model(tiny("edsr"), DBDCPaC(**QUICK, **FAST, **options), [crops()])
    assert not differ(bounds(made["release"].activations), bounds(made["none"].activations))
    assert differ(bounds(made["paper"].activations), bounds(made["none"].activations))
    before = {label: m.distillation[0].before for label, m in made.items()}
    assert before["paper"] == before["release"] > before["none"]


def test_lowers_the_loss_where_bounds_are_bad():
    """Half of the values clipped at the start."""
    recipe = DBDCPaC(
        bits=4, clip=0.5, iterations=40, weight_iterations=5, batch=3, learning_rate=0.1, relative=True
    )
    first, second = sqlib.quantize_model(tiny("edsr"), recipe, [crops()]).distillation
    assert first.after < 0.96 * first.before and second.before == pytest.approx(first.after)


def test_a_side_in_full_precision_has_no_stage():
    for bits, home in (((3, 32), "weights"), ((32, 3), "activations")):
        model = sqlib.quantize_model(tiny("edsr"), DBDCPaC(**{**QUICK, "bits": bits}), [crops()])
        (outcome,) = model.distillation
        assert outcome.trained == len(getattr(model, home)) == 4


def test_schedule_and_round_trip():
    recipe = DBDCPaC(bits=4)
    assert recipe.schedule == "release" and recipe.batch == 2
    assert recipe.iterations == recipe.weight_iterations == 250
    stages = [recipe.stage(group) for group in ("activation_bounds", "weight_bounds")]
    assert [(s.learning_rate, s.final_learning_rate) for s in stages] == [(5e-3, 2e-3), (5e-6, 2e-6)]
    assert {s.loss for s in stages} == {"attention"} and all(s.scale_gradients for s in stages)
    assert DBDCPaC(variant="release").stage("weight_bounds").loss == "attention-detached"
    assert DBDCPaC(iterations=3).schedule == "custom"
    for made in (recipe, DBDCPaC(**QUICK, **FAST, features=["a.*"], clip=1e-3), DBDCPaC(variant="release")):
        again = recipes.from_json(made.to_json())
        assert again == made and hash(again) == hash(made)
    assert recipes.create("dbdc-pac", bits=4) == recipe


def test_continues_after_the_first_stage(tmp_path, monkeypatch):
    from sqlib.fit.distillation.train import Distillation

    expected = sqlib.quantize_model(tiny("edsr"), DBDCPaC(**QUICK, **FAST), [crops()])
    loss, steps = Distillation.loss, []

    class Killed(Exception):
        pass

    def kill(self, step):
        steps.append((self.options.train, step))
        if len(steps) == 5:
            raise Killed
        return loss(self, step)

    monkeypatch.setattr(Distillation, "loss", kill)
    with pytest.raises(Killed):
        sqlib.quantize_model(tiny("edsr"), DBDCPaC(**QUICK, **FAST), [crops()], resume=tmp_path)
    model = sqlib.quantize_model(tiny("edsr"), DBDCPaC(**QUICK, **FAST), [crops()], resume=tmp_path)
    assert steps[5:] == [(("weight_bounds",), i) for i in range(3)]  # the first stage is not repeated
    assert model.distillation == expected.distillation
    for home in ("weights", "activations"):
        assert not differ(bounds(getattr(model, home)), bounds(getattr(expected, home)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(variant="code"), "variant"),
        (dict(schedule="paper"), "schedule"),
        (dict(weight_iterations=-1), "weight_iterations"),
        (dict(weight_learning_rate=0), "weight_learning_rate"),
        (dict(final_weight_learning_rate=-1), "final_weight_learning_rate"),
        (dict(iterations=1.5), "iterations"),
        (dict(clip=1), "clip"),
        (dict(feature_weight=None), "feature_weight"),
        (dict(features="blocks"), "features"),
        (dict(schedule="custom"), "needs iterations="),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        DBDCPaC(**options)


def test_empty_calibration():
    with pytest.raises(InputError, match="empty"):
        sqlib.quantize_model(tiny("edsr"), DBDCPaC(**QUICK), [])
