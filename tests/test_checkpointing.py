"""Networks that checkpoint activations: the backward pass is that of the same network without checkpoints."""

from __future__ import annotations

import copy
import functools
import threading

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import sqlib
from sqlib import recipes
from sqlib.errors import InputError
from sqlib.recipes import MinMax

SHORT = dict(schedule="custom", iterations=5, batch=4, learning_rate=0.05, step_learning_rate=0.01)


class Block(nn.Module):
    """Convolutions as modules, a functional one, products of activations, dropout."""

    def __init__(self, n, checkpoints, shared):
        super().__init__()
        self.a = nn.Conv2d(n, n, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(n, n, 3, 3) / 6)
        self.shared, self.checkpoints = shared, checkpoints

    def body(self, x, scale=1.0):
        y = F.conv2d(torch.relu(self.a(x)), self.kernel, padding=1) * scale
        t = y.flatten(2)
        y = y + ((t @ t.mT).softmax(-1) @ t).view_as(y)
        return x + self.shared(self.shared(y))

    def forward(self, x):
        return self.checkpoints(self.body, x)


class Net(nn.Module):
    default_skip = ()

    def __init__(self, checkpoints, outer=lambda f, x: f(x), n=6):
        super().__init__()
        torch.manual_seed(0)
        shared = nn.Conv2d(n, n, 1)
        self.head, self.tail = nn.Conv2d(3, n, 3, padding=1), nn.Conv2d(n, 3, 3, padding=1)
        self.blocks = nn.ModuleList(Block(n, checkpoints, shared) for _ in range(2))
        self.outer = outer

    def forward(self, x):
        x = self.head(x)
        for block in self.blocks:
            x = self.outer(block, x)
        x = self.outer(self.blocks[0], x)  # once more, with call indices of its own
        return self.tail(x)


def plain(function, x):
    return function(x)


def old(function, x):
    return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=True)


def new(function, x):
    return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)


def complete(function, x):
    """Without stopping early, and with an argument by name."""
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        return checkpoint(
            function, x, use_reentrant=False, **({"scale": 1.0} if hasattr(function, "__func__") else {})
        )


def debug(function, x):
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False, determinism_check="default")


KINDS = {
    "reentrant": (old, plain),
    "not reentrant": (new, plain),
    "whole blocks, reentrant": (plain, old),
    "whole blocks, not reentrant": (plain, new),
    "nested": (new, new),
    "nested, reentrant": (old, old),
    "mixed": (new, old),
    "mixed the other way": (old, new),
    "complete": (complete, plain),
    "a name bound before": (functools.partial(checkpoint, use_reentrant=False), plain),
    "a closure": (lambda f, x: checkpoint(lambda y: f(y * 1), x, use_reentrant=True), plain),
    "sequential": (lambda f, x: checkpoint_sequential([f], 1, x, use_reentrant=False), plain),
    "options": (debug, plain),
}


def data(n=2):
    torch.manual_seed(1)
    return [torch.rand(2, 3, 6, 6) for _ in range(n)]


def gradients(q, x, backward=torch.Tensor.backward):
    q.zero_grad()
    x = x.clone().requires_grad_()
    loss = q(x).square().sum()
    backward(loss)
    return [loss.detach(), x.grad, *(p.grad for p in q.parameters())]


def assert_same(found, want):
    assert len(found) == len(want) > 8
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", [MinMax(4), recipes.DFSQ(4)], ids=lambda r: r.name)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_without_checkpoints(kind, recipe):
    q, want = (sqlib.quantize_model(Net(*c), recipe, data()) for c in (KINDS[kind], (plain, plain)))
    assert list(q.sites) == list(want.sites) and q.report().quantized.all()
    assert any(name.startswith("blocks.0.shared#") and name.endswith("#5") for name in q.sites)
    x = data()[0]
    assert_same(gradients(q, x), gradients(want, x))
    full = gradients(want.network, x)
    assert float((full[1] - gradients(want, x)[1]).norm() / full[1].norm()) > 0.02  # what would be wrong
    assert_same(gradients(copy.deepcopy(q), x), gradients(want, x))
    assert_same(gradients(q.network, x), full)  # the network alone is in full precision, both times


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant", "nested"])
def test_bounds_train_through_checkpoints(kind):
    q, want = (sqlib.quantize_model(Net(*c), MinMax(4), data()) for c in (KINDS[kind], (plain, plain)))
    for model in (q, want):
        for quantizer in (*model.weights.values(), *model.activations.values()):
            quantizer.learnable()
    x = data()[0]
    assert_same(gradients(q, x), gradients(want, x))
    for model in (q, want):  # and the network frozen: weights come from the cache
        model.network.requires_grad_(False)
    found, right = ([g for g in gradients(m, x) if g is not None] for m in (q, want))
    assert_same(found, right)


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_dropout_repeats(kind):
    nets = [Net(*c) for c in (KINDS[kind], (plain, plain))]
    for net in nets:
        net.blocks[0].a = nn.Sequential(net.blocks[0].a, nn.Dropout(0.5))
    found = []
    for net in nets:
        q = sqlib.quantize_model(net, MinMax(4), data()).train()
        torch.manual_seed(5)
        found.append(gradients(q, data()[0]))
    assert_same(*found)


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_backward_in_other_threads_twice_and_of_several_models(kind):
    q, other = (sqlib.quantize_model(Net(*KINDS[kind]), MinMax(b), data()) for b in (4, 3))
    want, right = (sqlib.quantize_model(Net(plain), MinMax(b), data()) for b in (4, 3))
    x = data()[0]

    def threaded(loss):
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()

    assert_same(gradients(q, x, threaded), gradients(want, x))

    def together(models):
        losses = [m(x).square().sum() for m in models]
        for m in models:
            m.zero_grad()
        (losses[0] + losses[1]).backward(retain_graph=True)
        losses[0].backward()
        return [p.grad for m in models for p in m.parameters()]

    assert_same(together((q, other)), together((want, right)))


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant", "nested, reentrant"])
@pytest.mark.parametrize(
    "recipe",
    [
        recipes.create("brecq", bits=4, activation_iterations=3, **SHORT),
        recipes.create("qdrop", bits=4, **SHORT),
        recipes.create("twodquant", bits=4, schedule="laptop", iterations=4, batch=2, augment=False),
        recipes.CompensatedDFSQ(4),
    ],
    ids=lambda r: r.name,
)
def test_recipes_that_learn_through_checkpoints(kind, recipe):
    q, want = (sqlib.quantize_model(Net(*c), recipe, data()) for c in (KINDS[kind], (plain, plain)))
    for (name, a), (_, b) in zip(q.state_dict().items(), want.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(q(data()[1]), want(data()[1]))


class OwnCheckpoint(torch.autograd.Function):
    """As some networks write it themselves."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx, gradient):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            out = ctx.function(x)
        torch.autograd.backward(out, gradient)
        return None, x.grad


def test_checkpoints_of_the_networks_own_are_refused_in_the_backward_pass():
    q = sqlib.quantize_model(Net(OwnCheckpoint.apply), MinMax(4), data())
    with torch.no_grad():
        assert torch.isfinite(q(data()[0])).all()
    loss = q(data()[0]).sum()
    with pytest.raises(
        InputError, match=r"'blocks\.0\.a' runs again in the backward pass.*torch.utils.checkpoint"
    ):
        loss.backward()


def test_parts_without_gradient_are_no_checkpoints():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x)
            return self.c(self.b(x))

    q = sqlib.quantize_model(Frozen(), MinMax(4), data(), skip=[])
    q(data()[0]).sum().backward()
    assert q.network.a.weight.grad is None and q.network.b.weight.grad.abs().sum() > 0


def test_checkpoints_of_other_networks_are_left_alone():
    sqlib.quantize_model(Net(old), MinMax(4), data())(data()[0]).sum().backward()
    net, want = Net(old), Net(plain)
    assert_same(gradients(net, data()[0]), gradients(want, data()[0]))
