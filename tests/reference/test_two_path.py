"""References first, then their queries: who meets whom, batches, memory, and mistakes."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from toy_pairs import crops, pairs

import sqlib
from sqlib.errors import InputError
from sqlib.models.edsr import EDSR
from sqlib.recipes import PAMS, RefQSR
from sqlib.reference.clustering import Clustering
from sqlib.reference.two_path import (
    QUERY,
    REFERENCE,
    Kept,
    RefinedBlock,
    both,
    each_upscaled,
    queries,
    references,
    two_path,
    upscale_patches,
)

BRIEF: dict[str, Any] = {
    "schedule": "custom",
    "steps": 0,
    "halve_every": 1,
    "batch": 2,
    "bound_learning_rate": 0.01,
}


class Difference(nn.Module):
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return query - reference[..., : query.shape[-2], : query.shape[-1]]


def block(**options: Any) -> RefinedBlock:
    return RefinedBlock(nn.Identity(), Difference(), 0, **options)


def model(**options: Any) -> sqlib.QuantizedModel:
    torch.manual_seed(0)
    network = EDSR("edsr-small", 2, blocks=3, features=8)
    recipe = RefQSR(base=PAMS(8, **BRIEF), low=3, refiners=1, **BRIEF, **options)
    made = sqlib.quantize_model(network, recipe, crops(), pairs=pairs())
    with torch.no_grad():
        made.network.blocks[2].refer.conv2.weight.normal_(std=0.2)
    return made


def grouped(*reference: int) -> Any:
    index = np.asarray(reference)
    found = Clustering(index, np.ones(len(index)), np.ones((len(index), 2)))
    return lambda patches: found


def pieces(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, *size, generator=generator) for size in sizes]


def test_each_query_meets_its_own_reference() -> None:
    refined = block()
    x = torch.arange(3.0).view(3, 1, 1, 1)
    with references() as kept:
        assert torch.equal(refined(x), x)
    with queries(kept.of([2, 0])):
        assert refined(torch.full((2, 1, 1, 1), 10.0)).flatten().tolist() == [8, 10]
    assert torch.equal(refined(x), x)  # outside of both
    assert kept[0] is x


def test_what_references_keep() -> None:
    x = torch.ones(1, 1, 1, 1)
    double = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(double.weight, 2.0)
    for refined, expected in (
        (RefinedBlock(double, Difference(), 0), 1),
        (RefinedBlock(double, Difference(), 0, kept="output"), 2),
    ):
        with references() as kept:
            refined(x)
        assert kept[0].item() == expected
    itself = RefinedBlock(double, Difference(), 0, kept="query")
    with queries(Kept()):
        assert itself(x).item() == 0
    nothing = RefinedBlock(double, Difference(), 0, kept="nothing")
    with queries(Kept()):
        assert nothing(x).item() == 1
    outside = RefinedBlock(double, Difference(), 0, adds=False)
    with queries(Kept({0: 3 * x})):
        assert outside(x).item() == (1 - 3) - 1


def test_both_paths_are_seen_and_the_reference_path_goes_on() -> None:
    refined = block()
    seen: list[Tensor] = []
    refined.refer.register_forward_hook(lambda module, args, out: seen.append(args[1]))
    x = torch.arange(3.0).view(3, 1, 1, 1)
    with both():
        assert torch.equal(refined(x), x)
    assert seen[0].flatten().tolist() == [2, 0, 1]


@torch.no_grad()
def test_batches_give_what_pairs_give() -> None:
    """Sizes that differ, two queries of one reference, an isolated patch; values as of each pair alone."""
    made = model().double()
    x = [p.double() for p in pieces((18, 18), (18, 18), (20, 23), (18, 18), (20, 23))]
    reference = (0, 0, 0, 3, 3)
    found = upscale_patches(made, x, grouped(*reference))
    small = upscale_patches(made, x, grouped(*reference), at_once=1)
    for n, (one, other) in enumerate(zip(found, small, strict=True)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        if reference[n] == n:
            with made.context(roles=REFERENCE):
                expected = made(x[n])
        else:
            with references() as kept, made.context(roles=REFERENCE):
                made(x[reference[n]])
            with queries(kept), made.context(roles=QUERY):
                expected = made(x[n])
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-10)
    assert not torch.equal(found[1], made(x[1]))  # fewer bits


@torch.no_grad()
@pytest.mark.parametrize("reference", [(0, 1, 2), (0, 0, 0), (1, 1, 1)])
def test_all_isolated_and_all_alike(reference: tuple[int, ...]) -> None:
    made = model()
    found = upscale_patches(made, pieces(*((18, 18),) * 3), grouped(*reference))
    assert all(x.isfinite().all() for x in found) and len(found) == 3


@torch.no_grad()
def test_a_stated_number_of_pixels_at_once() -> None:
    made = model()
    with made.passes() as passes:
        upscale_patches(made, pieces(*((18, 18),) * 5), grouped(0, 0, 0, 0, 0), at_once=2 * 18 * 18)
    assert [(c.roles[0], c.samples) for c in passes] == [(REFERENCE, 1), (QUERY, 2), (QUERY, 2)]


@torch.no_grad()
def test_a_stated_number_of_entries_of_cost_volumes_at_once() -> None:
    """Without pooling they are what needs the memory; values stay."""
    made = model(preprocess=False).double()
    x = [p.double() for p in pieces(*((18, 18),) * 3, *((18, 21),) * 2)]
    group = grouped(0, 0, 0, 0, 0)
    volume = (18 * 18) ** 2, 18 * 21 * 18 * 21
    with made.passes() as passes:
        found = upscale_patches(made, x, group, entries=2 * volume[0])
    assert [c.samples for c in passes] == [1, 2, 1, 1]
    with made.passes() as passes:
        whole = upscale_patches(made, x, group)
    assert [c.samples for c in passes] == [1, 2, 2]
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    pooled = model().double()
    with pooled.passes() as passes:  # 81 times as small
        upscale_patches(pooled, x, group, entries=volume[0])
    assert [c.samples for c in passes] == [1, 2, 2]


@torch.no_grad()
def test_patches_are_given_as_soon_as_they_are_known() -> None:
    made, x = model(), pieces(*((18, 18),) * 4)
    with made.passes() as passes:
        each = each_upscaled(made, x, grouped(0, 0, 2, 2), at_once=18 * 18)
        order = [(number, len(passes)) for number, _ in each]
    assert order == [(0, 1), (2, 2), (1, 3), (3, 4)]


def test_a_pair_is_the_two_halves_of_a_batch() -> None:
    made = model()
    x = torch.cat(pieces(*((18, 18),) * 4))
    with torch.no_grad(), made.passes() as passes:
        out = two_path(made, x)
        expected = upscale_patches(made, list(x.split(1)), grouped(0, 1, 0, 1))
    torch.testing.assert_close(out, torch.cat(expected), rtol=0, atol=1e-3)
    assert [c.roles for c in passes[:2]] == [(REFERENCE,) * 2, (QUERY,) * 2]


def test_mistakes() -> None:
    x = torch.ones(2, 1, 1, 1)
    with pytest.raises(InputError, match="found none"), queries(Kept()):
        block()(x)
    with pytest.raises(InputError, match="found those of 1"), queries(Kept({0: x[:1]})):
        block()(x)
    with pytest.raises(InputError, match="expected pairs"):
        two_path(model(), torch.rand(3, 3, 18, 18))
    made = model()
    with (
        torch.no_grad(),
        made.context(roles=[REFERENCE, QUERY]),
        pytest.raises(InputError, match="passes of their own"),
    ):
        made(torch.rand(2, 3, 18, 18))


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (torch.rand(1, 3, 18, 18).double(), "the patches are torch.float32 on cpu and torch.float64 on cpu"),
        (torch.zeros(1, 3, 18, 18, dtype=torch.uint8), "patch 1 is torch.uint8"),
        (np.zeros((1, 3, 18, 18), np.float32), "patch 1 is ndarray"),
        (torch.rand(3, 18, 18), r"patch 1 has shape \(3, 18, 18\): expected \(1, C, h, w\)"),
        (torch.rand(2, 3, 18, 18), r"patch 1 has shape \(2, 3, 18, 18\)"),
        (torch.rand(1, 3, 0, 18), r"patch 1 has shape \(1, 3, 0, 18\)"),
    ],
    ids=lambda x: "" if isinstance(x, str) else type(x).__name__,
)
def test_patches_of_other_shapes_and_kinds_are_refused(patch: Any, message: str) -> None:
    made = model()
    with pytest.raises(InputError, match=message):
        upscale_patches(made, [*pieces((18, 18)), patch], grouped(0, 0))
    assert made.together is not None
    with pytest.raises(InputError, match=message):
        dict(made.together([*pieces((18, 18)), patch]))


def checkpointed(made: sqlib.QuantizedModel, reentrant: bool) -> sqlib.QuantizedModel:
    """A copy whose blocks do not keep their activations."""
    made = copy.deepcopy(made)
    for block in made.network.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=reentrant)
    return made


def test_gradients_of_checkpointed_blocks() -> None:
    """What the backward pass computes again is of the path of the first time."""
    made = model().train()
    low = pairs(n=4)[0][0].requires_grad_()
    gradients = []
    for network in (made, checkpointed(made, reentrant=False)):
        two_path(network, low).square().mean().backward()
        gradients.append([p.grad for p in (low, *network.parameters())])
        low.grad = None
    assert any(g is not None and g.any() for g in gradients[0])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(
            torch.as_tensor(0 if plain is None else plain), torch.as_tensor(0 if again is None else again)
        )
    with pytest.raises(InputError, match="use_reentrant=False"):
        two_path(checkpointed(made, reentrant=True), low)
    with torch.no_grad():
        assert torch.equal(two_path(checkpointed(made, reentrant=True), low), two_path(made, low))
