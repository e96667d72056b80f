"""Distillation: losses as printed, gradients by hand, bounds that never cross, runs that continue."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sqlib
from sqlib import models
from sqlib.codebook import Bounds
from sqlib.engine.model import QuantizedModel
from sqlib.errors import DataError, InputError
from sqlib.fit import distill
from sqlib.fit.distillation import Options, train
from sqlib.fit.distillation.loss import distillation_loss
from sqlib.fit.distillation.train import Distillation
from sqlib.fit.features import find_taps
from sqlib.fit.modes import prepared, training
from sqlib.fit.samples import Drawn, Samples, turn
from sqlib.fit.variables import NARROWEST, Variables
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.quantizers import UniformQuantizer
from sqlib.recipes import DFSQ, DOBI, Density, MinMax

SHORT = dict(iterations=6, batch=2, learning_rate=0.01, relative=True, features=())


class Net(nn.Module):
    """Everything there is to train: convolutions, a norm, biases."""

    default_skip = ("head", "tail")

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 1))
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x):
        x = self.head(x)
        return self.tail(x + self.norm(self.body(x)))


def crops(n=4, size=8, seed=1):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def network(seed=0):
    torch.manual_seed(seed)
    return Net().eval()


def quantized(recipe=None, net=None, data=None):
    recipe = MinMax(bits=3) if recipe is None else recipe
    return sqlib.quantize_model(
        network() if net is None else net, recipe, [crops() if data is None else data]
    )


def stretched(model):
    """Bounds thrice as wide as they should be, so that there is something to gain."""
    for q in (*model.weights.values(), *model.activations.values()):
        width = q.upper - q.lower
        q.lower, q.upper = q.lower - width, q.upper + width
    return model


def bounds(model):
    return {
        name: t.detach().clone()
        for name, t in model.state_dict().items()
        if name.endswith((".lower", ".upper"))
    }


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- losses -----------------------------------------------------------------------------------------------


def tensors(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def test_paper_loss_as_printed():
    """Sample by sample, in NumPy (2DQuant's output and feature terms)."""
    o, oq, f, fq, g, gq = tensors(*[(3, 3, 8, 8)] * 2, *[(3, 16, 5)] * 2, *[(3, 4, 4, 5)] * 2)
    total = 0.0
    for b in range(3):
        total += np.abs((o - oq)[b].numpy()).sum() / (3 * 8 * 8)
        for a, aq in ((f, fq), (g, gq)):
            u, v = a[b].numpy(), aq[b].numpy()
            d = u / np.sqrt((u**2).sum()) - v / np.sqrt((v**2).sum())
            total += 7.0 * np.sqrt((d**2).sum()) / u.size
    found = distillation_loss("paper", 7.0, o, oq, [f, g], [fq, gq])
    assert float(found) == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize("near", [1.0, 1e-7])
def test_release_loss_is_its_broadcast(near):
    """Pitfalls 22 and 23, literally: norms (B, 1, 1, 1) on features (B, HW, C), and sizes divided twice."""
    o, oq, f, d = tensors(*[(4, 3, 8, 8)] * 2, *[(4, 16, 5)] * 2)
    fq = (f + near * d).requires_grad_()
    norms = [torch.linalg.vector_norm(v, dim=(1, 2)).view(-1, 1, 1, 1) for v in (f, fq)]
    broadcast = f / norms[0] - fq / norms[1]
    assert broadcast.shape == (4, 4, 16, 5)
    expected = nn.functional.l1_loss(o, oq) / (3 * 8 * 8) + 5 * broadcast.square().mean() / (16 * 5)
    (wanted,) = torch.autograd.grad(expected, fq)
    found = distillation_loss("release", 5.0, o, oq, [f], [fq])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, fq)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-20)


def test_attention_loss_and_its_detached_form():
    o, oq, f, fq = tensors(*[(2, 3, 4, 4)] * 2, *[(2, 5, 4, 4)] * 2)
    total = 0.0
    for b in range(2):
        maps = [(v[b].numpy() ** 2).mean(0).ravel() for v in (f, fq)]
        u, v = (m / np.sqrt((m**2).sum()) for m in maps)
        total += ((u - v) ** 2).mean() / 2
    fq.requires_grad_()
    attached, detached = (
        distillation_loss(kind, 5.0, o, oq, [f, f], [fq, fq]) for kind in ("attention", "attention-detached")
    )
    values = attached.item(), detached.item()
    assert values[0] == values[1] == pytest.approx(float((o - oq).abs().mean()) + 5 * total)
    assert attached.requires_grad and not detached.requires_grad
    last = distillation_loss("attention", 5.0, o, oq, [f.movedim(1, -1)], [fq.movedim(1, -1)], axis=-1)
    torch.testing.assert_close(last, attached)


@pytest.mark.parametrize("kind", ["paper", "release", "attention"])
def test_equal_and_empty_features_have_finite_gradients(kind):
    for f in (tensors((2, 4, 3, 3))[0], torch.zeros(2, 4, 3, 3, dtype=torch.float64)):
        student = f.clone().requires_grad_()
        o = torch.ones(2, 3, 4, 4, dtype=torch.float64)
        loss = distillation_loss(kind, 5.0, o, o, [f], [student])
        loss.backward()
        assert loss == 0 and torch.equal(student.grad, torch.zeros_like(f))


# --- gradients --------------------------------------------------------------------------------------------


class OneLayer(nn.Module):
    default_skip = ()

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(*weight.shape[::-1], bias=False)
        self.layer.weight.data = weight

    def forward(self, x):
        return self.layer(x)


def test_gradient_of_the_whole_loss_by_the_three_way_rule():
    """One layer, float64: dL/dbounds by hand from 2DQuant's Eq. 2, for activation and weight bounds."""
    weight, x = tensors((4, 6), (5, 6))
    model = sqlib.quantize_model(OneLayer(weight), MinMax(bits=3, weight_per="tensor"), [x])
    pairs = {"weight": (-0.7, 0.9), "activation": (-0.8, 0.5)}
    key = model.sites["layer"].weight_key
    model.add_weight(key, UniformQuantizer(Bounds(*pairs["weight"], 3, np.nan, "x", None, False)))
    model.add_activation(
        "layer:input", UniformQuantizer(Bounds(*pairs["activation"], 3, np.nan, "x", None, False))
    )
    options = Options(features=("layer",), feature_weight=40.0, batch=8)
    with prepared(model):
        variables = Variables(model, options.train, relative=False, scale_gradients=False)
        run = Distillation(
            model, Samples([x], model.network), variables, find_taps(model.network, ("layer",), None), options
        )
        with training(variables):
            run.compare(Drawn((x,), {})).backward()
            gradient = variables.gradient().numpy()

    def rule(v, lower, upper):
        clipped = np.clip(v, lower, upper)
        code = np.rint(7 * (clipped - lower) / (upper - lower))
        fraction = code / 7 - (clipped - lower) / (upper - lower)
        return (upper - lower) / 7 * code + lower, (v < lower) - fraction, (v > upper) + fraction

    w, v = weight.numpy(), x.numpy()
    wq, w_low, w_up = rule(w, *pairs["weight"])
    vq, v_low, v_up = rule(v, *pairs["activation"])
    assert (w_low != 0).any() and (v < -0.8).any() and (v > 0.5).any()
    out, found = v @ w.T, vq @ wq.T
    g = np.sign(found - out) / out.size
    for b in range(len(v)):  # the output is the tapped feature as well
        n, m = np.linalg.norm(out[b]), np.linalg.norm(found[b])
        unit = found[b] / m
        e = unit - out[b] / n
        e /= np.linalg.norm(e)
        g[b] += 40.0 / (len(v) * out[b].size) * (e - unit * (unit @ e)) / m
    to_w, to_v = g.T @ vq, g @ wq
    expected = [(to_w * w_low).sum(), (to_w * w_up).sum(), (to_v * v_low).sum(), (to_v * v_up).sum()]
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_lsq_factors_only_scale():
    """1/sqrt(n (2^(b-1) - 1)), n the values that went through the quantizer."""
    model = quantized()
    found = {}
    for scale in (False, True):
        options = Options(**SHORT, scale_gradients=scale)
        with prepared(model):
            variables = Variables(model, ("activation_bounds",), relative=False, scale_gradients=scale)
            samples = Samples([crops()], model.network)
            run = Distillation(model, samples, variables, find_taps(model.network, (), None), options)
            with training(variables):
                run.compare(Drawn((crops(),), {})).backward()
                found[scale] = variables.gradient()
    torch.testing.assert_close(found[True], found[False] / math.sqrt(4 * 4 * 8 * 8 * 3))


# --- variables --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 4) | st.floats(0, 1e-300)), min_size=1, max_size=5),
    st.lists(st.floats(-3, 3), min_size=10, max_size=10),
    st.booleans(),
)
def test_bounds_never_cross(starts, steps, relative):
    """Wherever a step lands, a pair keeps 1 % of its width around that middle; others land there exactly."""
    low, width = np.array(starts).T
    if not ((low + width) > low).any():
        return
    model = QuantizedModel(nn.Identity(), MinMax())
    channels = Bounds(low, low + width, 3, np.full(len(low), np.nan), "x", 0, False)
    model.add_activation("a", UniformQuantizer(channels))
    variables = Variables(model, ("bounds",), relative=relative, scale_gradients=False)
    step = torch.tensor(steps[: len(low)] + steps[5 : 5 + len(low)], dtype=torch.float64)
    with torch.no_grad():
        variables.vector.copy_(step)
    target = variables.start + variables.unit * step
    variables.write()
    q = model.activations["a"]
    first, last = variables.start.split(len(low))
    real = last - first
    lower, upper = target.split(len(low))
    gap = upper - lower
    for c in range(len(low)):
        if real[c] == 0:
            assert q.lower[c] == first[c] and q.upper[c] == last[c]
        elif gap[c] >= NARROWEST * real[c]:
            assert q.lower[c] == lower[c] and q.upper[c] == upper[c]
        else:
            size = float(real[c] + abs(first[c]) + abs(lower[c]) + abs(upper[c]))
            assert q.upper[c] - q.lower[c] == pytest.approx(
                float(NARROWEST * real[c]),
                abs=1e-13 * size + 1e-322,  # the spacing of the smallest numbers
            )
            assert q.upper[c] + q.lower[c] == pytest.approx(float(lower[c] + upper[c]), abs=1e-13 * size)
    assert bool((q.upper >= q.lower).all())
    variables.reset()
    assert torch.equal(q.lower, first) and torch.equal(q.upper, last)


def test_wild_rates_leave_a_working_model():
    model = quantized()
    outcome = distill(model, [crops()], **{**SHORT, "learning_rate": 3.0})
    assert all(math.isfinite(v) for v in (outcome.before, outcome.after, *outcome.curve))
    for q in model.modules():
        if isinstance(q, UniformQuantizer):
            assert bool((q.upper > q.lower).all())


@pytest.mark.parametrize(
    ("groups", "quantizers", "parameters"),
    [
        (("bounds",), 4, []),
        (("weight_bounds",), 2, []),
        (("activation_bounds",), 2, []),
        (("biases",), 0, ["head.bias", "tail.bias", "body.0.bias", "body.2.bias"]),
        (("norms",), 0, ["norm.weight", "norm.bias"]),
        (("norms", "activation_bounds"), 2, ["norm.weight", "norm.bias"]),
    ],
)
def test_only_what_was_asked_for_is_trained(groups, quantizers, parameters):
    net, data = network(), crops()
    model = stretched(quantized(net=net))
    before = copy.deepcopy(model.state_dict())
    outcome = distill(model, [data], **SHORT, train=groups)
    assert outcome.trained == quantizers and set(outcome.parameters) == set(parameters)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    homes = {"weight_bounds": {"weights"}, "activation_bounds": {"activations"}}
    homes["bounds"] = homes["weight_bounds"] | homes["activation_bounds"]
    bounds = {name for name in before if not name.endswith("_extra_state")}  # nothing trains the settings
    expected = {name for g in groups for name in bounds if name.split(".")[0] in homes.get(g, ())}
    assert moved == expected | {f"network.{name}" for name in parameters}
    # The teacher is the network as it was, also when its biases were trained.
    with torch.no_grad():
        assert outcome.after == pytest.approx(float((model(data) - net(data)).abs().mean()), rel=1e-5)


def test_the_rest_of_the_model_is_left_as_it_was():
    model = quantized().train()
    model.network.head.bias.requires_grad_(False)
    names, flags = list(model.state_dict()), {n: p.requires_grad for n, p in model.named_parameters()}
    distill(model, [crops()], **SHORT)
    assert list(model.state_dict()) == names and model.training and model.network.body.training
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(
        isinstance(q.lower, nn.Parameter) for q in (*model.weights.values(), *model.activations.values())
    )
    # hooks are gone: a pass records nothing and deep copies work
    copy.deepcopy(model)(crops())


def test_bounds_that_were_parameters_stay_parameters():
    model = quantized()
    q = next(iter(model.activations.values())).learnable()
    before = q.lower.detach().clone()
    distill(model, [crops()], **SHORT)
    assert isinstance(q.lower, nn.Parameter) and not torch.equal(q.lower, before)


# --- determinism and resuming -----------------------------------------------------------------------------


def test_same_seed_same_bounds():
    first, second, other = quantized(), quantized(), quantized()
    outcomes = [distill(m, [crops()], **SHORT, seed=s) for m, s in ((first, 0), (second, 0), (other, 1))]
    assert outcomes[0] == outcomes[1] and equal(bounds(first), bounds(second))
    assert not equal(bounds(first), bounds(other))


def test_continues_bit_for_bit(tmp_path, monkeypatch):
    options = {**SHORT, "iterations": 9, "features": ("body",)}
    whole = quantized()
    expected = distill(whole, [crops()], **options)
    start = bounds(quantized())

    class Killed(Exception):
        pass

    loss = Distillation.loss

    def stop(self, step):
        if step == 7:
            raise Killed
        return loss(self, step)

    model = quantized()
    monkeypatch.setattr(Distillation, "loss", stop)
    with pytest.raises(Killed):
        distill(model, [crops()], resume=tmp_path, every=4, **options)
    assert equal(bounds(model), start)
    steps = []
    monkeypatch.setattr(Distillation, "loss", lambda self, i: steps.append(i) or loss(self, i))
    found = distill(model, [crops()], resume=tmp_path, every=4, **options)
    assert steps == [4, 5, 6, 7, 8]  # from the last save on
    assert found == expected and equal(bounds(model), bounds(whole))
    # A finished run returns at once; other data, options or bounds are another run.
    again = quantized()
    assert (
        distill(again, [crops()], resume=tmp_path, **options) == expected
        and steps[-1] == 8
        and len(steps) == 5
    )
    assert equal(bounds(again), bounds(whole))
    assert [p.suffix for p in tmp_path.iterdir()] == [".pt"]
    distill(quantized(), [crops(seed=5)], resume=tmp_path, **options)
    distill(quantized(), [crops()], resume=tmp_path, **{**options, "feature_weight": 4.0})
    distill(quantized(DOBI(bits=3)), [crops()], resume=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 4


def test_damaged_state_is_named(tmp_path):
    distill(quantized(), [crops()], resume=tmp_path, **SHORT)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read"):
        distill(quantized(), [crops()], resume=tmp_path, **SHORT)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("no folder")
    start = quantized()
    model = quantized()
    for wrong in (3, b"x"):
        with pytest.raises(InputError, match="expected a folder for unfinished training"):
            distill(model, [crops()], resume=wrong, **SHORT)
    with pytest.raises(DataError, match="cannot be written"):
        distill(model, [crops()], resume=tmp_path / "file", **SHORT)
    assert equal(bounds(model), bounds(start))


# --- networks and data ------------------------------------------------------------------------------------


def swin():
    torch.manual_seed(0)
    return SwinIR("tiny", 2, features=12, depths=(1, 2), heads=2).eval()


def edsr():
    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=2, features=6).eval()


def carn():
    torch.manual_seed(0)
    return models.create("carn-m", scale=2)


@pytest.mark.parametrize(
    ("make", "taps"),
    [
        (swin, ("groups.0.layers", "groups.1.layers")),
        (edsr, ("blocks.0", "blocks.1")),
        (carn, tuple(f"body.stages.{i}.stages.0" for i in range(3))),
    ],
)
def test_one_path_for_transformers_and_cnns(make, taps):
    data = crops(2)
    model = stretched(quantized(DOBI(bits=3, steps=10), make(), data))
    outcome = distill(model, [data], iterations=8, batch=2, learning_rate=0.02, relative=True, augment=False)
    assert outcome.features == taps and outcome.after < outcome.before


def test_features_of_shared_modules_count_per_call():
    model = quantized(DOBI(bits=3, steps=10), carn(), crops(1))
    taps = find_taps(model.network, None, None)
    with torch.no_grad(), taps.recording(model.network) as seen:
        model.network(crops(1))
        assert len(seen) == 9 and taps.axis == 1


def test_known_networks_have_taps_that_exist():
    for name in models.names():
        net = models.create(name, scale=2)
        assert find_taps(net, None, None).names, name


class Channels(nn.Module):
    """A block that hands its maps on with channels second, or last as Swin transformers do."""

    default_skip = ()

    def __init__(self, last):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.block, self.tail = (
            nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 8), (8, 8), (8, 3))
        )
        self.body = (
            nn.Sequential(self.block, nn.ReLU(), Permute()) if last else nn.Sequential(self.block, nn.ReLU())
        )
        self.last = last

    def forward(self, x):
        x = self.body(self.head(x))
        return self.tail(x.permute(0, 3, 1, 2) if self.last else x)


class Permute(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [6, 8])
def test_attention_over_channels_in_any_layout(size):
    """At heights of less than the 8 channels and as many; nobody says where the channels are."""
    options = dict(loss="attention", features=("body",), iterations=3, batch=2, feature_weight=5.0)
    found = []
    for last in (False, True):
        q = sqlib.quantize_model(Channels(last), MinMax(3), [crops(size=size)])
        found.append(distill(q, [crops(size=size)], **options))
    assert found[0].before == pytest.approx(found[1].before, rel=1e-6)
    assert found[0].curve == pytest.approx(found[1].curve, rel=1e-5)
    wrong = sqlib.quantize_model(Channels(True), MinMax(3), [crops(size=size)])
    assert distill(wrong, [crops(size=size)], **options, feature_axis=1).before != found[1].before


def test_unknown_network_compares_outputs_and_says_so():
    options = {k: v for k, v in SHORT.items() if k != "features"}
    assert distill(quantized(), [crops()], **options).features == ()
    assert distill(quantized(), [crops()], **options, features=("body", "no*")).features == ("body", "norm")


def test_images_of_several_sizes_and_shapes():
    data = [crops(3), crops(2, size=10), crops(1)[..., :6], crops(0)]
    samples = Samples(data, network())
    assert [len(lr) for (lr,) in samples.pools] == [3, 2, 1]
    generator = torch.Generator().manual_seed(0)
    shapes = {tuple(samples.draw(2, True, generator)[0][0].shape) for _ in range(40)}
    assert shapes == {(2, 3, 8, 8), (2, 3, 10, 10), (1, 3, 8, 6)}
    distill(quantized(), data, **SHORT)


def test_augmentation_is_the_eight_symmetries():
    x = crops(1)[0]
    assert len({turn(x, k).contiguous().numpy().tobytes() for k in range(8)}) == 8
    assert torch.equal(turn(x, 0), x) and torch.equal(turn(x, 3), x.rot90(2, (-2, -1)))
    assert {turn(x, k).contiguous().numpy().tobytes() for k in range(8)} == {
        y.rot90(k, (-2, -1)).contiguous().numpy().tobytes() for y in (x, x.flip(-1)) for k in range(4)
    }


class Two(nn.Module):
    default_skip = ()

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, shift):
        return self.layer(x + shift)


def test_tuples_and_dictionaries_are_taken_whole():
    torch.manual_seed(0)
    x = torch.rand(3, 5, 4)
    for data in ([(x, x[:1])], [{"x": x, "shift": x}]):
        model = stretched(sqlib.quantize_model(Two(), MinMax(bits=3), data))
        outcome = distill(model, data, **{**SHORT, "iterations": 20})
        assert outcome.after < outcome.before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_in_float32(kind):
    net = network().to(kind)
    model = stretched(quantized(net=net))
    start = bounds(model)
    outcome = distill(model, [crops()], **{**SHORT, "iterations": 20})
    assert outcome.after < outcome.before and not equal(bounds(model), start)
    for p, original in zip(model.network.parameters(), net.parameters(), strict=True):
        assert p.dtype == kind and torch.equal(p, original)
    with torch.no_grad():
        out = model(crops().to(kind))
    assert out.dtype == kind and torch.isfinite(out).all()
    assert all(t.dtype == torch.float64 for t in bounds(model).values())


def test_inference_mode_gives_the_same():
    with torch.inference_mode():
        model = quantized()
        inside = distill(model, [crops()], **SHORT)
    other = quantized()
    assert inside == distill(other, [crops()], **SHORT) and equal(bounds(model), bounds(other))


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"), [([], "calibration is empty"), ([torch.rand(0, 3, 8, 8)], "no values"), (3, "int")]
)
def test_empty_data(data, message):
    with pytest.raises(InputError, match=message):
        distill(quantized(), data, **SHORT)


def test_nothing_to_train():
    weights_only, points = quantized(MinMax(bits=(4, 32))), quantized(DFSQ(bits=4))
    for model, group in ((weights_only, "activation_bounds"), (points, "activation_bounds")):
        with pytest.raises(InputError, match="nothing to train in activation_bounds"):
            distill(model, [crops()], **SHORT, train=(group,))
    assert distill(weights_only, [crops()], **SHORT).trained == 2
    flat = sqlib.quantize_model(
        network(), Density(bits=(32, 4)), [torch.zeros(1, 3, 8, 8)], skip=["body", "tail"]
    )
    with pytest.raises(InputError, match="extent"):
        distill(flat, [crops()], **SHORT)


def test_patterns_that_match_nothing():
    with pytest.raises(InputError, match=r"'blocks\.\*' matches no module of Net, which has head, tail"):
        distill(quantized(), [crops()], **{**SHORT, "features": ("body", "blocks.*")})


def test_not_finite_names_the_iteration_and_leaves_the_model(monkeypatch):
    start = bounds(quantized())
    model = quantized()
    with pytest.raises(InputError, match="the loss over the samples is nan"):
        distill(model, [torch.full((1, 3, 8, 8), torch.nan)], **SHORT)
    with pytest.raises(InputError, match="step 0: a bound left"):
        distill(model, [crops()], **{**SHORT, "learning_rate": 1e300})
    real = train.distillation_loss
    for value, message in ((torch.inf, "step 3: the loss is inf"), (0.0, "step 3: a gradient")):
        calls = []

        def broken(*args, calls=calls, value=value, **kwargs):
            calls.append(1)
            loss = real(*args, **kwargs)
            if len(calls) != 3 + 3:  # two batches are judged before the first iteration
                return loss
            return loss + torch.inf if value else (loss - loss.detach()).sqrt()  # infinite slope at 0

        monkeypatch.setattr(train, "distillation_loss", broken)
        with pytest.raises(InputError, match=message):
            distill(model, [crops()], **SHORT)
        assert equal(bounds(model), start)


def test_wrong_kinds_of_models_and_outputs():
    with pytest.raises(InputError, match="made by sqlib"):
        distill(network(), [crops()])

    class Pair(Net):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(InputError, match="expected one tensor"):
        distill(quantized(net=Pair().eval()), [crops()], **SHORT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(iteration=3), "no option iteration"),
        (dict(train=()), "one or more of bounds"),
        (dict(train=("bound",)), "one or more of bounds"),
        (dict(train="bounds"), "list of names"),
        (dict(loss="l1"), "loss='l1'"),
        (dict(iterations=-1), "iterations=-1"),
        (dict(batch=0), "batch=0"),
        (dict(seed=1.5), "seed=1.5"),
        (dict(learning_rate=0), "learning_rate=0"),
        (dict(final_learning_rate=math.inf), "final_learning_rate"),
        (dict(feature_weight=-1), "feature_weight=-1"),
        (dict(features="body"), "list of names"),
        (dict(feature_axis="last"), "feature_axis"),
        (dict(betas=(0.9,)), "pair"),
        (dict(betas=(0.9, 1.0)), "below 1"),
        (dict(relative=1), "True or False"),
        (dict(every=0), "every=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        distill(quantized(), [crops()], **options)
