"""ClustBlock: the equations, the rules the paper leaves open, and odd sets of patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sqlib.errors import InputError
from sqlib.reference.clustering import (
    CHAINS,
    ClustBlock,
    Cluster,
    affinity,
    assign,
    class_affinity,
    cosine_similarity,
    patch_affinity,
    settle,
)
from sqlib.reference.comparators import ScanHead, kmeans
from sqlib.reference.extractor import FeatureExtractor


class Means(nn.Module):
    """Mean colours as features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def pointers(*pointed: int) -> np.ndarray:
    return np.array(pointed, np.int64)


def same(n: int) -> np.ndarray:
    """Features of n patches that are all similar."""
    return np.ones((n, 3))


def test_equations_2_and_3_entry_by_entry() -> None:
    v = np.random.default_rng(0).normal(size=(5, 3)) * 4
    a, a2, m = class_affinity(v), patch_affinity(v), affinity(v)
    for i in range(5):
        for j in range(3):
            assert a[i, j] == pytest.approx(np.exp(v[i, j]) / sum(np.exp(v[i, k]) for k in range(3)))
            assert a2[j, i] == pytest.approx(np.exp(v[i, j]) / sum(np.exp(v[k, j]) for k in range(5)))
    for i in range(5):
        for j in range(5):
            assert m[i, j] == pytest.approx(sum(a[i, c] * a2[c, j] for c in range(3)))
    assert m.sum(1) == pytest.approx(np.ones(5))


def test_large_scores_do_not_overflow() -> None:
    v = np.array([[1e4, 0.0], [0.0, -1e4]])
    assert np.isfinite(affinity(v)).all()


@pytest.mark.parametrize("chains", CHAINS)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=n, max_size=n)
    ),
    st.floats(-1, 1),
)
def test_a_reference_is_no_query_and_queries_are_similar(
    chains: str, rows: list[list[int]], tau: float
) -> None:
    found = assign(np.array(rows, float), tau, chains=chains)
    assert (found.reference[found.reference] == found.reference).all()
    assert (found.similarity[found.is_query] >= tau).all()
    assert (found.similarity[~found.is_query] == 1).all()
    assert set(found.reference) == set(found.references)
    assert found.query_share == found.is_query.mean() < 1


@pytest.mark.parametrize("chains", CHAINS)
@given(st.lists(st.integers(0, 7), min_size=8, max_size=8))
def test_so_do_all_pointers(chains: str, pointed: list[int]) -> None:
    found = settle(same(8), pointers(*pointed), 0.5, chains=chains)
    assert (found.reference[found.reference] == found.reference).all()


@pytest.mark.parametrize(
    ("chains", "chain", "circle"),
    [
        ("promote", [0, 0, 1, 2], [0, 1, 0]),
        ("follow", [0, 0, 0, 0], [0, 0, 0]),
        ("isolate", [0, 0, 2, 3], [0, 0, 0]),
    ],
)
def test_chains_and_mutual_references(chains: str, chain: list[int], circle: list[int]) -> None:
    """3 -> 2 -> 1 -> 0 (which is its own), and 0 <-> 1 with 2 -> 0."""
    expected = {"promote": [0, 1, 2, 2], "follow": chain, "isolate": chain}[chains]
    assert settle(same(4), pointers(0, 0, 1, 2), 0.5, chains=chains).reference.tolist() == expected
    assert settle(same(3), pointers(1, 0, 0), 0.5, chains=chains).reference.tolist() == circle


def test_of_a_circle_the_smallest_index_is_the_reference() -> None:
    found = settle(same(5), pointers(3, 3, 1, 4, 1), 0.5, chains="follow")  # 1 -> 3 -> 4 -> 1
    assert found.reference.tolist() == [1, 1, 1, 1, 1]


def test_following_asks_for_similarity_to_the_last_reference() -> None:
    """2 is similar to 1, and 1 to 0, but 2 is not similar to 0."""
    v = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = settle(v, pointers(0, 0, 1), 0.7, chains="follow")
    assert found.reference.tolist() == [0, 0, 2]
    assert found.similarity == pytest.approx([1, 2**-0.5, 1])
    assert settle(v, pointers(0, 0, 1), 0.7, chains="promote").reference.tolist() == [0, 1, 1]


@pytest.mark.parametrize("chains", CHAINS)
@pytest.mark.parametrize("tau", [-1.0, 0.5, 1.0])
class TestOddSets:
    def test_one_patch(self, chains: str, tau: float) -> None:
        found = assign(np.array([[0.3, -2.0]]), tau, chains=chains)
        assert found.reference.tolist() == [0]
        assert found.query_share == 0

    def test_all_identical(self, chains: str, tau: float) -> None:
        found = assign(np.tile([0.3, 0.1, -2.7], (6, 1)), tau, chains=chains)
        assert found.reference.tolist() == [0] * 6
        assert found.similarity.tolist() == [1] * 6

    def test_features_of_norm_zero(self, chains: str, tau: float) -> None:
        found = assign(np.array([[0.0, 0.0], [5.0, 1.0], [0.0, 0.0]]), tau, chains=chains)
        assert np.isfinite(found.similarity).all()
        if tau > 0:
            assert found.reference.tolist() == [0, 1, 2]


@pytest.mark.parametrize("chains", CHAINS)
def test_all_isolated(chains: str) -> None:
    found = assign(8 * np.eye(5), 0.5, chains=chains)
    assert found.reference.tolist() == list(range(5))


def test_cosine_similarity() -> None:
    v = np.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0], [0.0, 0.0]])
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert cosine_similarity(v) == pytest.approx(np.array(expected, float))


@pytest.mark.parametrize("size", [1e-308, 1e-200, 1e-160, 1e160, 1e200, 1e308])
def test_similarity_of_very_small_and_large_features(size: float) -> None:
    v = np.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0], [0.0, 0.0]]) / 8
    assert np.array_equal(cosine_similarity(v * 2.0 ** np.round(np.log2(size))), cosine_similarity(v))
    assert cosine_similarity(v * size) == pytest.approx(cosine_similarity(v))
    assert assign(np.full((3, 2), size)).reference.tolist() == [0, 0, 0]
    assert np.isfinite(affinity(size * np.array([[1.0, -1.0], [-1.0, 1.0]]))).all()


def test_patches_that_are_alike_point_at_the_same_one() -> None:
    """Here at one that is not similar enough, and each is its own reference."""
    v = np.array([[1.0, 0.0], [5.0, 1.0], [1.0, 0.0]])
    assert affinity(v).argmax(1).tolist() == [1, 1, 1]
    assert assign(v, 0.99).reference.tolist() == [0, 1, 2]
    assert assign(v, 0.9).reference.tolist() == [1, 1, 1]


@pytest.mark.parametrize("tau", [-1.01, 1.5, float("nan"), "0.5", None, True])
def test_tau_that_is_no_cosine(tau: object) -> None:
    with pytest.raises(InputError, match="tau"):
        assign(same(2), tau)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tau"):
        ClustBlock(Means(), tau=tau)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((0, 3)),
        np.zeros(3),
        [[1.0, np.nan]],
        [[np.inf, 1.0]],
        [["a", "b"]],
        [[1.0], [1.0, 2.0]],
        [[10**400]],
        None,
    ],
)
def test_features_that_are_none(features: object) -> None:
    with pytest.raises(InputError, match="features"):
        assign(features)


@pytest.mark.parametrize("chains", ["none", None, ["promote"], np.array(["promote", "follow"])])
def test_unknown_chains(chains: Any) -> None:
    with pytest.raises(InputError, match="promote"):
        ClustBlock(Means(), chains=chains)


def test_patches_of_different_sizes_are_batched_by_size() -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = [(72, 72), (72, 80), (72, 72), (114, 80), (72, 80)]
    patches = [torch.rand(3, *size, generator=rng) * torch.rand(3, 1, 1, generator=rng) for size in sizes]
    mixed = [p if i % 2 else p[None] for i, p in enumerate(patches)]
    found = ClustBlock(Means())(mixed)
    assert found.features == pytest.approx(torch.stack([p.mean((1, 2)) for p in patches]).numpy(), abs=1e-6)


CLUSTERS = {
    "clustblock": ClustBlock(),
    "pixels": lambda patches: kmeans(patches, 2),
    "gradients": lambda patches: kmeans(patches, 2, on="gradients"),
    "scan": ScanHead(),
}
GOOD = torch.rand(3, 24, 24)


def spoilt(value: float) -> torch.Tensor:
    """A column of it is not finite."""
    return GOOD.index_fill(2, torch.tensor(5), value)


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
class TestPatches:
    """What one clustering accepts or refuses, all do."""

    @pytest.mark.parametrize(
        ("patches", "message"),
        [
            ([], "no patches are given"),
            (None, "patches are NoneType; expected a list"),
            (5, "patches are int"),
            (torch.tensor(0.5), "patches are Tensor"),
            ([GOOD, None], "patch 1 is NoneType; expected a floating-point tensor"),
            ([GOOD, GOOD.numpy()], "patch 1 is ndarray"),
            (GOOD.numpy(), "patch 0 is ndarray"),
            ("patches", "patch 0 is str"),
            ([GOOD, torch.zeros(3, 24, 24, dtype=torch.uint8)], r"patch 1 is torch\.uint8"),
            ([GOOD, torch.zeros(3, 24, 24, dtype=torch.complex64)], r"patch 1 is torch\.complex64"),
            ([GOOD, torch.rand(1, 24, 24)], r"patch 1 is .* of shape \(1, 24, 24\)"),
            ([GOOD, torch.rand(24, 24)], "patch 1"),
            ([GOOD, torch.rand(3, 0, 24)], "patch 1"),
            ([GOOD, torch.rand(0, 3, 24, 24)], "patch 1"),
            ([torch.rand(2, 3, 24, 24)] * 2, r"patch 0 .* \(2, 3, 24, 24\)"),
            ([GOOD, torch.rand(2, 3, 24, 24)], "patch 1"),
            ([GOOD, spoilt(torch.nan)], "patch 1 contains NaN or infinity"),
            ([GOOD, spoilt(torch.inf)], "patch 1 contains NaN or infinity"),
            ([GOOD, spoilt(-torch.inf).half()], "patch 1 contains NaN or infinity"),
            ([GOOD, 1e300 * GOOD.double()], "patch 1 contains NaN or infinity"),  # in float32
        ],
    )
    def test_refused(self, cluster: Cluster, patches: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            cluster(patches)

    @pytest.mark.parametrize(
        "patches",
        [
            [GOOD, torch.rand(1, 3, 24, 30), torch.rand(3, 12, 40)],
            [GOOD.half(), GOOD.bfloat16(), GOOD.double(), GOOD[:, :9].half()],
            [GOOD.clone().requires_grad_(), torch.rand(3, 9, 9, requires_grad=True)],
            (GOOD, GOOD),
            torch.rand(3, 3, 24, 24),
        ],
        ids=["sizes", "dtypes", "gradient", "tuple", "tensor"],
    )
    def test_accepted(self, cluster: Cluster, patches: Any) -> None:
        assert len(cluster(patches).reference) == len(patches)


@pytest.mark.parametrize("given", [None, 5, ["textures"], FeatureExtractor])
def test_extractors_that_are_none(given: Any) -> None:
    with pytest.raises(InputError, match="extractor="):
        ClustBlock(given)


def test_numpy_numbers() -> None:
    v = np.random.default_rng(0).normal(size=(9, 3))
    for tau in (np.float32(0.5), np.float16(0.5), np.float64(0.5), np.int64(0)):
        assert assign(v, tau).reference.tolist() == assign(v, float(tau)).reference.tolist()  # type: ignore[arg-type]
    assert type(ClustBlock(Means(), tau=np.float32(0.5)).tau) is float  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tau"):
        assign(v, np.bool_(True))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_in_any_floating_dtype(dtype: torch.dtype) -> None:
    v = torch.tensor([[1.0, 0.0], [5.0, 1.0], [1.0, 0.5]], dtype=dtype, requires_grad=True)
    assert assign(v).reference.tolist() == assign(v.tolist()).reference.tolist()
