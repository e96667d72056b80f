"""BRECQ and the machinery of block reconstruction: what is found, what is learned, what stays as it was."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sqlib
from sqlib import models, recipes
from sqlib.errors import InputError
from sqlib.fit.reconstruction.blocks import find_units
from sqlib.quantizers import UniformQuantizer
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.recipes import MinMax
from sqlib.recipes.brecq import BRECQ

SHORT = dict(
    schedule="custom",
    iterations=80,
    activation_iterations=20,
    batch=8,
    learning_rate=0.1,
    step_learning_rate=0.01,
)


ZERO = {"iterations", "activation_iterations"}
QUICK = {**SHORT, "iterations": 8, "activation_iterations": 4}


def conv(i, o, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


class Block(nn.Module):
    """A residual block whose branch is a module of its own, as many networks write it."""

    def __init__(self, n):
        super().__init__()
        self.branch = nn.Sequential(conv(n, n), nn.ReLU(), conv(n, n))

    def forward(self, x):
        return x + self.branch(x)


class Small(nn.Module):
    """Head, two uses of one block (`shared`) or two blocks, tail; head and tail stay in full precision."""

    default_skip = ("head", "tail")

    def __init__(self, n=6, shared=False):
        super().__init__()
        self.head, self.tail = conv(3, n), conv(n, 3)
        self.blocks = nn.ModuleList([Block(n)] if shared else [Block(n), Block(n)])
        self.close = conv(n, n, 1)

    def forward(self, x):
        x = self.head(x)
        for i in range(2):
            x = self.blocks[i % len(self.blocks)](x)
        return self.tail(F.relu(self.close(x)))


class Plain(nn.Module):
    """No blocks: layers and a functional call, in a forward of two inputs."""

    default_skip = ()

    def __init__(self):
        super().__init__()
        self.one, self.two = conv(3, 5), conv(5, 3)
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3) / 5)

    def forward(self, x, shift):
        x = self.two(F.relu(self.one(x + shift)))
        return F.conv2d(x, self.kernel, padding=1)


def network(cls=Small, seed=0, **options):
    torch.manual_seed(seed)
    return cls(**options).eval()


def crops(n=8, seed=1, size=10):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def output_error(net, quantized, x):
    with torch.no_grad():
        return float((quantized(x) - net(x)).square().mean())


def block_error(net, quantized, x):
    """Squared error of what leaves the last block."""
    seen = []
    hooks = [
        n.blocks[-1].register_forward_hook(lambda m, a, out: seen.append(out))
        for n in (net, quantized.network)
    ]
    with torch.no_grad():
        net(x), quantized(x)
    for hook in hooks:
        hook.remove()
    return float((seen[0] - seen[1]).square().mean())


def weights(quantized):
    """Quantized weights by key, as inference uses them."""
    found = {}
    for site in quantized.sites.values():
        quantizer = quantized.weight_quantizer(site.weight_key) if site.weight_key else None
        if quantizer is not None:
            found[site.weight_key] = quantizer(quantized.network.get_parameter(site.weight)).detach()
    return found


def assert_equal_models(a, b, x):
    with torch.no_grad():
        assert torch.equal(a(x), b(x))
    for (name, left), (_, right) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(left, right), name


@pytest.fixture(scope="module")
def trained():
    net = network()
    start = sqlib.quantize_model(
        net, BRECQ(3, **{**SHORT, "iterations": 0, "activation_iterations": 0}), [crops()]
    )
    return net, start, sqlib.quantize_model(net, BRECQ(3, **SHORT), [crops()])


@pytest.fixture(scope="module")
def quick():
    return sqlib.quantize_model(network(), BRECQ(3, **QUICK), [crops()])


def test_held_out_error_falls(trained):
    net, _, quantized = trained
    start, learned = (
        sqlib.quantize_model(net, BRECQ((3, 32), **{**SHORT, "iterations": n}), [crops()]) for n in (0, 80)
    )
    held_out = crops(seed=99)
    assert block_error(net, learned, held_out) < 0.7 * block_error(net, start, held_out)
    assert output_error(net, learned, held_out) < output_error(net, start, held_out)
    assert all(o.after < o.before for o in learned.reconstruction)
    rounding, steps = quantized.reconstruction[:3], quantized.reconstruction[3:]
    assert [o.unit for o in rounding] == [o.unit for o in steps] == ["blocks.0", "blocks.1", "close"]
    # the first sweep sees no quantized activations: it is the same whatever bits they have
    assert [o.after for o in rounding] == [o.after for o in learned.reconstruction]


def test_every_weight_lies_on_the_grid_of_its_bits(trained):
    _, start, quantized = trained
    moved = 0
    for key, weight in weights(quantized).items():
        quantizer = quantized.weight_quantizer(key)
        assert isinstance(quantizer, RoundedWeight)
        lower, scale, _ = quantizer.grid(weight)
        codes = torch.round((weight - lower) / scale)
        assert codes.min() >= 0 and codes.max() <= 7
        assert torch.equal(codes * scale + lower, weight)
        before = quantized.network.get_parameter(key.split("|")[0]).detach()
        inside = (before > lower) & (before < lower + 7 * scale)
        assert bool(((weight - before).abs() < scale * 1.001)[inside].all())  # up or down, never further
        moved += int((weights(start)[key] != weight).sum())
    assert moved > 0


def test_steps_move_and_zero_stays_a_level(trained):
    _, start, quantized = trained
    changed = 0
    for key, quantizer in quantized.activations.items():
        before = start.activations[key]
        assert type(quantizer) is UniformQuantizer
        changed += float(quantizer.upper) != float(before.upper)
        assert float(quantizer(torch.zeros(1))) == 0.0 or float(before(torch.zeros(1))) != 0.0
    assert changed == len(quantized.activations)


def test_the_callers_network_and_random_state_stay(quick):
    net = network()
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    net.train()
    with torch.no_grad():
        quantized = sqlib.quantize_model(net, BRECQ(3, **QUICK), [crops()])
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(m.training for m in net.modules()) and not any(m.training for m in quantized.modules())
    assert all(p.requires_grad and p.grad is None for p in quantized.network.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
        assert torch.equal(value, quantized.network.state_dict()[name])
    assert_equal_models(quantized.eval(), quick.eval(), crops(seed=5))  # gradients were off here


def test_inference_mode_gives_the_same(quick):
    with torch.inference_mode():
        quantized = sqlib.quantize_model(network(), BRECQ(3, **QUICK), [crops()])
        out = quantized(crops(seed=5))
    with torch.no_grad():
        assert torch.equal(out, quick(crops(seed=5)))


def test_seed_decides():
    one, same, other = (
        sqlib.quantize_model(network(), BRECQ(3, **{**QUICK, "batch": 4}, seed=s), [crops()])
        for s in (4, 4, 5)
    )
    assert_equal_models(one, same, crops(seed=5))
    with torch.no_grad():
        assert not torch.equal(one(crops(seed=5)), other(crops(seed=5)))


def test_no_iterations_is_nearest_rounding(trained):
    _, start, _ = trained
    for key, weight in weights(start).items():
        quantizer = start.weight_quantizer(key)
        assert type(quantizer) is UniformQuantizer
        full = start.network.get_parameter(key.split("|")[0])
        assert torch.equal(weight, quantizer.fake_torch(full))
    assert all(o.before == o.after for o in start.reconstruction)


@pytest.mark.parametrize("bits", [(3, 32), (32, 3)])
def test_one_side_only(bits):
    net = network()
    quantized = sqlib.quantize_model(net, BRECQ(bits, **QUICK), [crops()])
    assert bool(quantized.weight_keys) and len(quantized.activations) == (5 if bits[1] == 3 else 0)
    kinds = {type(quantized.weight_quantizer(k)) for k in quantized.weight_keys}
    assert kinds == ({RoundedWeight} if bits[0] == 3 else {type(None)})
    assert len({o.unit for o in quantized.reconstruction}) == len(quantized.reconstruction) == 3


def test_report_and_fast_path(trained):
    _, _, quantized = trained
    report = quantized.report().set_index("site")
    assert report.rule["blocks.0.branch.2"] == "quantized; reconstructed in 'blocks.0'"
    assert report.weight_bits["close"] == 3 and report.weight_per["close"] == "channel"
    assert 0 < report.weight_sqnr_db["close"] < 40
    again = copy.deepcopy(quantized)
    assert_equal_models(again, quantized, crops(seed=3))


# --- what is a unit ---------------------------------------------------------------------------------------


def units_of(net, data):
    found, rest = find_units(sqlib.quantize_model(net, MinMax(4), data), data)
    return {u.path: [s.name for s in u.sites] for u in found}, [s.name for s in rest]


def test_blocks_with_their_skip_and_single_layers():
    found, rest = units_of(network(), [crops(2)])
    assert found == {
        "blocks.0": ["blocks.0.branch.0", "blocks.0.branch.2"],
        "blocks.1": ["blocks.1.branch.0", "blocks.1.branch.2"],
        "close": ["close"],
    }
    assert rest == []


def test_units_of_our_networks():
    found, rest = units_of(models.create("carn-m", scale=2), [crops(2, size=8)])
    assert len(found) == 15 and rest == []
    assert len(found["body.stages.0.stages.0"]) == 9  # three convolutions in three uses
    assert found["body.stages.0.fusions.1"] == ["body.stages.0.fusions.1.conv"]
    found, rest = units_of(models.create("edsr-small", scale=2), [crops(2, size=8)])
    assert list(found) == [f"blocks.{i}" for i in range(8)] and rest == []


def test_a_module_that_is_no_function_of_its_input_is_no_unit():
    class Remembering(Block):
        def forward(self, x):
            self.last = x.mean() if not hasattr(self, "last") else self.last + 1
            return x * self.last + self.branch(x)

    net = network()
    net.blocks[0] = Remembering(6).eval()
    found, rest = units_of(net, [crops(2)])
    assert list(found) == ["blocks.0.branch", "blocks.1", "close"] and rest == []


def test_a_shared_block_is_one_unit_of_both_its_uses():
    net = network(shared=True)
    data = [crops()]
    quantized = sqlib.quantize_model(net, BRECQ(3, **SHORT), data)
    weight_stage = next(o for o in quantized.reconstruction if o.unit == "blocks.0")
    assert set(weight_stage.sites) == {
        "blocks.0.branch.0",
        "blocks.0.branch.2",
        "blocks.0.branch.0#1",
        "blocks.0.branch.2#1",
    }
    assert weight_stage.after < weight_stage.before
    first, second = (
        quantized.activations[k] for k in ("blocks/0/branch/0:input", "blocks/0/branch/0#1:input")
    )
    assert float(first.upper) != float(second.upper)  # two uses keep two quantizers


class Loop(nn.Module):
    """A layer of a block that is called once more outside of it."""

    default_skip = ("head", "tail")

    def __init__(self, n=6):
        super().__init__()
        self.head, self.block, self.tail = conv(3, n), Block(n), conv(n, 3)

    def forward(self, x):
        return self.tail(self.block.branch[0](self.block(self.head(x))))


def shared_layers(kind):
    """Networks that use a layer or a weight more than once, and what the later uses are settled in."""
    torch.manual_seed(0)
    c, d = conv(6, 6), conv(6, 6)
    if kind == "twice in a block":
        net = nn.Sequential(conv(3, 6), nn.Sequential(c, nn.ReLU(), c), conv(6, 3))
        return net, {"1.0": "1", "1.0#1": "1"}
    if kind == "first use in full precision":  # the default rule skips the first convolution
        c = conv(3, 3)
        return nn.Sequential(c, nn.ReLU(), c, nn.ReLU(), conv(3, 3)), {"0#1": "0"}
    if kind == "two blocks":
        net = nn.Sequential(conv(3, 6), Block(6), Block(6), conv(6, 3))
        net[2].branch[2] = net[1].branch[2]
        return net, {"1.branch.2": "1", "1.branch.2#1": "2"}
    if kind == "parameter of two layers":
        d.weight = c.weight
        net = nn.Sequential(conv(3, 6), Block(6), Block(6), conv(6, 3))
        net[1].branch[0], net[2].branch[0] = c, d
        return net, {"1.branch.0": "1", "2.branch.0": "2"}
    return Loop(), {"block.branch.0": "block", "block.branch.0#1": "block.branch.0"}


@pytest.mark.parametrize("bits", [3, (3, 32), (32, 3)])
@pytest.mark.parametrize("name", ["brecq", "qdrop"])
@pytest.mark.parametrize(
    "kind",
    ["twice in a block", "first use in full precision", "two blocks", "parameter of two layers", "outside"],
)
def test_layers_and_weights_that_are_shared(kind, name, bits):
    net, units = shared_layers(kind)
    options = {k: v for k, v in SHORT.items() if name == "brecq" or k != "activation_iterations"}
    recipe = recipes.create(name, bits=bits, **options)
    quantized = sqlib.quantize_model(net.eval(), recipe, [crops()])
    rules = quantized.report().set_index("site").rule
    assert {site: rules[site] for site in units} == {
        site: f"quantized; reconstructed in {unit!r}" for site, unit in units.items()
    }
    assert all(o.after <= 1.05 * o.before for o in quantized.reconstruction if o.unit in units.values())
    start = sqlib.quantize_model(net, replace(recipe, **dict.fromkeys(set(options) & ZERO, 0)), [crops()])
    assert output_error(net, quantized, crops(seed=9)) < 1.5 * output_error(net, start, crops(seed=9))
    if bits != (32, 3):  # one rounding of one weight, whoever uses it
        assert all(type(q) is RoundedWeight for q in quantized.weights.values())


class Layout(nn.Module):
    """A block whose maps have their channels second, or last as in a Swin transformer."""

    default_skip = ("head", "tail")

    def __init__(self, last, n=6):
        super().__init__()
        self.head, self.tail = conv(3, n), conv(n, 3)
        self.block = Permuted(n) if last else Block(n)
        self.last = last

    def forward(self, x):
        x = self.head(x)
        x = self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.block(x)
        return self.tail(x)


class Permuted(Block):
    def forward(self, x):
        return x + self.branch(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [4, 6, 10])
def test_the_loss_weighs_channels_in_any_layout(size):
    """Sums over 6 channels, at heights of less, as much and more: the layout changes nothing."""
    found = []
    for last in (False, True):
        net = network(Layout, last=last)
        found.append(sqlib.quantize_model(net, BRECQ(3, **SHORT), [crops(size=size)]))
    with torch.no_grad():
        x = crops(seed=4)
        torch.testing.assert_close(found[1](x), found[0](x))
    for a, b in zip(*(weights(q).values() for q in found), strict=True):
        assert torch.equal(a, b)


def test_network_without_blocks_and_with_two_inputs():
    net = network(Plain)
    data = [(crops(), torch.ones(())), (crops(4, seed=3, size=8), torch.zeros(()))]  # two shapes
    quantized = sqlib.quantize_model(net, BRECQ(3, **QUICK), data)
    report = quantized.report().set_index("site")
    assert {o.unit for o in quantized.reconstruction} == {"one", "two"}
    assert "not reconstructed" in report.rule["conv2d"]
    assert type(quantized.weight_quantizer("kernel|0")) is UniformQuantizer
    x = crops(seed=8)
    assert torch.isfinite(quantized(x, torch.ones(()))).all()


def test_functional_network_is_one_unit():
    class Functional(nn.Module):
        default_skip = ()

        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
            self.back = nn.Parameter(torch.randn(3, 8, 3, 3) / 5)

        def forward(self, x):
            return F.conv2d(F.conv2d(x, self.kernel, padding=1).relu(), self.back, padding=1)

    net = network(Functional)
    quantized = sqlib.quantize_model(net, BRECQ(3, **SHORT), [crops()])
    assert quantized.report().rule[0] == "quantized; reconstructed in 'the whole network'"
    start, end = quantized.reconstruction[0].before, quantized.reconstruction[0].after
    assert end < start


def test_constant_calibration_and_dead_channels():
    net = network()
    with torch.no_grad():
        net.blocks[0].branch[0].weight[2] = 0
        net.blocks[0].branch[0].bias.fill_(-100)  # the second convolution sees only zeros
    quantized = sqlib.quantize_model(net, BRECQ(4, **QUICK), [torch.full((4, 3, 8, 8), 0.5)])
    with torch.no_grad():
        assert torch.isfinite(quantized(crops())).all()
    assert torch.equal(weights(quantized)["blocks.0.branch.0.weight|0"][2], torch.zeros(6, 3, 3))


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [BRECQ(), BRECQ(4, schedule="laptop"), BRECQ((4, 8), **SHORT, beta=(10, 3), seed=7)], ids=repr
)
def test_round_trips(recipe):
    assert recipes.from_dict(recipe.to_dict()) == recipe
    assert recipes.from_json(recipe.to_json()) == recipe
    assert hash(recipes.from_json(recipe.to_json())) == hash(recipe)
    assert json.loads(recipe.to_json())["iterations"] == recipe.iterations


def test_schedules_say_what_they_are():
    published = BRECQ(4)
    assert (published.schedule, published.iterations, published.activation_iterations) == (
        "published",
        20_000,
        5_000,
    )
    assert (published.batch, published.learning_rate, published.step_learning_rate) == (32, 1e-3, 4e-4)
    laptop = BRECQ(4, schedule="laptop")
    assert laptop.iterations == 500 and laptop.to_dict()["schedule"] == "laptop"
    assert BRECQ(4, iterations=500).schedule == "custom"  # shortened: no longer the published one
    assert BRECQ(4, schedule="laptop", batch=16).to_dict()["schedule"] == "custom"
    assert BRECQ(4, iterations=20_000) == published
    assert BRECQ(4, seed=3).schedule == "published"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "fast"}, "schedule='fast'"),
        ({"schedule": "custom"}, "needs iterations"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 1.5}, "iterations"),
        ({"activation_iterations": -1}, "activation_iterations"),
        ({"batch": 0}, "batch"),
        ({"batch": True}, "batch"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"step_learning_rate": -1}, "step_learning_rate"),
        ({"warmup": 1.5}, "warmup"),
        ({"regularization": -0.1}, "regularization"),
        ({"regularization": "much"}, "regularization"),
        ({"beta": 20}, "beta"),
        ({"beta": (20, 0)}, "beta"),
        ({"loss_norm": 0}, "loss_norm"),
        ({"activation_norm": float("inf")}, "activation_norm"),
        ({"scale_norm": -1}, "scale_norm"),
        ({"scale_steps": 101}, "scale_steps"),
        ({"relative": "yes"}, "relative"),
        ({"weight_per": "row"}, "weight_per"),
        ({"seed": -1}, "seed"),
        ({"bits": 1}, "bits"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        BRECQ(**options)
