"""A quantized network is copied, pickled, saved, averaged and loaded like any module, with every recipe."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy_banks import Banked, Learned, SixBits

import sqlib
from sqlib import recipes
from sqlib.models.edsr import EDSR
from sqlib.quantizers import UniformQuantizer
from sqlib.recipes import (
    BRECQ,
    CABM,
    DDTB,
    DFSQ,
    DOBI,
    MSE,
    PAMS,
    CADyQ,
    CompensatedDFSQ,
    DBDCPaC,
    Density,
    MinMax,
    Percentile,
    QDrop,
    RefQSR,
    TwoDQuant,
)

EVERY = {
    "minmax": MinMax(4),
    "minmax per tensor": MinMax(4, weight_per="tensor"),
    "percentile": Percentile(4),
    "dobi": DOBI(4),
    "mse": MSE(4),
    "density": Density(4),
    "dfsq": DFSQ(4, selector="exact", post_relu="auto"),
    "dfsq static": DFSQ(4, selector="exact", normalize="static"),
    "dfsq-compensated": CompensatedDFSQ(4),
    "brecq": BRECQ(4, schedule="laptop", iterations=3, activation_iterations=2),
    "qdrop": QDrop(4, schedule="laptop", iterations=3),
    "twodquant": TwoDQuant(4, schedule="laptop", iterations=2),
    "dbdc-pac": DBDCPaC(4, iterations=2, weight_iterations=2),
    "pams": PAMS(4, steps=0),
    "ddtb": DDTB(4, steps=0, dynamic=100),
    "cadyq": CADyQ(8, steps=0),
    "cabm": CABM(8, steps=0, limit=100),
    "refqsr": RefQSR(base=PAMS(4, steps=0), low=3, steps=0, refiners=1),
}


BANKS = {
    "bank": Banked(),
    "bank, learned": Banked(selector=Learned),
    "bank of weights": Banked(weights=SixBits),
}


def data(seed, factor=1.0):
    return [factor * torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))]


PROBE = data(9)[0]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=2, features=6).eval()


@pytest.fixture(scope="module")
def pairs(network):
    """For each recipe two models whose state differs."""
    made = {}

    def pair(name):
        if name not in made:
            other = copy.deepcopy(network)
            with torch.no_grad():
                for p in other.parameters():
                    p.mul_(1.1)
            made[name] = (
                sqlib.quantize_model(network, {**EVERY, **BANKS}[name], data(0)),
                sqlib.quantize_model(other, {**EVERY, **BANKS}[name], data(1, 0.6)),
            )
        return tuple(copy.deepcopy(m) for m in made[name])

    return pair


@pytest.fixture(params=[*EVERY, *BANKS])
def pair(request, pairs):
    return pairs(request.param)


def run(model, x=PROBE):
    with torch.no_grad():
        return model(x)


def reloaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_every_recipe_is_here():
    assert {r.name for r in EVERY.values()} == set(recipes.names())


def test_copies_after_loading_other_state(pair):
    """Run with A, load B, copy: all of them are B."""
    a, b = pair
    first, want = run(a), run(b)
    assert not torch.equal(first, want)
    file = io.BytesIO()
    torch.save(b.state_dict(), file)
    file.seek(0)
    a.load_state_dict(torch.load(file, weights_only=True))
    for model in (a, copy.deepcopy(a), pickle.loads(pickle.dumps(a)), reloaded(a)):
        assert torch.equal(run(model), want)
        assert torch.equal(run(copy.deepcopy(model)), want)
        with torch.inference_mode():
            assert torch.equal(model(PROBE), want)
    assert torch.equal(a(PROBE).detach(), want)  # with gradients


@pytest.mark.parametrize("decay", [None, 0.9])
def test_averages_of_a_model_that_stands_still(pair, decay):
    model = pair[0]
    want = run(model)
    options = {} if decay is None else {"multi_avg_fn": get_ema_multi_avg_fn(decay)}
    average = AveragedModel(model, use_buffers=True, **options)
    mean = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(12):
        average.update_parameters(model)
        mean = {k: 0.9 * mean[k] + 0.1 * v for k, v in model.state_dict().items()}
    spread = float(want.std())
    loaded = copy.deepcopy(model)
    loaded.load_state_dict(mean)
    for q in (average, loaded):  # last bits move a value in a thousand to the next level
        assert float((run(q) - want).square().mean().sqrt()) < 0.02 * spread
    for key, q in model.weights.items():
        if hasattr(q, "stored"):
            assert torch.equal(average.module.weights[key].stored, q.stored)


def test_averages_follow_the_bounds_that_train(pairs):
    model = pairs("minmax")[0]
    bounds = [q.learnable().upper for q in model.activations.values() if isinstance(q, UniformQuantizer)]
    for optimizer in (torch.optim.Adam(bounds, lr=0.05, fused=True), torch.optim.AdamW(bounds, lr=0.05)):
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        for _ in range(3):
            optimizer.zero_grad()
            (model(PROBE) - 1).square().mean().backward()
            optimizer.step()
            average.update_parameters(model)
            assert torch.equal(run(model), run(rebuilt(model)))
            assert torch.equal(run(average), run(rebuilt(average.module)))
        assert not torch.equal(run(average), run(model))


def rebuilt(model):
    """The same numbers in quantizers and a model that have never run."""
    twin = copy.deepcopy(model)
    twin._cache.clear()
    for home in (twin.weights, twin.activations):
        for key, q in home.items():
            for bits, part in getattr(q, "quantizers", nn.ModuleDict()).items():
                q.quantizers[bits] = UniformQuantizer(part.bounds())
            if type(q) is UniformQuantizer:
                home[key] = UniformQuantizer(q.bounds())
    return twin


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.data.mul_(0.5),
        lambda t: t.detach().numpy().__imul__(0.5),
        lambda t: setattr(t, "data", t.data * 0.5),
        lambda t: t.detach().mul_(0.5),
    ],
    ids=["data", "numpy", "new data", "detached"],
)
@pytest.mark.parametrize("name", ["minmax", "dfsq", "brecq", "bank of weights"])
def test_writes_that_torch_does_not_count(pairs, write, name):
    """No refresh is needed, neither for weights nor for what quantizes them or the activations."""
    model = pairs(name)[0]
    last = run(model)
    weight = model.network.blocks[0].conv1.weight
    quantizer = model.weights["blocks/0/conv1/weight|0"]
    activation = model.activations["blocks/0/conv1:input"]
    if name == "bank of weights":
        quantizer, activation = quantizer.at(6), activation.at(8)
    parts = [weight, quantizer.upper, activation.points if name == "dfsq" else activation.upper]
    if name == "brecq":
        parts.pop(0)  # its weights are codes and bounds
    for t in parts:
        write(t)
        now = run(model)
        assert torch.equal(now, run(rebuilt(model))) and not torch.equal(now, last)
        last = now


def test_bits_that_differ_are_refused_by_name(network):
    four, eight = (sqlib.quantize_model(network, MinMax(bits), data(0)) for bits in (4, 8))
    want = run(four)
    message = r"activations\.blocks\.0\.conv1:input: the state was saved with bits=8, here it is bits=4"
    with pytest.raises(RuntimeError, match=message):
        four.load_state_dict(eight.state_dict())
    with pytest.raises(RuntimeError, match=r"weights\.blocks\.0\.conv1\.weight\|0: .*bits=8"):
        four.load_state_dict(eight.state_dict())
    assert torch.equal(run(four), want)


def test_centring_travels_with_the_state(network):
    auto = DFSQ(4, selector="exact", post_relu="auto")
    source = sqlib.quantize_model(network, auto, data(0))
    other = sqlib.quantize_model(network, DFSQ(4, selector="exact", post_relu="never"), data(1))
    assert {q.centre for q in source.activations.values()} == {True, False}
    other.load_state_dict(source.state_dict())
    assert torch.equal(run(other), run(source))


def test_safetensors_takes_the_state(network, tmp_path):
    from safetensors.torch import load_file, save_file

    a, b = (sqlib.quantize_model(network, CompensatedDFSQ(4), data(seed)) for seed in (0, 1))
    save_file(b.state_dict(), tmp_path / "model.safetensors")
    a.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(run(a), run(b))


def test_threads_with_and_without_gradients(pair):
    model = pair[0]
    inputs = [data(seed)[0] for seed in (3, 4)]
    want = [run(model, x) for x in inputs]
    wrong = []

    def work(i):
        for k in range(4):
            with torch.set_grad_enabled(bool((i + k) % 2)):
                if not torch.equal(model(inputs[i % 2]).detach(), want[i % 2]):
                    wrong.append((i, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", EVERY)
def test_the_default_dtype_changes_nothing(network, name, default):
    sizes = [data(0)[0], data(0)[0][:1, :, :10]]
    before = torch.get_default_dtype()
    found = []
    recipe = EVERY[name]
    if name in ("twodquant", "dbdc-pac"):
        recipe = recipes.from_dict({**recipe.to_dict(), "relative": True})
    for dtype in (before, default):
        torch.set_default_dtype(dtype)
        try:
            found.append(sqlib.quantize_model(network, recipe, sizes))
            out = run(found[-1])
            assert out.dtype == torch.float32
        finally:
            torch.set_default_dtype(before)
    first, second = (model.state_dict() for model in found)
    assert all(v.dtype == second[k].dtype and torch.equal(v, second[k]) for k, v in first.items())
    assert torch.equal(run(found[0]), out)


class Odd(nn.Module):
    """A layer for each kind of weight: shared, a view, computed by weight normalization."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
        self.packed = nn.Parameter(torch.randn(6, 3))

    def forward(self, x):
        x = self.normed(self.shared(self.shared(x)))
        rows = x.flatten(2).transpose(1, 2)
        a, b = self.packed.chunk(2)
        return nn.functional.linear(rows, a) + nn.functional.linear(rows, b)


def test_odd_weights_are_never_stale():
    torch.manual_seed(0)
    model = sqlib.quantize_model(Odd(), MinMax(4), data(0), skip=[])
    last = run(model)
    for p in model.network.parameters():
        p.data.mul_(torch.linspace(0.5, 1.5, p.numel()).view_as(p))
        now = run(model)
        assert torch.equal(now, run(rebuilt(model))) and not torch.equal(now, last)
        last = now
