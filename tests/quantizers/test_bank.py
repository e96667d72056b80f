"""A bank of quantizers: mixed batches against each sample alone, the gradient of a choice, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sqlib.codebook import Bounds, fit_codebook, universal_set
from sqlib.engine import Context
from sqlib.errors import InputError
from sqlib.quantizers import ByRole, QuantizerBank, StaticBits, SubsetQuantizer, UniformQuantizer
from sqlib.quantizers._workspace import Workspace
from sqlib.quantizers.bank import Choice

X = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0))


def uniform(bits):
    return UniformQuantizer(Bounds(-0.5 - 0.1 * bits, 0.3 * bits, bits, np.nan, "x"))


def subset(bits):
    values = np.random.default_rng(bits).uniform(-1, 1, (4, 300))
    return SubsetQuantizer(fit_codebook(values, universal_set(4), 1 << bits))


class Given(nn.Module):
    """Says what it is told to."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def forward(self, x, site, context):
        return self.found


def bank(found=4, make=uniform, widths=(2, 4, 6)):
    return QuantizerBank({width: make(width) for width in widths}, Given(found))


def alone(q, x, widths, block=1):
    return torch.cat([q.at(w)(x[i * block : (i + 1) * block]) for i, w in enumerate(widths)])


LAYOUTS = {
    "plain": X,
    "channels last": X.to(memory_format=torch.channels_last),
    "strided": X[:, :, ::2],
    "transposed": X.transpose(1, 3),
    "double": X.double(),
    "bfloat16": X.bfloat16(),
}


@pytest.mark.parametrize("make", [uniform, subset])
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=25)
@given(widths=st.lists(st.sampled_from([2, 4, 6]), min_size=6, max_size=6))
def test_a_mixed_batch_equals_each_sample_alone(make, layout, widths):
    if make is subset and layout == "transposed":
        return
    x = LAYOUTS[layout]
    q = bank(torch.tensor(widths), make)
    memory = Workspace()
    with torch.no_grad():
        want = alone(q, x, widths)
        found = q(x)
        with memory.lend("input"):
            lent = q(x).clone()
    assert torch.equal(found, want) and torch.equal(lent, want) and found.dtype == x.dtype
    assert torch.equal(q(x.clone().requires_grad_()).detach(), want)
    with torch.inference_mode():
        assert torch.equal(q(x), want)


def test_what_is_lent_is_not_overwritten_by_the_parts():
    """The result of one operand lies in lent memory while the parts of the next one are computed."""
    q, memory = bank(torch.tensor([2, 4, 6, 2, 4, 6])), Workspace()
    with torch.no_grad():
        with memory.lend("left"):
            left = q(X)
        with memory.lend("right"):
            right = q(2 * X)
        assert torch.equal(left, alone(q, X, [2, 4, 6, 2, 4, 6]))
        assert torch.equal(right, alone(q, 2 * X, [2, 4, 6, 2, 4, 6]))
        with memory.lend("left"):
            assert q(X).data_ptr() == left.data_ptr()


def test_blocks_of_windows_belong_to_samples_in_order():
    q, widths = bank(), (2, 6, 4)
    assert torch.equal(q(X, Choice(widths)), alone(q, X, widths, block=2))
    with pytest.raises(InputError, match=r"shape \(6, 4, 5, 7\) in a pass over 4 samples: .*no multiple"):
        q(X, Choice((2, 2, 4, 4)))


def test_one_width_for_all_is_its_quantizer_and_no_copy():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    q = QuantizerBank({4: uniform(4), 32: Watch()}, Given(torch.full((6,), 32)))
    assert q(X) is X and seen[0] is X


@pytest.mark.parametrize("found", [4, torch.tensor(4), torch.tensor([4]), [4] * 6, torch.full((6,), 4)])
def test_forms_of_a_width(found):
    assert bank().choose(X) == Choice(4)
    assert bank(found).choose(X) == Choice(4)


def test_an_empty_batch_stays_empty():
    q = bank(torch.zeros(0, dtype=torch.int64))
    assert q(X[:0]).shape == (0, 4, 5, 7)


SHARES = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])


def test_shares_choose_the_largest_and_of_equal_ones_the_smaller_width():
    assert bank(SHARES).choose(X[:3]) == Choice((4, 2, 6))


@pytest.mark.parametrize("block", [1, 2])
def test_gradients_are_those_of_the_mixture(block):
    """Forward: the quantizers chosen, exactly. Backward: of sum_k p_k Q_k(x), for x, the bounds and p."""
    shares = SHARES.double().requires_grad_()
    q = bank(shares).learnable()
    x = X[: 3 * block].double().requires_grad_()
    out = q(x, Choice((4, 2, 6), shares))
    assert torch.equal(out.detach(), alone(q, x, (4, 2, 6), block).detach())
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = [x, shares, *(p for width in q.widths for p in q.at(width).parameters())]
    found = torch.autograd.grad(out, inputs, grad)
    want = [torch.zeros_like(t) for t in inputs]
    for n in range(3):
        part = slice(n * block, (n + 1) * block)
        for k, width in enumerate(q.widths):
            one = x[part].detach().requires_grad_()
            single = q.at(width)(one)
            own = [one, *q.at(width).parameters()]
            parts = torch.autograd.grad(single, own, grad[part])
            want[0][part] += shares[n, k].item() * parts[0]
            want[1][n, k] = (single * grad[part]).sum()
            for i in (0, 1):
                want[2 + 2 * k + i] += shares[n, k].item() * parts[1 + i]
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_without_gradients_shares_cost_one_quantizer_each():
    shares = SHARES.clone().requires_grad_()
    with torch.no_grad():
        assert bank(shares).choose(X[:3]).shares is None
    assert bank(shares).choose(X[:3]).shares is shares


def test_gradients_of_hard_widths_are_those_of_the_quantizers_chosen():
    widths = (2, 4, 6, 4, 2, 6)
    q, x = bank(torch.tensor(widths)).learnable(), X.double().requires_grad_()
    found = torch.autograd.grad(q(x).square().sum(), [x, *q.at(4).parameters()])
    want = torch.autograd.grad(alone(q, x, widths).square().sum(), [x, *q.at(4).parameters()])
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_learnable_and_fixed_reach_every_quantizer():
    q = QuantizerBank({4: uniform(4), 8: subset(8), 32: nn.Identity()}, StaticBits(4))
    assert [name for name, _ in q.learnable().named_parameters()] == [
        "quantizers.4.lower",
        "quantizers.4.upper",
    ]
    assert not list(q.fixed().parameters())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (5, "Given chose 5 bits, expected some of 2, 4, 6"),
        (torch.tensor([2, 4, 8, 3, 2, 2]), "chose 3, 8 bits"),
        (torch.tensor([2, 4]), r"gave \[2, 4\], expected an integer, or one for each of 6 samples"),
        (True, "gave True, expected an integer"),
        (4.0, "gave 4.0, expected an integer"),
        (None, "gave None, expected an integer"),
        (torch.full((6, 2), 0.5), r"gave shares .*\(6, 2\).*expected finite ones of shape \(6, 3\)"),
        (torch.full((6, 3), torch.nan), r"gave shares .*expected finite"),
    ],
)
def test_choices_that_are_refused(found, message):
    with pytest.raises(InputError, match=message):
        bank(found)(X)


@pytest.mark.parametrize(
    ("quantizers", "selector", "message"),
    [
        ({}, StaticBits(4), "expected fake-quantizers by bit-width"),
        ([uniform(4)], StaticBits(4), "expected fake-quantizers by bit-width"),
        ({4: uniform(8)}, StaticBits(4), "the quantizer for 4 bits is UniformQuantizer.*give one of 4 bits"),
        ({4: lambda x: x}, StaticBits(4), "the quantizer for 4 bits"),
        ({20: nn.Identity()}, StaticBits(4), "bits=20"),
        ({4: uniform(4)}, lambda x, site, context: 4, r"selector is function, expected a torch\.nn\.Module"),
    ],
)
def test_banks_that_are_refused(quantizers, selector, message):
    with pytest.raises(InputError, match=message):
        QuantizerBank(quantizers, selector)


def context(*roles):
    made = Context(roles)
    made.begin((torch.zeros(len(roles), 3, 4, 4),), {})
    return made


def test_roles():
    selector = ByRole({"reference": 8, "query": 4})
    seen = context("query", "reference", "query")
    assert selector(X, None, seen) == (4, 8, 4)
    with pytest.raises(InputError, match="the role 'border': bits are known for 'query', 'reference'"):
        selector(X, None, context("query", "border"))
    with pytest.raises(InputError, match=r"samples without a role: .*quantized\.context\(roles="):
        selector(X, None, context(None))
    with pytest.raises(InputError, match="samples without a role"):
        selector(X, None, None)
    assert ByRole({"query": 4}, default=6)(X, None, context("query", "border", None)) == (4, 6, 6)
    for bad in ({}, {"query": 0}, {4: 4}, "query"):
        with pytest.raises(InputError, match="bits="):
            ByRole(bad)
    with pytest.raises(RuntimeError, match="saved with bits of 'query'=6, here it is bits of 'query'=4"):
        selector.load_state_dict(ByRole({"reference": 8, "query": 6}).state_dict())


def test_a_selector_follows_the_network_and_bounds_do_not():
    q = QuantizerBank({4: uniform(4)}, nn.Linear(2, 1))
    q.half()
    assert q.selector.weight.dtype == torch.float16 and q.at(4).lower.dtype == torch.float64
