"""A weight with stored codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.codebook import fit_bounds
from sqlib.errors import InputError
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.quantizers.uniform import UniformQuantizer


@pytest.fixture
def weight():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32))


def _bounds(weight, bits=3):
    return fit_bounds(weight.double().numpy(), bits, axis=0, method="minmax")


def test_with_the_nearest_codes_it_is_the_uniform_quantizer(weight):
    nearest = UniformQuantizer(_bounds(weight))
    rounded = RoundedWeight(_bounds(weight), nearest.codes(weight))
    assert torch.equal(rounded(weight), nearest(weight))
    assert torch.equal(rounded.codes(weight), nearest.codes(weight))


def test_codes_decide_and_values_do_not(weight):
    codes = torch.zeros_like(weight, dtype=torch.int32)
    codes[0] = 7
    rounded = RoundedWeight(_bounds(weight), codes)
    assert torch.equal(rounded(weight), rounded(torch.zeros_like(weight)))
    lower, scale, _ = rounded.grid(weight)
    assert torch.equal(rounded(weight)[0], (lower + 7 * scale)[0].expand(3, 2, 2))
    assert torch.equal(rounded(weight)[1:], lower[1:].expand(4, 3, 2, 2))


def test_gradient_passes_straight_through(weight):
    rounded = RoundedWeight(_bounds(weight), torch.ones_like(weight, dtype=torch.int64))
    leaf = weight.clone().requires_grad_()
    out = rounded(leaf)
    (out * torch.arange(5.0)[:, None, None, None]).sum().backward()
    assert torch.equal(leaf.grad, torch.arange(5.0)[:, None, None, None].expand_as(weight))
    assert torch.allclose(out, rounded(weight))


def test_codes_survive_dtype_changes_and_the_state_dict(weight):
    rounded = RoundedWeight(_bounds(weight), torch.full_like(weight, 7, dtype=torch.int32)).half().double()
    assert rounded.stored.dtype == torch.int32
    other = RoundedWeight(_bounds(weight * 2), torch.zeros_like(weight, dtype=torch.int32))
    other.load_state_dict(rounded.state_dict())
    assert torch.equal(other(weight), rounded(weight))
    assert rounded(weight.half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((5, 3, 2, 2), 8), "from 0 to 7"),
        (torch.full((5, 3, 2, 2), -1), "from 0 to 7"),
        (torch.zeros(5, 3, 2, 2), "integers"),
        (torch.zeros((4, 3, 2, 2), dtype=torch.int32), "channels"),
    ],
)
def test_bad_codes(weight, codes, message):
    with pytest.raises(InputError, match=message):
        RoundedWeight(_bounds(weight), codes)


def test_a_weight_of_another_shape_is_refused(weight):
    rounded = RoundedWeight(_bounds(weight), torch.zeros((5, 3, 2, 2), dtype=torch.int32))
    for use in (rounded, rounded.codes):
        with pytest.raises(InputError, match="shape"):
            use(weight[:, :2])
