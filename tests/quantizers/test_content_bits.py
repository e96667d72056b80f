"""CADyQ's selector: its statistics and shares against closed forms, and what it must survive."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sqlib.engine import Context
from sqlib.errors import InputError
from sqlib.quantizers import ContentBits, QuantizerBank, SymmetricQuantizer, image_gradients
from sqlib.quantizers._saved import describe, rebuild
from sqlib.quantizers.content_bits import check_candidates, operand_channel_axis

WIDTHS = (4, 6, 8)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_pass(image):
    context = Context()
    context.begin((image,), {})
    return context


def image(samples=3, side=8):
    return normal(samples, 3, side, side, seed=1).sigmoid()


def selector(channels=4, **options):
    """With weights of its own, in float64."""
    made = ContentBits(WIDTHS, channels, **options)
    made.weight.data = normal(3, channels + 2, seed=2)
    made.bias.data = normal(3, seed=3)
    return made


def bank(q, alpha=1.5):
    return QuantizerBank({w: SymmetricQuantizer(alpha - 0.1 * w, w) for w in WIDTHS}, q).learnable()


def test_it_starts_with_the_largest_width_whatever_it_sees():
    made = ContentBits((8, 4, 6), 4)
    assert made.candidates == WIDTHS
    assert made.weight.tolist() == [[1.0] * 6] * 3 and made.bias.tolist() == [0, 0, 1]
    shares = made(1000 * normal(3, 4, 5, 5).float(), None, a_pass(image()))
    torch.testing.assert_close(shares, torch.tensor([1.0, 1.0, torch.e]).expand(3, 3) / (2 + torch.e))
    assert bank(made).choose(normal(3, 4, 5, 5).float(), None, a_pass(image())).widths == 8


@pytest.mark.parametrize(
    ("axis", "shape"),
    [
        (-3, (3, 4, 5, 6)),
        (-1, (3, 7, 4)),
        (-1, (3, 5, 6, 4)),
        (-1, (6, 7, 4)),
        (-2, (3, 4, 7)),
        (-4, (3, 4, 2, 3, 2)),
    ],
)
def test_shares_are_the_softmax_of_gradients_and_deviations(axis, shape):
    x, seen, q = normal(*shape), image(), selector(channel_axis=axis, gradient_scale=10)
    each = x.unflatten(0, (3, -1))
    rows = each.movedim(axis + each.ndim, 1).flatten(2)
    want = torch.cat([10 * image_gradients(seen), rows.std(2)], 1) @ q.weight.T + q.bias
    torch.testing.assert_close(q(x, None, a_pass(seen)), want.softmax(1), rtol=1e-12, atol=1e-12)


def test_without_a_channel_axis_a_sample_has_one_deviation():
    x, q = normal(6, 5, 7), selector(1, channel_axis=None)
    torch.testing.assert_close(q.deviations(x, 3), x.view(3, -1).std(1, keepdim=True))


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (3, 4, 1, 1)])
def test_a_constant_patch_is_decided_by_the_bias(shape):
    """Also after training, with a gradient that is finite (that of a standard deviation of 0 is not)."""
    q, x = selector(), torch.full(shape, 0.7, dtype=torch.float64).requires_grad_()
    shares = q(x, None, a_pass(torch.full((3, 3, 8, 8), 0.2, dtype=torch.float64)))
    torch.testing.assert_close(shares, q.bias.softmax(0).expand(3, 3), rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(shares.square().sum(), [x, q.weight, q.bias])
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert bool((grads[0] == 0).all()) and bool((grads[1] == 0).all()) and bool((grads[2] != 0).any())


def test_gradients_of_a_bank_are_those_of_the_mixture():
    """d out = d sum_k p_k(x) Q_k(x), with Q_k straight through and p_k a softmax: every term by hand."""
    x, seen, q = normal(3, 4, 5, 5).requires_grad_(), image(), selector(gradient_scale=10)
    b, context = bank(q), a_pass(seen)
    choice = b.choose(x, None, context)
    out, grad = b(x, choice), normal(3, 4, 5, 5, seed=7)
    alphas = [b.at(w).alpha for w in WIDTHS]
    found = torch.autograd.grad(out, [x, q.weight, q.bias, *alphas], grad)

    with torch.no_grad():
        p = choice.shares
        deviation = x.flatten(2).std(2)
        v = torch.cat([10 * image_gradients(seen), deviation], 1)
        by_x, by_p, by_alpha = torch.zeros_like(x), torch.zeros(3, 3, dtype=torch.float64), []
        for k, (w, alpha) in enumerate(zip(WIDTHS, alphas, strict=True)):
            n = 2 ** (w - 1) - 1
            u = x * n / alpha
            inside = u.abs() <= n
            level = (alpha / n) * u.clamp(-n, n).round()
            share = p[:, k].view(3, 1, 1, 1)
            by_x += share * inside * grad
            by_p[:, k] = (level * grad).flatten(1).sum(1)
            slope = torch.where(inside, (u.round() - u) / n, u.sign())
            by_alpha.append((share * slope * grad).sum())
        by_logit = p * (by_p - (p * by_p).sum(1, keepdim=True))
        by_deviation = (by_logit @ q.weight)[:, 2:]
        centred = x - x.mean((2, 3), keepdim=True)
        by_x += (by_deviation / deviation / (25 - 1)).view(3, 4, 1, 1) * centred
    want = [by_x, by_logit.T @ v, by_logit.sum(0), *by_alpha]
    for a, e in zip(found, want, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)


def test_gradients_of_the_shares_by_finite_differences():
    q, seen = selector(gradient_scale=10), image()

    def shares(x, weight, bias):
        with torch.no_grad():
            gradients = 10 * image_gradients(seen)
        found = torch.cat([gradients, q.deviations(x, 3)], 1)
        return ((found[:, None] * weight).sum(2) + bias).softmax(1)

    inputs = (normal(3, 4, 3, 3).requires_grad_(), q.weight, q.bias)
    torch.testing.assert_close(shares(*inputs), q(inputs[0], None, a_pass(seen)))
    assert torch.autograd.gradcheck(shares, inputs)


def test_selectors_of_a_pass_share_the_gradients_of_the_image():
    context, first, second = a_pass(image()), selector(), selector()
    a = first(normal(3, 4, 5, 5), None, context)
    context.data["image gradients"] = torch.zeros(3, 2, dtype=torch.float64)
    b = second(normal(3, 4, 5, 5), None, context)
    assert not torch.equal(a, b)
    assert set(context.data["shares"]) == {first, second} and context.data["shares"][second] is b
    again = first(normal(3, 4, 5, 5), None, context)  # as where a part of a network is checkpointed
    assert context.data["shares"][first] is again and len(context.data["shares"]) == 2


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_patch_gets_the_same_shares_in_any_batch(samples):
    q = ContentBits(WIDTHS, 16)
    q.weight.data = normal(3, 18).float()
    x, seen = normal(samples, 16, 48, 48).float(), image(samples, 48).float()
    alone = [q(a, None, a_pass(b)) for a, b in zip(x.split(1), seen.split(1), strict=True)]
    assert torch.equal(q(x, None, a_pass(seen)), torch.cat(alone))


def test_it_stays_in_single_precision_and_takes_half():
    q = bank(ContentBits(WIDTHS, 4)).half()
    assert q.selector.weight.dtype == torch.float32
    shares = q.selector(normal(3, 4, 5, 5).half(), None, a_pass(image().half()))
    assert shares.dtype == torch.float32


@pytest.mark.parametrize("axis", [-3, None])
def test_description_and_rebuilding(axis):
    q = ContentBits((3, 5), 7 if axis else 1, channel_axis=axis, gradient_scale=0.1)
    with torch.no_grad():
        q.weight.normal_()
    made = rebuild(*describe(q))
    assert isinstance(made, ContentBits) and made.options() == q.options()
    assert all(torch.equal(v, made.state_dict()[k]) for k, v in q.state_dict().items())
    copied = copy.deepcopy(q)
    assert torch.equal(copied.weight, q.weight) and copied.weight is not q.weight


def test_state_of_another_operand_is_refused():
    with pytest.raises(RuntimeError, match="channels=5, here it is channels=4"):
        selector(4).load_state_dict(selector(5).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(candidates=(8,)), "two or more bit-widths"),
        (dict(candidates=(4, 4)), "two or more bit-widths, each once"),
        (dict(candidates=(1, 4)), "bits=1: expected an integer from 2 to 16"),
        (dict(candidates=(4, 32)), "bits=32"),
        (dict(candidates=8), "candidates=8: expected bit-widths such as"),
        (dict(channels=0), "channels=0"),
        (dict(channel_axis=None), "channels=4 without a channel_axis"),
        (dict(gradient_scale=float("nan")), "gradient_scale=nan"),
        (dict(gradient_scale=-1), "gradient_scale=-1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        ContentBits(**{"candidates": WIDTHS, "channels": 4, **options})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5, 6, 6), r"shape \(3, 5, 6, 6\), expected 4 channels in axis -3"),
        ((3, 4), r"shape \(3, 4\), expected 4 channels in axis -3"),
        ((4, 6, 6), "no multiple"),
        ((3, 6, 6), "expected 4 channels"),
    ],
)
def test_operands_that_do_not_fit(shape, message):
    with pytest.raises(InputError, match=message):
        selector()(normal(*shape), None, a_pass(image()))


def test_alone_it_has_no_image_to_look_at():
    with pytest.raises(InputError, match="its tensors are none"):
        bank(selector())(normal(3, 4, 5, 5))


def test_values_that_are_not_finite_are_refused_by_the_bank():
    x = normal(3, 4, 5, 5)
    x[1, 2, 3, 3] = torch.nan
    with pytest.raises(InputError, match=r"ContentBits gave shares .*expected finite"):
        bank(selector()).choose(x, None, a_pass(image()))


def test_candidates_and_axes():
    assert check_candidates([8, 4]) == (4, 8)
    axes = {"conv1d": -2, "conv2d": -3, "conv3d": -4, "conv_transpose2d": -3, "linear": -1}
    assert {op: operand_channel_axis(op) for op in axes} == axes
    assert operand_channel_axis("matmul") is None and operand_channel_axis("einsum") is None


def test_a_bank_of_other_widths_refuses_the_shares():
    b = QuantizerBank({w: nn.Identity() for w in (4, 8)}, selector())
    with pytest.raises(InputError, match=r"expected finite ones of shape \(3, 2\)"):
        b.choose(normal(3, 4, 5, 5), None, a_pass(image()))
