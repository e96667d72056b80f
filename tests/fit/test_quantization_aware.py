"""Quantization-aware training: what learns and what does not, pairs and teachers, runs that continue."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.fit import train_quantized
from sqlib.fit.loop.schedule import constant, step_decay
from sqlib.fit.quantization_aware.task import QuantizationAware, l1
from sqlib.fit.samples import Samples
from sqlib.quantizers import UniformQuantizer
from sqlib.recipes import DOBI, PAMS, MinMax
from sqlib.training import CropPool, Crops


class Net(nn.Module):
    """Convolutions, batch normalization and a pixel shuffle; the body is quantized."""

    default_skip = ("head", "tail")

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.tail = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        return self.tail(x + self.body(x))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def crops(n: int = 6, size: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pairs(n: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The target is the input, each pixel repeated: a function that the network can learn."""
    lr = crops(n)
    return [(lr, lr.repeat_interleave(2, -1).repeat_interleave(2, -2))]


def quantized(bits: int = 4, net: nn.Module | None = None) -> sqlib.engine.QuantizedModel:
    return sqlib.quantize_model(net or network(), MinMax(bits), [crops()])


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in tensors(model).items() if not torch.equal(v, before[k])}


NO_STEPS = {"halve_every": 1, "bound_learning_rate": 0.01}
ALL = {"weights": 3e-3, "biases": 3e-3, "norms": 3e-3, "bounds": 3e-3}


@pytest.mark.parametrize("train", [ALL, {"weights": 3e-3}, {"bounds": 1e-2}])
def test_the_loss_falls_on_pairs(train: dict[str, float]) -> None:
    model = quantized(2 if "bounds" in train else 4)
    done = train_quantized(model, pairs(), steps=60, train=train, batch=6, augment=False)
    assert done.finished and len(done.curve) == 60
    # Bounds alone cannot make the network another one.
    assert np.mean(done.curve[-5:]) < (0.7 if "weights" in train else 0.99) * np.mean(done.curve[:5])


@pytest.mark.parametrize("recipe", [MinMax(3), DOBI(3, steps=10)])
def test_the_teacher_is_the_network_in_full_precision(recipe: sqlib.recipes.Recipe) -> None:
    """Its outputs are those of before, however far the weights have moved meanwhile."""
    net, seen = network(), []

    def loss(answer: sqlib.fit.Answer) -> torch.Tensor:
        seen.append((answer.target, answer.taught))
        return l1(answer)

    model = sqlib.quantize_model(net, recipe, [crops()])
    done = train_quantized(
        model, [crops()], steps=30, batch=6, teacher="self", augment=False, loss=loss, train=ALL
    )
    assert np.mean(done.curve[-5:]) < np.mean(done.curve[:5])
    assert all(target is taught for target, taught in seen)
    with torch.no_grad():
        ours = net(crops())
    for target, _ in seen:  # in another order
        assert sorted(float(t.sum()) for t in target) == pytest.approx(sorted(float(t.sum()) for t in ours))


@pytest.mark.parametrize(
    ("train", "prefixes"),
    [
        ({"weights": 1e-2}, {"network.*.weight"}),
        ({"biases": 1e-2}, {"network.*.bias"}),
        ({"norms": 1e-2}, {"network.body.1."}),
        ({"weight_bounds": 1e-2}, {"weights."}),
        ({"activation_bounds": 1e-2}, {"activations."}),
        ({"bounds": 1e-2}, {"weights.", "activations."}),
    ],
)
def test_gradients_reach_what_should_learn_and_nothing_else(
    train: dict[str, float], prefixes: set[str]
) -> None:
    model = quantized()
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    before = tensors(model)
    done = train_quantized(model, pairs(), steps=5, train=train, batch=4, schedule=constant)
    statistics = {k for k in before if "running" in k or "num_batches" in k}
    changed = moved(model, before)
    assert statistics <= changed  # batch normalization is in training mode
    assert changed - statistics == set(done.parameters) and done.parameters
    norm = {"network.body.1.weight", "network.body.1.bias"}
    expected = {
        "network.*.weight": {k for k in before if k.startswith("network.") and k.endswith("weight")} - norm,
        "network.*.bias": {k for k in before if k.startswith("network.") and k.endswith("bias")} - norm,
        "network.body.1.": norm,
        "weights.": {k for k in before if k.startswith("weights.") and k.endswith(("lower", "upper"))},
        "activations.": {
            k for k in before if k.startswith("activations.") and k.endswith(("lower", "upper"))
        },
    }
    assert changed - statistics == set().union(*(expected[p] for p in prefixes))
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert not any(
        isinstance(q.lower, nn.Parameter) for q in model.modules() if isinstance(q, UniformQuantizer)
    )
    with torch.no_grad():
        assert torch.isfinite(copy.deepcopy(model)(crops())).all()


class Scaled(nn.Module):
    """A quantizer with a parameter of its own, as learned-bound methods bring it."""

    bits = 8

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.alpha


def test_parameters_of_other_quantizers_learn_with_the_bounds() -> None:
    model = quantized()
    key = next(iter(model.activations)).replace("/", ".")
    model.add_activation(key, Scaled())
    done = train_quantized(model, pairs(), steps=4, train={"activation_bounds": 1e-2}, batch=4)
    name = f"activations.{key.replace('.', '/')}.alpha"
    assert name in done.parameters and model.get_parameter(name).item() != 1.0
    assert model.get_parameter(name).requires_grad


def test_one_step_of_adam_by_hand() -> None:
    """From the gradient of the straight-through quantizer; a bound moves by its rate times its width."""
    model, (lr, hr) = quantized(), pairs()[0]
    reference = copy.deepcopy(model).train()
    key, q = next((k, q) for k, q in reference.activations.items())
    q.learnable()
    (reference(lr) - hr).abs().mean().backward()
    width, lower, gradient = (q.upper - q.lower).item(), q.lower.item(), q.lower.grad.item()
    weight = reference.network.body[0].weight
    expected = weight.detach() - 1e-3 * weight.grad / (weight.grad.abs() + 1e-8)
    train_quantized(model, pairs(), steps=1, train={"weights": 1e-3, "bounds": 1e-2}, batch=6, augment=False)
    assert float(model.activations[key].lower) == pytest.approx(
        lower - 1e-2 * width * np.sign(gradient), abs=1e-6 * width
    )
    torch.testing.assert_close(model.network.body[0].weight.detach(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("recipe", [MinMax(4), PAMS(4, schedule="custom", steps=0, **NO_STEPS)])
@pytest.mark.parametrize("relative", [False, True])
def test_a_factor_slows_what_it_names(recipe: sqlib.recipes.Recipe, relative: bool) -> None:
    """The first step of Adam is the rate in the direction of the gradient, so it shows the rate."""

    def steps(factors: dict[str, float] | None) -> dict[str, torch.Tensor]:
        model = sqlib.quantize_model(network(), recipe, [crops()], **given)
        before = tensors(model)
        options = {"steps": 1, "relative": relative, "factors": factors, "schedule": constant}
        train_quantized(model, pairs(), train={"bounds": 1e-3, "biases": 1e-3}, **options)
        return {k: v - before[k] for k, v in tensors(model).items()}

    given = {"pairs": pairs()} if recipe.paired else {}
    plain = steps(None)
    slow = steps({"activations.body/0*": 0.1, "activations.*": 0.5, "network.body.0.bias": 2.0})
    bounds = {k for k in plain if k.startswith("activations.") and plain[k].abs().max() > 1e-6}
    assert {k.split(":")[0] for k in bounds} == {"activations.body/0", "activations.body/3"}
    for name, factor in [
        *((k, 0.1 if k.startswith("activations.body/0") else 0.5) for k in sorted(bounds)),
        ("network.body.0.bias", 2.0),
        ("network.body.3.bias", 1.0),
    ]:
        torch.testing.assert_close(slow[name], factor * plain[name], rtol=1e-2, atol=1e-6)


def test_rates_that_are_too_fast_for_some_bounds_are_warned_of() -> None:
    model = quantized()
    widths = {k: float(q.upper - q.lower) for k, q in model.activations.items()}
    narrow = min(widths, key=lambda name: widths[name])
    rate = {"activation_bounds": 0.6 * widths[narrow]}
    with pytest.warns(
        UserWarning, match=rf"of \d quantizers .*{narrow.replace('/', '.')}, {widths[narrow]:.3g}\)"
    ):
        train_quantized(model, pairs(), steps=1, train=rate, relative=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow = {f"activations.{name}*": 0.1 for name in widths}
        train_quantized(quantized(), pairs(), steps=1, train=rate, relative=False, factors=slow)
        train_quantized(quantized(), pairs(), steps=1, train={"bounds": 0.01})


def test_pairs_are_turned_together() -> None:
    samples = Samples(pairs(), network(), paired=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        drawn = samples.draw(4, True, generator)
        enlarged = drawn.args[0].repeat_interleave(2, -1).repeat_interleave(2, -2)
        assert torch.equal(enlarged, drawn.target)


def test_crops_are_trained_on_in_the_networks_dtype() -> None:
    """They are float32; the network's first convolution, not quantized, takes no other dtype than its own."""
    rng = np.random.default_rng(0)
    photos = [(f"{i}", rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)) for i in range(2)]
    source = Crops(CropPool.from_images(photos, 4, seed=1), 8)
    net = models.create("srresnet-small", scale=4).eval().double()
    model = sqlib.quantize_model(net, PAMS(4, steps=2, batch=2), [crops().double()], pairs=source)
    assert model(crops().double()).dtype == torch.float64
    assert not torch.equal(model.network.tail.weight, net.tail.weight)


@pytest.mark.parametrize("kind", ["plain", "quantized"])
def test_a_teacher_runs_only_as_far_as_the_loss_looks(kind: str) -> None:
    """The training is the same bit for bit; the teacher's tail runs once, to count its features."""

    class Transfer:
        def __init__(self, needs_taught: bool) -> None:
            self.needs_taught, self.got = needs_taught, []

        def __call__(self, answer: sqlib.fit.Answer) -> torch.Tensor:
            self.got.append(answer.taught)
            return l1(answer) + (answer.features[-1] - answer.teacher_features[-1]).abs().mean()

    net = models.pretrained("edsr-small", scale=2)
    teacher = net if kind == "plain" else sqlib.quantize_model(net, MinMax(8), [crops()])
    curves, tails, losses = [], [], [Transfer(True), Transfer(False)]
    for loss in losses:
        model = sqlib.quantize_model(net, MinMax(4), [crops()])
        ran = []
        guide = copy.deepcopy(teacher)
        inner = guide if kind == "plain" else guide.network
        inner.tail.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        data = Samples(pairs(), net, paired=True)
        done = train_quantized(
            model, data, steps=4, batch=3, loss=loss, teacher=guide, features=("blocks.*",)
        )
        curves.append(done.curve)
        tails.append(len(ran))
    assert curves[0] == curves[1]
    assert tails == [4, 1]
    assert all(isinstance(x, torch.Tensor) for x in losses[0].got) and losses[1].got == [None] * 4


def test_crops_of_pictures_and_a_teacher_of_ones_own() -> None:
    """A pool of pictures as in full-precision training, features of both networks, bf16, an average."""
    rng = np.random.default_rng(0)
    photos = [(f"{i}", rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)) for i in range(2)]
    source = Crops(CropPool.from_images(photos, 2, seed=1), 8)
    net = models.pretrained("edsr-small", scale=2)
    model = sqlib.quantize_model(net, MinMax(4), [crops()])
    teacher = sqlib.quantize_model(net, MinMax(8), [crops()])
    seen = []

    def loss(answer: sqlib.fit.Answer) -> torch.Tensor:
        seen.append(answer)
        return l1(answer) + sum(
            (a - b).abs().mean() for a, b in zip(answer.features, answer.teacher_features)
        )

    options = dict(steps=4, batch=3, loss=loss, teacher=teacher, features=("blocks.*",), precision="bf16")
    raw = copy.deepcopy(model)
    train_quantized(model, source, average=0.9, **options)
    assert seen[0].output.shape == seen[0].target.shape == seen[0].taught.shape == (3, 3, 16, 16)
    assert len(seen[0].features) == len(seen[0].teacher_features) == len(net.blocks)
    assert seen[0].target is not seen[0].taught and not seen[0].taught.requires_grad
    train_quantized(raw, source, **options)
    first, last = net.head.weight, raw.network.head.weight
    assert not torch.equal(model.network.head.weight, last)
    between = (model.network.head.weight - first).norm() / (last - first).norm()
    assert 0 < between.item() < 1.2


def test_step_decay_reaches_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.Adam.step

    def noted(self: torch.optim.Adam) -> None:
        rates.append([group["lr"] for group in self.param_groups])
        step(self)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    halved = partial(step_decay, every=2)
    train_quantized(quantized(), pairs(), steps=5, train={"weights": 1e-3, "biases": 1e-2}, schedule=halved)
    assert rates == [[r * 0.001, r * 0.01] for r in (1, 1, 0.5, 0.5, 0.25)]


# --- continuing -------------------------------------------------------------------------------------------

CHILD = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_quantization_aware import ALL, pairs, quantized
from sqlib.fit import train_quantized
from sqlib.fit.quantization_aware.task import QuantizationAware
stepped = QuantizationAware.stepped
def said(self):
    stepped(self)
    print("step", flush=True)
QuantizationAware.stepped = said
options = dict(steps=40, train=ALL, batch=4, average=0.9, clip=1.0)
train_quantized(quantized(), pairs(), every=1, resume=sys.argv[2], **options)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_killed_at_any_moment_it_resumes_to_the_same_model(tmp_path) -> None:
    from pathlib import Path

    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path)]
    for kills, lines in enumerate((5, 9, 7)):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(lines)]
        time.sleep(0.002 * kills)  # somewhere else in the step each time
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert seen[-1] == "step\n"
    options = dict(steps=40, train=ALL, batch=4, average=0.9, clip=1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bit for bit needs the same number of threads
    try:
        whole, killed = quantized(), quantized()
        expected = train_quantized(whole, pairs(), **options)
        taken = []
        stepped = QuantizationAware.stepped
        QuantizationAware.stepped = lambda self: (stepped(self), taken.append(1))[0]  # type: ignore[method-assign]
        try:
            found = train_quantized(killed, pairs(), resume=tmp_path, every=1, **options)
        finally:
            QuantizationAware.stepped = stepped  # type: ignore[method-assign]
    finally:
        torch.set_num_threads(threads)
    assert len(taken) <= 40 - sum((5, 9, 7)) + 3 + 1  # a step at each kill, and the average put in place
    assert found == expected and not moved(killed, tensors(whole))
    assert [p.suffix for p in tmp_path.iterdir()] == [".pt"]


def test_out_of_time_it_stops_and_continues(tmp_path) -> None:
    whole, cut = quantized(), quantized()
    expected = train_quantized(whole, pairs(), steps=6, batch=4)
    first = train_quantized(cut, pairs(), steps=6, batch=4, minutes=0, resume=tmp_path)
    assert not first.finished and first.curve == ()
    again = quantized()
    assert train_quantized(again, pairs(), steps=6, batch=4, resume=tmp_path) == expected
    assert not moved(again, tensors(whole))
    train_quantized(quantized(), pairs(), steps=6, batch=4, seed=1, resume=tmp_path)
    train_quantized(quantized(), pairs(5), steps=6, batch=4, resume=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # other options and data are other runs


def twice(model: sqlib.engine.QuantizedModel, drawn: sqlib.fit.samples.Drawn) -> torch.Tensor:
    return (model(*drawn.args) + model(*drawn.args)) / 2


def brighter(answer: sqlib.fit.Answer) -> torch.Tensor:
    return (answer.output - answer.target - 0.1).abs().mean()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"schedule": partial(step_decay, every=667)},
            {"schedule": partial(step_decay, every=700)},
        ),
        ({"betas": (0.9, 0.999), "clip": 0.0}, {"betas": (0.9, 0.99), "clip": 90.0}),  # joined the same text
        ({}, {"run": twice}),
        ({}, {"loss": brighter}),
        ({"teacher": "self"}, {"teacher": "self", "features": ("body.0",)}),
        ({"teacher": "self"}, {"teacher": network(seed=1)}),
        ({}, {"factors": {"weights.*": 0.5}}),
        ({}, {"train": {"bounds": 0.02}}),
        *(
            ({}, {name: value})
            for name, value in {"batch": 3, "average": 0.9, "augment": False, "relative": False}.items()
        ),
    ],
)
def test_whatever_decides_the_result_is_another_run(tmp_path, one: dict, other: dict) -> None:
    options = {"steps": 2000, "batch": 4, "minutes": 0, "resume": tmp_path, "train": {"bounds": 0.01}}
    for given in (one, other, one):
        data = [crops()] if "teacher" in given else pairs()
        train_quantized(quantized(), data, **{**options, **given})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_network_with_another_setting_is_another_run(tmp_path) -> None:
    for slope in (0.1, 0.2, 0.1):
        net = network()
        net.body[2] = nn.LeakyReLU(slope)
        train_quantized(quantized(net=net), pairs(), steps=6, batch=4, minutes=0, resume=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_not_finite_stops_in_the_last_good_state(tmp_path, kept: bool) -> None:
    def loss(answer: sqlib.fit.Answer) -> torch.Tensor:
        return l1(answer) * (torch.nan if answer.step == 5 else 1.0)

    model, good = quantized(), quantized()
    options = dict(train=ALL, batch=4, every=2, schedule=constant)
    train_quantized(good, pairs(), steps=4, **options)
    with pytest.raises(
        InputError, match="stopped at step 5: the loss is nan; lower the learning rate"
    ) as caught:
        train_quantized(model, pairs(), steps=8, loss=loss, resume=tmp_path if kept else None, **options)
    assert "The last good state, of step 4, is in" in str(caught.value)
    assert not moved(model, tensors(good))


def test_infinite_gradients_and_bounds_stop() -> None:
    model = quantized()
    before = tensors(model)

    def steep(answer: sqlib.fit.Answer) -> torch.Tensor:
        loss = l1(answer)
        return (loss - loss.detach()).sqrt()

    with pytest.raises(InputError, match="step 0: a gradient is not finite"):
        train_quantized(model, pairs(), steps=3, loss=steep)
    with pytest.raises(InputError, match="a bound left the range"):
        train_quantized(model, pairs(), steps=3, train={"bounds": 1e300})
    assert all("running" in k or "num_batches" in k for k in moved(model, before))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([crops()], {}, "expected pairs"),
        (crops(), {}, "expected an iterable of pairs"),
        (
            pairs(),
            {"factors": {"*.nothing": 0.1}},
            r"factors=\{'\*.nothing': ...\} fits nothing that is trained",
        ),
        (pairs(), {"factors": 0.1}, "factors=0.1: expected a dictionary from patterns of names to factors"),
        (pairs(), {"factors": {"*": 0.0}}, r"factors\['\*'\]=0.0: expected a number above 0"),
        ([(crops(), crops(size=12))], {}, "a whole number of times"),
        ([(crops(), crops(5, size=16))], {}, "as many images"),
        ([(crops(), crops(size=24))], {}, "output and target are"),
        ([((255 * crops()).byte(), crops(size=16))], {}, r"\(6, 3, 8, 8\) uint8 and .*divide 8-bit images"),
        ([(crops(), (255 * crops(size=16)).byte())], {}, "uint8; expected floating-point"),
        ([], {}, "no samples"),
        ([], {"teacher": "self"}, "calibration is empty"),
        (pairs(), {"teacher": "bsrn"}, "expected a network, 'self' or None"),
        (pairs(), {"train": {}}, "one or more of weights"),
        (pairs(), {"train": {"scales": 1e-3}}, "one or more of weights"),
        (pairs(), {"train": {"bounds": 1e-3, "weight_bounds": 1e-2}}, "'bounds' are both"),
        (pairs(), {"train": {"weights": 0}}, "train\\['weights'\\]=0"),
        (pairs(), {"steps": -1}, "steps=-1"),
        (pairs(), {"batch": 0}, "batch=0"),
        (pairs(), {"average": 1}, "below 1"),
        (pairs(), {"clip": -1}, "clip=-1"),
        (pairs(), {"betas": (0.9,)}, "pair"),
        (pairs(), {"augment": 1}, "True or False"),
        (pairs(), {"precision": "fp8"}, "precision='fp8'"),
        (pairs(), {"every": 0}, "every=0"),
        (pairs(), {"features": ("blocks.*",)}, "matches no module"),
    ],
)
def test_bad_arguments(data: object, options: dict[str, object], message: str) -> None:
    model = quantized()
    before = tensors(model)
    with pytest.raises(InputError, match=message):
        train_quantized(model, data, **{"steps": 2, **options})
    assert not {k for k in moved(model, before) if "running" not in k and "num_batches" not in k}


def test_targets_in_other_units_than_inputs_are_noticed() -> None:
    """White is 1 for one and 255 for the other: the network would learn to be 255 times as bright."""
    low, high = pairs()[0]
    for given in ((low, 255 * high), (255 * low, high)):
        with pytest.warns(UserWarning, match="inputs of the pairs reach .* and targets .*same units"):
            train_quantized(quantized(), [given], steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_quantized(quantized(), [(0.1 * low, high), (0 * low, high)], steps=1)


def test_wrong_kinds_of_models() -> None:
    with pytest.raises(InputError, match=r"made by sqlib\.quantize_model"):
        train_quantized(network(), pairs(), steps=1)
    nothing = sqlib.quantize_model(network(), MinMax((4, 32)), [crops()])
    with pytest.raises(InputError, match="nothing to train in activation_bounds"):
        train_quantized(nothing, pairs(), steps=1, train={"activation_bounds": 1e-3})
