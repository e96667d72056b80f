"""No quantizer remembers numbers that it no longer has, and its state says what its tensors do not."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from sqlib.codebook import Bounds, Codebook, fit_bounds, fit_codebook, universal_set
from sqlib.engine.weights import Cache
from sqlib.quantizers import QuantizerBank, SubsetQuantizer, UniformQuantizer
from sqlib.quantizers.learned_step import LearnedStep
from sqlib.quantizers.rounded import RoundedWeight

X = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def uniform(bits=4, width=1.0, **options):
    return UniformQuantizer(replace(Bounds(-1.5 * width, 2 * width, bits, np.nan, "x"), **options))


def per_channel(bits=4, width=1.0):
    return UniformQuantizer(fit_bounds(width * X.double().numpy(), bits, axis=1, method="minmax"))


def subset(bits=3, seed=0, **options):
    values = np.random.default_rng(seed).uniform(-1, 1, (4, 300))
    return SubsetQuantizer(fit_codebook(values, universal_set(4), 1 << bits), **options)


def free(bits=3, seed=0):
    return SubsetQuantizer(
        Codebook(np.sort(np.random.default_rng(seed).uniform(-1, 1, 1 << bits)), np.nan, np.nan, "x")
    )


def fixed_scale(bits=3, seed=0):
    return subset(bits, seed, centre=False, scale=np.full(4, 1.5 + seed))


def rounded(bits=4, width=1.0):
    nearest = per_channel(bits, width)
    return RoundedWeight(nearest.bounds(), nearest.codes(width * X))


def learned_step(bits=4, width=1.0):
    q = uniform(bits, width)
    step = LearnedStep(q, relative=True)
    with torch.no_grad():
        step.variable.mul_(0.7)
    step.write_back()
    return q


class Halves(nn.Module):
    """Few bits for the first sample, many for the others."""

    def forward(self, x, site, context):
        return torch.tensor([3, *[4] * (len(x) - 1)])


def bank(bits=4, width=1.0):
    return QuantizerBank({3: uniform(3, width), bits: uniform(bits, width)}, Halves())


KINDS: dict[str, tuple[Callable[..., nn.Module], Callable[[], nn.Module]]] = {
    "uniform": (uniform, lambda: uniform(width=0.4)),
    "per channel": (per_channel, lambda: per_channel(width=0.4)),
    "subset": (subset, lambda: subset(seed=1)),
    "free points": (free, lambda: free(seed=1)),
    "fixed scale": (fixed_scale, lambda: fixed_scale(seed=1)),
    "rounded": (rounded, lambda: rounded(width=0.4)),
    "learned step": (learned_step, lambda: learned_step(width=0.4)),
    "bank": (bank, lambda: bank(width=0.4)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def anew(q):
    """A quantizer that was just made from the present numbers, and has remembered nothing."""
    if isinstance(q, QuantizerBank):
        return QuantizerBank({width: anew(q.at(width)) for width in q.widths}, q.selector)
    if isinstance(q, RoundedWeight):
        return RoundedWeight(q.bounds(), q.stored)
    if isinstance(q, UniformQuantizer):
        return UniformQuantizer(q.bounds())
    scale = None if q.scale is None else q.scale.numpy().copy()
    return SubsetQuantizer(q.codebook(), centre=q.centre, channelwise=q.channelwise, scale=scale)


def expect_present(q, x=X):
    with torch.no_grad():
        want = anew(q)(x)
        assert torch.equal(q(x), want)
        assert torch.equal(q.double()(x.double()), anew(q)(x.double()))
    if not isinstance(q, SubsetQuantizer):
        assert torch.equal(q(x.clone().requires_grad_()).detach(), want)
    with torch.inference_mode():
        assert torch.equal(q(x), want)


def tensors(q):
    return [*q.parameters(), *q.buffers()]


def numbers(q):
    """The tensor that decides most."""
    if isinstance(q, QuantizerBank):
        return numbers(q.at(4))
    return q.points if isinstance(q, SubsetQuantizer) else q.upper


def in_place(t, factor):
    with torch.no_grad():
        t.mul_(factor)


def through_data(t, factor):
    t.data.mul_(factor)


def new_data(t, factor):
    t.data = t.data * factor


def through_numpy(t, factor):
    array = t.detach().numpy()
    array *= factor


def in_inference_mode(t, factor):
    with torch.inference_mode():
        t.mul_(factor)


EDITS = [in_place, through_data, new_data, through_numpy, in_inference_mode]


@every_kind
@pytest.mark.parametrize("edit", EDITS, ids=lambda f: f.__name__)
def test_every_way_to_write_reaches_the_next_pass(kind, edit):
    q = KINDS[kind][0]()
    with torch.no_grad():
        before = q(X)
    t = numbers(q)
    edit(t, 0.5)
    expect_present(q)
    assert not torch.equal(q(X).detach(), before)
    edit(t, 2.0)  # back again: also what was remembered first must not be taken for newer
    assert torch.equal(q(X).detach(), before)


@every_kind
def test_settings_are_part_of_what_is_remembered(kind):
    q = KINDS[kind][0]()
    q(X)
    if isinstance(q, UniformQuantizer):
        if not isinstance(q, RoundedWeight):
            q.bits = 2
        q.integer_zero = not q.integer_zero
    elif isinstance(q, QuantizerBank):
        q.at(4).integer_zero = False
    else:
        q.denominator = None
    expect_present(q)


@every_kind
def test_requires_grad_toggles_and_dtype_changes(kind):
    q = KINDS[kind][0]()
    before = q(X)
    if not isinstance(q, SubsetQuantizer):
        q.learnable()
        q(X)
        next(q.parameters()).requires_grad_(False)
        through_data(numbers(q), 0.5)
        expect_present(q)
        q.fixed()
        through_data(numbers(q), 2.0)
    q.half().double().to(torch.bfloat16)
    expect_present(q)
    assert torch.equal(q(X), before)
    assert {t.dtype for t in tensors(q)} <= {torch.float64, torch.float32}


def pickled(q):
    return pickle.loads(pickle.dumps(q))


def saved(q):
    file = io.BytesIO()
    torch.save(q, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def state_saved(q):
    file = io.BytesIO()
    torch.save(q.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(q)
    for t in tensors(other):
        t.data.mul_(0.5)
    with torch.no_grad():
        other(X)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def averaged(q):
    model = AveragedModel(q, multi_avg_fn=get_swa_multi_avg_fn(), use_buffers=True)
    for _ in range(3):
        model.update_parameters(q)
        model(X)
    return model.module


def ema(q):
    model = AveragedModel(q, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(20):
        model.update_parameters(q)
    return model.module


def ema_by_hand(q):
    other = copy.deepcopy(q)
    for _ in range(20):
        with torch.no_grad():
            for a, b in zip(tensors(other), tensors(q), strict=True):
                a.mul_(0.9).add_(b, alpha=0.1)
    return other


def ema_of_the_state_dict(q):
    mean = {k: v.clone() for k, v in q.state_dict().items()}
    for _ in range(20):
        mean = {k: 0.9 * mean[k] + 0.1 * v for k, v in q.state_dict().items()}
    other = copy.deepcopy(q)
    other.load_state_dict(mean)
    return other


AVERAGES = [averaged, ema, ema_by_hand, ema_of_the_state_dict]
COPIES = [copy.deepcopy, copy.copy, pickled, saved, state_saved, *AVERAGES]


@every_kind
@pytest.mark.parametrize("copied", COPIES, ids=lambda f: f.__name__)
def test_copies_have_the_numbers_of_what_was_copied(kind, copied):
    """Load A, run, load B, copy: the copy runs with B."""
    a, b = (make() for make in KINDS[kind])
    q = copied(a)
    with torch.no_grad():
        q(X)
        q.load_state_dict(b.state_dict())
        twin = copied(q)
        # an average of equal numbers is off by its last bits, which must not change a code
        exact = copied not in AVERAGES
        torch.testing.assert_close(twin(X), b(X), rtol=0, atol=0 if exact else 1e-6)
        if isinstance(q, RoundedWeight):
            assert torch.equal(twin.stored, b.stored)
    expect_present(twin)


@every_kind
def test_a_training_step_before_a_copy(kind):
    """Keep-best: step, then copy, then further steps."""
    q = KINDS[kind][0]()
    trained = [] if isinstance(q, SubsetQuantizer) else [numbers(q.learnable())]
    q(X)
    for t in trained:
        t.grad = torch.full_like(t, -1.0)
        torch.optim.Adam([t], lr=0.3).step()
    best = copy.deepcopy(q)
    want = anew(q)(X)
    for t in trained:
        torch.optim.Adam([t], lr=0.3).step()
    assert torch.equal(best(X).detach(), want.detach())
    expect_present(q)


def _optimizers():
    for name, cls in sorted(vars(torch.optim).items()):
        if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
            continue
        if name in ("Optimizer", "SparseAdam", "Muon"):  # abstract; sparse gradients; matrices only
            continue
        known = inspect.signature(cls).parameters
        flags = [{}] + [{flag: True} for flag in ("foreach", "fused", "differentiable") if flag in known]
        for flag in flags:
            if flag == {"fused": True} and name not in ("Adam", "AdamW", "SGD", "Adagrad"):
                continue
            if flag != {"differentiable": True}:
                yield pytest.param(cls, flag, id="-".join([name, *flag]))


@pytest.mark.parametrize(("cls", "flags"), list(_optimizers()))
@pytest.mark.parametrize("make", [uniform, per_channel, rounded, learned_step])
def test_every_optimizer_moves_what_the_forward_pass_uses(cls, flags, make):
    q = make(width=2.0).learnable()
    optimizer = cls([*q.parameters()], **{"lr": 0.05, **flags})

    def closure():
        optimizer.zero_grad()
        loss = (q(X) - X).square().mean()
        loss.backward()
        return loss

    start = q.upper.detach().clone()
    for _ in range(4):
        optimizer.step(closure)
        expect_present(q)
    assert not torch.equal(q.upper, start)


@pytest.mark.parametrize("fused", [False, True])
def test_bounds_train_as_well_with_a_fused_optimizer(fused):
    x = torch.linspace(-1, 1, 400)
    q = UniformQuantizer(Bounds(-2.0, 2.0, 2, np.nan, "x", None, False)).learnable()
    optimizer = torch.optim.Adam(q.parameters(), lr=0.03, fused=fused)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (q(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]


def test_bounds_of_a_rounded_weight_get_the_gradients_of_the_formula():
    for integer_zero in (False, True):
        nearest = UniformQuantizer(replace(per_channel().bounds(), integer_zero=integer_zero))
        q = RoundedWeight(nearest.bounds(), nearest.codes(X)).learnable()
        weight = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
        leaf = X.clone().requires_grad_()
        (q(leaf) * weight).sum().backward()
        share = q.stored.double() / 15
        assert torch.equal(leaf.grad, weight)
        torch.testing.assert_close(q.upper.grad, (share * weight).sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(q.lower.grad, ((1 - share) * weight).sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    flat = RoundedWeight(Bounds(1.0, 1.0, 4, np.nan, "x"), torch.zeros(3, dtype=torch.int32)).learnable()
    flat(torch.zeros(3)).sum().backward()
    assert (float(flat.lower.grad), float(flat.upper.grad)) == (3.0, 0.0)


@every_kind
def test_remembered_weights_are_compared_and_not_believed(kind):
    """The cache of fake weights: hits where every bit is the same, and only there."""
    q, cache, calls = KINDS[kind][0](), Cache(), []
    q.register_forward_hook(lambda *_: calls.append(1))
    weight = X.clone()

    def check(computed):
        calls.clear()
        found = cache.fake("w", weight, q)
        assert len(calls) == computed
        assert torch.equal(found, anew(q)(weight)) and not found.requires_grad

    check(1), check(0)
    for edit in EDITS:
        edit(weight, 0.75)
        check(1), check(0)
        edit(numbers(q), 0.9)
        check(1), check(0)
    weight = weight.clone()
    check(0)
    weight = weight.double()
    check(1), check(0)
    weight = weight.to(memory_format=torch.channels_last)
    check(1), check(0)
    with torch.inference_mode():
        check(0)
        weight = weight * 0.5
        check(1), check(0)
    check(0)
    assert not cache.fake("w", weight, q).is_inference()


def test_a_quantizer_with_something_else_inside_is_asked_every_time():
    class Odd(UniformQuantizer):
        def fake(self, x):
            return super().fake(x) * self.table["gain"]

    q = Odd(uniform().bounds())
    q.table = {"gain": 1.0}
    cache = Cache()
    first = cache.fake("w", X, q)
    q.table["gain"] = 2.0
    assert torch.equal(cache.fake("w", X, q), 2 * first)


def test_threads_that_load_other_bounds_see_their_own():
    pairs = [(uniform(width=w), X * w) for w in (0.5, 1.0, 2.0)]
    want = [q(x) for q, x in pairs]
    wrong = []

    def work(i):
        q = copy.deepcopy(pairs[0][0])
        for k in range(60):
            j = (i + k) % 3
            q.load_state_dict(pairs[j][0].state_dict())
            if not torch.equal(q(pairs[j][1]), want[j]) or not torch.equal(pairs[j][0](pairs[j][1]), want[j]):
                wrong.append((i, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


@pytest.mark.parametrize(
    ("here", "saved", "message"),
    [
        (uniform(4), uniform(8), r"UniformQuantizer: .*saved with bits=8, here it is bits=4; quantize with"),
        (uniform(4), uniform(4, integer_zero=False), "integer_zero=0, here it is integer_zero=True"),
        (per_channel(), UniformQuantizer(replace(per_channel().bounds(), axis=-3)), "axis=-3.*axis=1"),
        (rounded(2), rounded(4), "saved with bits=4, here it is bits=2"),
        (subset(3), subset(4), "saved with bits=4, here it is bits=3"),
        (subset(3), subset(3, axis=-1), "axis=-1, here it is axis=-3"),
        (subset(3), subset(3, patch=16), "patch=16, here it is patch=None"),
        (subset(3, centre=False), fixed_scale(3), "fixed_scale=1, here it is fixed_scale=False"),
        (subset(3), uniform(3), "another kind of quantizer"),
        (bank(4), bank(5), "QuantizerBank: .*saved with width 1=5, here it is width 1=4"),
        (bank(4), QuantizerBank({4: uniform(4)}, Halves()), r"settings of shape \(1,\), expected 2 numbers"),
        (
            bank(4),
            QuantizerBank({3: uniform(3), 4: uniform(4, integer_zero=False)}, Halves()),
            "integer_zero",
        ),
    ],
)
def test_state_of_another_quantizer_is_refused_and_changes_nothing(here, saved, message):
    before = [t.clone() for t in tensors(here)]
    with pytest.raises(RuntimeError, match=message):
        here.load_state_dict(saved.state_dict())
    with pytest.raises(RuntimeError, match=message):
        here.load_state_dict(saved.state_dict(), strict=False)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(here), strict=True))


def test_what_calibration_decides_is_carried():
    source = subset(3, centre=False, channelwise=False)
    source.denominator = None
    other = subset(3, seed=5)
    assert not torch.equal(other(X), source(X))
    other.load_state_dict(source.state_dict())
    assert (other.centre, other.channelwise, other.denominator) == (False, False, None)
    assert torch.equal(other(X), source(X))


@every_kind
def test_state_without_the_entry_loads_unchecked(kind):
    """As saved by a version without it; codes under the name that they had."""
    a, b = (make() for make in KINDS[kind])
    state = {k: v for k, v in b.state_dict().items() if not k.endswith("_extra_state")}
    if kind == "rounded":
        state["stored"] = state.pop("code_values").to(torch.int32)
    assert str(a.load_state_dict(state)) == "<All keys matched successfully>"
    assert torch.equal(a(X), b(X))


def test_codes_that_do_not_fit_are_refused():
    state = rounded(4).state_dict()
    del state["_extra_state"]
    with pytest.raises(RuntimeError, match=r"codes from 0 to 15 in the state, expected 0 to 3 \(2 bits\)"):
        rounded(2).load_state_dict(state)


@every_kind
def test_state_dicts_are_tensors_equal_to_themselves(kind):
    q = KINDS[kind][0]()
    first, second = q.state_dict(), copy.deepcopy(q).state_dict()
    assert all(isinstance(v, torch.Tensor) and torch.equal(v, second[k]) for k, v in first.items())


def test_copies_carry_nothing_that_was_derived():
    q = subset(3)
    q(X)
    assert len(pickle.dumps(q)) < 4000  # its table alone is 16 KB
