"""Fake-quantizers as integers, scales and zero points."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sqlib import codebook
from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.export.grid import Grid, fixed, grid
from sqlib.quantizers import (
    FollowingQuantizer,
    Gate,
    GatedQuantizer,
    QuantizerBank,
    RoundedWeight,
    StaticBits,
    SubsetQuantizer,
    SymmetricQuantizer,
    UniformQuantizer,
)

X = torch.linspace(-3, 3, 4 * 251, dtype=torch.float64).float().reshape(251, 4)

POINTS = codebook.fit_codebook(X.numpy() / 3, codebook.universal_set(), 4)


def made(lower, upper, bits, *, axis=None, integer_zero=True) -> UniformQuantizer:
    return UniformQuantizer(Bounds(lower, upper, bits, axis=axis, integer_zero=integer_zero))


QUANTIZERS = {
    "integer zero": made(-1.03, 2.17, 8),
    "real zero": made(-1.03, 2.17, 4, integer_zero=False),
    "from zero": made(0.0, 2.17, 4, integer_zero=False),
    "without zero": made(0.5, 2.17, 3),
    "below zero": made(-2.5, -0.5, 5, integer_zero=False),
    "no extent": made(0.75, 0.75, 4),
    "zero alone": made(0.0, 0.0, 4),
    "channels": made([-1.0, 0.2, 0.5, -2.0], [1.3, 2.0, 0.5, -0.1], 6, axis=1),
    "symmetric": SymmetricQuantizer(1.7, 4),
    "unsigned": SymmetricQuantizer(1.7, 8, signed=False),
}


def restored(found: Grid, x: torch.Tensor) -> torch.Tensor:
    scale, zero, offset = (v.reshape(1, -1) for v in (found.scale, found.zero_point, found.offset))
    codes = torch.clamp(torch.round((x - offset) / scale) + zero, 0, found.top)
    return (codes - zero) * scale + offset


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_grid_has_the_levels_of_its_quantizer(name: str) -> None:
    quantizer = QUANTIZERS[name]
    found, expected = grid(quantizer), quantizer(X)
    off = (restored(found, X) - expected).abs()
    step = torch.where(quantizer.scale == 0, 1.0, quantizer.scale).float()
    assert (off <= 1.001 * step).all()  # a value halfway between two levels may go to the other
    assert (off > 1e-5).sum() <= 2
    assert 0 <= int(found.zero_point.min()) <= int(found.zero_point.max()) <= found.top


def test_which_grids_are_those_of_integers() -> None:
    integer = {name for name, quantizer in QUANTIZERS.items() if grid(quantizer).integer}
    assert integer == {"integer zero", "from zero", "zero alone", "symmetric", "unsigned"}


@pytest.mark.parametrize("name", [n for n, q in QUANTIZERS.items() if q.integer_zero and n != "no extent"])
def test_scale_and_zero_point_give_the_levels(name: str) -> None:
    quantizer = QUANTIZERS[name]
    values = (quantizer.codes(X) - quantizer.zero_point) * quantizer.scale
    flat = quantizer.scale == 0
    assert torch.allclose(torch.where(flat, quantizer.lower, values).float(), quantizer(X), atol=1e-6)


def test_a_real_zero_point_is_none() -> None:
    with pytest.raises(InputError, match="integer_zero=True"):
        QUANTIZERS["real zero"].zero_point  # noqa: B018


def test_ranges_that_follow_a_weight_are_taken_from_it() -> None:
    found = fixed(FollowingQuantizer(4), X, "here")
    assert torch.equal(found(X), FollowingQuantizer(4)(X))
    rounded = RoundedWeight(Bounds(-1.0, 1.0, 4), torch.zeros(2, 2, dtype=torch.int32))
    assert fixed(rounded, X, "here") is rounded


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (
            SubsetQuantizer(codebook.fit_codebook(X.numpy() / 3, codebook.universal_set(), 4)),
            "no grid of 8 bits",
        ),
        (QuantizerBank({4: made(-1, 1, 4), 8: made(-1, 1, 8)}, StaticBits(8)), "in every pass"),
        (GatedQuantizer(Bounds(-1.0, 1.0, 4), Gate(4)), "for every image"),
        (made(-1, 1, 12), "12 bits, more than 8"),
        (nn.ReLU(), "its ReLU is not a UniformQuantizer"),
        (FollowingQuantizer(4), "is not a UniformQuantizer"),  # of an activation
    ],
)
def test_what_integers_cannot_express_is_refused(quantizer: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=rf"^call site 'conv'.*{message}.*such as minmax"):
        fixed(quantizer, None, "call site 'conv'")
