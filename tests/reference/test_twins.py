"""Pairs of crops: from one picture, aligned with their originals, similar enough, reproducible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_pairs import pairs, refilled

from sqlib import training
from sqlib.errors import InputError
from sqlib.fit.samples import Samples
from sqlib.reference.twins import Twins


class Color(nn.Module):
    """Features: the mean of each channel, minus a half."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) - 0.5


def twins(tau: float = -1.0, crop: int = 6, **options: object) -> Twins:
    low, high = pairs(n=3)[0]
    return Twins(list(low), list(high), crop, Color(), tau, **options)  # type: ignore[arg-type]


def draw(source: Twins, batch: int = 4, seed: int = 0, augment: bool = False) -> tuple[Tensor, Tensor]:
    drawn = source.draw(batch, augment, torch.Generator().manual_seed(seed))
    assert drawn.target is not None
    return drawn.args[0], drawn.target


@pytest.mark.parametrize("augment", [False, True])
def test_crops_and_originals_belong_together(augment: bool) -> None:
    low, high = draw(twins(), augment=augment)
    assert low.shape == (8, 3, 6, 6) and high.shape == (8, 3, 12, 12)
    torch.testing.assert_close(nn.functional.avg_pool2d(high, 2), low)


def test_both_are_of_one_picture() -> None:
    constant = [torch.full((3, 9, 9), v) for v in (0.1, 0.5, 0.9)]
    source = Twins(constant, [x.repeat(1, 2, 2) for x in constant], 4, Color(), -1.0)
    low, _ = draw(source, 8)
    assert torch.equal(low[:8], low[8:]) and len(low.unique()) > 1


def test_pairs_are_similar_enough() -> None:
    low, _ = draw(twins(tau=0.9, crop=3), 6)
    source = twins()
    assert bool((source.similarity(low[:6], low[6:]) >= 0.9).all())
    loose, _ = draw(twins(crop=3), 6)
    assert not bool((source.similarity(loose[:6], loose[6:]) >= 0.9).all())


def test_none_similar_enough() -> None:
    opposite = torch.zeros(3, 4, 8)
    opposite[..., 4:] = 1
    source = Twins([opposite], [opposite.repeat(1, 2, 2)], 4, Color(), 0.99999999)
    with pytest.raises(InputError, match="lower tau"):
        for seed in range(50):
            draw(source, 30, seed)


def test_draws_repeat() -> None:
    assert torch.equal(draw(twins(), seed=2)[0], draw(twins(), seed=2)[0])
    assert not torch.equal(draw(twins(), seed=2)[0], draw(twins(), seed=3)[0])


def test_from_pictures_and_from_tensors() -> None:
    source = Twins.of(training.pairs("builtin", scale=4, patch=20), "textures", 0.2)
    low, high = draw(source, 2)
    assert low.shape == (4, 3, 20, 20) and high.shape == (4, 3, 80, 80) and float(high.max()) <= 1
    assert Twins.of(pairs(n=2), "textures", 0.5).crop == 16
    assert source.content()[2:4] == [20, 0.2]


def test_a_loader_may_fill_one_buffer_again_and_again() -> None:
    """As many pictures as `Samples` has, and the same."""
    source = Twins.of(refilled(4), "textures", -1.0)
    (pool,) = Samples(refilled(4), nn.Conv2d(3, 3, 1), paired=True).pools
    for own, expected in zip((source.low, source.high), pool, strict=True):
        assert torch.equal(torch.stack(list(own)), expected)
    assert len(torch.stack(list(source.low)).unique(dim=0)) == 4


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_batches_have_the_dtype_that_is_asked_for(dtype: torch.dtype) -> None:
    given = [tuple(x.to(dtype) for x in pair) for pair in pairs(n=2)]
    assert {x.dtype for x in draw(Twins.of(given, "textures", -1.0))} == {torch.float32}
    assert {x.dtype for x in draw(Twins.of(pairs(n=2), "textures", -1.0, dtype=dtype))} == {dtype}
    mixed = [*pairs(n=2), *given]
    assert {x.dtype for x in draw(Twins.of(mixed, "textures", -1.0))} == {torch.float32}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_pictures_that_are_not_finite(value: float, side: int) -> None:
    pair = [x.clone() for x in pairs(n=2)[0]]
    pair[side][1, 0, 0, 0] = value
    with pytest.raises(InputError, match="picture 1 has 1 NaN or infinite values"):
        Twins.of([pair], "textures", 0.5)


def test_bad_sources() -> None:
    class Drawing:
        def draw(self) -> None: ...

    with pytest.raises(InputError, match="does not tell its pictures"):
        Twins.of(Drawing(), "textures", 0.5)
    with pytest.raises(InputError, match="no samples"):
        Twins.of([], "textures", 0.5)
    with pytest.raises(InputError, match="picture 0 has"):
        Twins([torch.rand(3, 4, 4)], [torch.rand(3, 8, 8)], 6, Color(), 0.5)
    with pytest.raises(InputError, match="whole number of times"):
        Twins([torch.rand(3, 8, 8)], [torch.rand(3, 12, 12)], 6, Color(), 0.5)
    with pytest.raises(InputError, match=r"picture 2 has .* the same one for all pictures"):
        Twins.of([*pairs(n=2), *pairs(3, n=2)], "textures", 0.5)
    with pytest.raises(InputError, match=r"picture 0 has \(1, 16, 16\) .* expected RGB"):
        Twins.of([tuple(x[:, :1] for x in pairs()[0])], "textures", 0.5)
    with pytest.raises(InputError, match=r"a pair has .*int64"):
        Twins.of([tuple((255 * x).long() for x in pairs()[0])], "textures", 0.5)
    with pytest.raises(InputError, match="picture 0 has"):
        Twins.of([(torch.rand(1, 3, 0, 4), torch.rand(1, 3, 0, 8))], "textures", 0.5)
