"""2DQuant through the front door: both stages, schedules, JSON, resuming."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sqlib
from sqlib import models, recipes
from sqlib.errors import InputError
from sqlib.fit.distillation import Options
from sqlib.models.carn import CARN
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.quantizers import UniformQuantizer
from sqlib.recipes import DFSQ, DOBI, MSE, TwoDQuant

QUICK = dict(
    bits=3,
    steps=10,
    schedule="custom",
    iterations=4,
    batch=2,
    learning_rate=0.01,
    final_learning_rate=0.0,
    betas=(0.9, 0.999),
    relative=True,
)


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


def bounds(model):
    return torch.cat(
        [
            torch.stack([q.lower, q.upper]).reshape(-1)
            for q in model.modules()
            if isinstance(q, UniformQuantizer)
        ]
    )


@pytest.mark.parametrize("name", ["swinir", "edsr", "carn"])
def test_starts_from_dobi_and_trains_its_bounds(name):
    net = tiny(name)
    start = sqlib.quantize_model(net, DOBI(bits=3, steps=10), [crops()])
    model = sqlib.quantize_model(net, TwoDQuant(**QUICK), [crops()])
    (outcome,) = model.distillation
    assert outcome.trained == len(start.weights) + len(start.activations) and len(outcome.curve) == 4
    assert outcome.features and outcome.parameters == ()
    assert not torch.equal(bounds(model), bounds(start))
    # No step: exactly the first stage.
    still = sqlib.quantize_model(net, TwoDQuant(**{**QUICK, "iterations": 0}), [crops()])
    assert torch.equal(bounds(still), bounds(start)) and still.distillation[0].curve == ()
    with torch.no_grad():
        out = model(crops())
    assert torch.isfinite(out).all() and out.shape == (3, 3, 16, 16)
    for p, original in zip(model.network.parameters(), net.parameters(), strict=True):
        assert torch.equal(p, original)


def test_wide_bounds_are_pulled_in():
    """From min-max at 2 bits there is much to gain on the calibration data."""
    options = {**QUICK, "bits": 2, "iterations": 40, "learning_rate": 0.03, "bounds_from": "minmax"}
    (outcome,) = sqlib.quantize_model(tiny("edsr"), TwoDQuant(**options), [crops()]).distillation
    assert outcome.after < 0.9 * outcome.before


def test_every_start():
    net = tiny("edsr")
    assert isinstance(TwoDQuant(bounds_from="mse", steps=7).start(), MSE)
    kinds = {}
    for name in ("dobi", "mse", "minmax", "percentile", "density"):
        recipe = TwoDQuant(**{**QUICK, "iterations": 1}, bounds_from=name)
        assert recipe.start().name == name and recipe.start().weight_per == "tensor"
        kinds[name] = sqlib.quantize_model(net, recipe, [crops()])
        first = sqlib.quantize_model(net, recipe.start(), [crops()])
        assert [q.method for q in kinds[name].activations.values()] == [
            q.method for q in first.activations.values()
        ]
    assert len({tuple(bounds(m).tolist()) for m in kinds.values()}) == 5
    paper = TwoDQuant(variant="paper", one_sided=["*.fc1"])
    assert paper.start() == DOBI(bits=8, variant="paper", one_sided=("*.fc1",))


def test_schedules_are_the_published_ones():
    paper, release, laptop = (TwoDQuant(schedule=s) for s in ("paper", "release", "laptop"))
    assert TwoDQuant() == paper and paper.options() == Options()
    assert (paper.iterations, paper.batch, paper.learning_rate, paper.betas) == (3000, 32, 0.01, (0.9, 0.999))
    assert (release.iterations, release.batch, release.final_learning_rate) == (4000, 16, 0.01)
    assert release.betas == (0.9, 0.99) and paper.final_learning_rate == 0
    assert (laptop.iterations, laptop.batch) == (300, 4)
    assert TwoDQuant(iterations=3000).schedule == "paper"
    assert TwoDQuant(iterations=3001).schedule == "custom"
    assert TwoDQuant(schedule="laptop", loss="release").schedule == "laptop"
    with pytest.raises(InputError, match="needs iterations="):
        TwoDQuant(schedule="custom")


@pytest.mark.parametrize(
    "recipe",
    [
        TwoDQuant(),
        TwoDQuant(bits=(4, 32), schedule="release", loss="release"),
        TwoDQuant(**QUICK, bounds_from="mse", train=("bounds", "biases"), features=("a.*",), feature_axis=-1),
        TwoDQuant(schedule="laptop", features=(), augment=False, seed=3, one_sided=()),
    ],
    ids=repr,
)
def test_round_trips(recipe):
    again = recipes.from_json(recipe.to_json())
    assert again == recipe and hash(again) == hash(recipe) and again.schedule == recipe.schedule
    assert recipe.to_dict()["version"] == 1


def test_one_side_in_full_precision():
    for bits, homes in (((3, 32), "weights"), ((32, 3), "activations")):
        model = sqlib.quantize_model(tiny("edsr"), TwoDQuant(**{**QUICK, "bits": bits}), [crops()])
        assert model.distillation[0].trained == len(getattr(model, homes)) == 4
        assert len(model.weights) + len(model.activations) == 4


def test_more_than_bounds():
    recipe = TwoDQuant(**QUICK, train=("bounds", "biases", "norms"))
    net = tiny("swinir")
    model = sqlib.quantize_model(net, recipe, [crops()])
    (outcome,) = model.distillation
    assert {"groups.0.layers.0.norm1.weight", "groups.0.layers.0.mlp.fc1.bias"} <= set(outcome.parameters)
    assert not torch.equal(model.network.head.bias, net.head.bias)


def test_release_scaling_is_an_option_of_its_own():
    """Smaller by the number of elements; the same bounds would follow if Adam had no epsilon."""
    outcomes = [
        sqlib.quantize_model(tiny("swinir"), TwoDQuant(**QUICK, loss=loss, feature_weight=0), [crops()])
        for loss in ("paper", "release")
    ]
    values = [m.distillation[0].before for m in outcomes]
    assert values[1] * (3 * 16 * 16) == pytest.approx(values[0], rel=1e-5)
    assert not torch.equal(*[bounds(m) for m in outcomes])


def test_resume_folder_is_an_argument(tmp_path):
    expected = bounds(sqlib.quantize_model(tiny("edsr"), TwoDQuant(**QUICK), [crops()]))
    for _ in range(2):
        model = sqlib.quantize_model(tiny("edsr"), TwoDQuant(**QUICK), [crops()], resume=tmp_path / "new")
        assert torch.equal(bounds(model), expected)
        assert len(list((tmp_path / "new").iterdir())) == 1


def test_any_network_of_ones_own():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x):
            return self.c(torch.relu(self.b(self.a(x))))

    torch.manual_seed(0)
    for features, found in ((None, ()), (("b",), ("b",))):
        model = sqlib.quantize_model(Mine().eval(), TwoDQuant(**QUICK, features=features), [crops()])
        assert model.distillation[0].features == found
    with pytest.raises(InputError, match="matches no module"):
        sqlib.quantize_model(Mine(), TwoDQuant(**QUICK, features=("blocks.*",)), [crops()])


def test_half_precision_network():
    net = tiny("swinir").to(torch.bfloat16)
    model = sqlib.quantize_model(net, TwoDQuant(**QUICK), [crops()])
    assert model.network.head.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.isfinite(model(crops().bfloat16())).all()


def test_swinir_light_has_768_bounds_to_train():
    recipe = TwoDQuant(**{**QUICK, "iterations": 0, "bounds_from": "minmax"})
    model = sqlib.quantize_model(models.create("swinir-light", scale=4), recipe, [crops(1)])
    (outcome,) = model.distillation
    assert outcome.trained == 384 and bounds(model).numel() == 768
    assert outcome.features == tuple(f"groups.{i}.layers" for i in range(4))


@pytest.mark.parametrize("data", [[], [torch.rand(0, 3, 8, 8)], [torch.full((1, 3, 8, 8), torch.nan)]])
def test_bad_calibration(data):
    with pytest.raises(InputError):
        sqlib.quantize_model(tiny("edsr"), TwoDQuant(**QUICK), data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bounds_from="pams"), "bounds_from"),
        (dict(variant="draft"), "variant"),
        (dict(one_sided="*.fc2"), "one_sided"),
        (dict(steps=0), "steps"),
        (dict(weight_per="row"), "weight_per"),
        (dict(schedule="published"), "schedule"),
        (dict(loss="attention"), "loss"),
        (dict(batch=0), "batch"),
        (dict(learning_rate="high"), "learning_rate"),
        (dict(betas=[0.9, 1]), "betas"),
        (dict(train=["weights"]), "train"),
        (dict(features="blocks"), "features"),
        (dict(bits=1), "bits"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TwoDQuant(**options)


def test_found_by_name():
    assert recipes.create("twodquant", bits=4) == TwoDQuant(bits=4) != DFSQ(bits=4)
