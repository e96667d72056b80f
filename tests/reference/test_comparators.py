"""k-means and the SCAN-like head: clusterings with the same invariant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.errors import InputError
from sqlib.reference.clustering import Clustering
from sqlib.reference.comparators import ScanHead, by_label, gradients, kmeans, pixels, train_head
from sqlib.reference.extractor import FeatureExtractor, extractor, single


def stripes(horizontal: bool, noise: float, seed: int, size: tuple[int, int] = (72, 72)) -> torch.Tensor:
    """Stripes 6 pixels wide, with some noise."""
    across = torch.arange(size[0])[:, None] if horizontal else torch.arange(size[1])
    wave = ((across // 6) % 2).float().expand(size)
    rng = torch.Generator().manual_seed(seed)
    return (wave + noise * torch.rand(3, *size, generator=rng)).clamp(0, 1)


PATCHES = [stripes(i % 2 == 0, 0.1, i, (72, 72 + 6 * i)) for i in range(6)]


def check(found: Clustering, n: int, tau: float) -> None:
    assert found.reference.shape == (n,)
    assert (found.reference[found.reference] == found.reference).all()
    assert (found.similarity[found.is_query] >= tau).all()


def test_gradients_tell_directions_apart() -> None:
    found = kmeans(PATCHES, 2, on="gradients")
    check(found, 6, -1)
    assert len(found.references) == 2
    assert len(set(found.reference[::2])) == len(set(found.reference[1::2])) == 1
    histogram = gradients(stripes(False, 0, 0)[None])
    assert histogram.argmax() == 0
    assert gradients(stripes(True, 0, 0)[None]).argmax() == 4


def test_pixels_ignore_the_mean_colour() -> None:
    x = torch.rand(1, 3, 72, 80) / 2
    assert torch.allclose(pixels(x), pixels(x + 0.3), atol=1e-6)
    assert pixels(x).shape == (192,)


@pytest.mark.parametrize("on", ["pixels", "gradients"])
@pytest.mark.parametrize("tau", [-1.0, 0.9, 1.0])
def test_kmeans(on: str, tau: float) -> None:
    check(kmeans(PATCHES, 3, on=on, tau=tau), 6, tau)


def test_the_reference_is_the_member_nearest_to_the_centre() -> None:
    waves = torch.stack([stripes(False, 0, 0), *(stripes(False, 0.6, i) for i in range(1, 5))])
    patches = [*waves[1:], waves.mean(0)]  # the last lies between the others
    found = kmeans(patches, 1)
    assert found.references.tolist() == [4]
    distance = torch.stack([pixels(p[None]) for p in patches]).sub(pixels(waves.mean(0)[None])).norm(dim=1)
    assert distance.argmin() == 4


def test_kmeans_of_odd_sets() -> None:
    assert kmeans(PATCHES[:1], 3).reference.tolist() == [0]
    assert kmeans([PATCHES[0]] * 4, 3).reference.tolist() == [0] * 4
    flat = [torch.full((3, 72, 72), 0.5)] * 3
    assert kmeans(flat, 2, on="gradients", tau=0.5).query_share == 0


def test_the_best_of_a_label_is_the_reference() -> None:
    found = by_label(np.ones((5, 2)), np.array([0, 1, 0, 1, 0]), np.array([1.0, 2, 3, 2, 3]), 0.5)
    assert found.reference.tolist() == [2, 1, 2, 1, 2]


def test_scan_head_learns() -> None:
    torch.manual_seed(0)
    crops = torch.stack([stripes(i % 2 == 0, 0.3, i, (48, 48)) for i in range(24)])
    network, losses = train_head(crops, FeatureExtractor(4), steps=20)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    check(ScanHead(network, tau=0.2)(PATCHES), 6, 0.2)
    with torch.no_grad():
        mean = network(crops).softmax(1).mean(0)
    assert -(mean * mean.log()).sum() > np.log(4) - 0.3  # the classes are used alike


def test_packaged_head() -> None:
    check(ScanHead()(PATCHES), 6, 0.5)
    with pytest.raises(InputError, match="tau"):
        ScanHead(tau=1.5)


@pytest.mark.parametrize(
    "options",
    [
        {"clusters": 0},
        {"clusters": True},
        {"clusters": 2, "on": "colour"},
        {"clusters": 2, "on": ["pixels"]},
        {"clusters": 2, "on": None},
        {"clusters": 2, "tau": 2.0},
        {"clusters": 2, "seed": -1},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        kmeans(PATCHES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("on", ["pixels", "gradients"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_kmeans_in_any_floating_dtype(on: str, dtype: torch.dtype) -> None:
    coarse = [p.to(torch.bfloat16).to(dtype).requires_grad_() for p in PATCHES]  # all have the same values
    expected = kmeans([p.detach().float() for p in coarse], 3, on=on)
    found = kmeans(coarse, 3, on=on)
    assert found.reference.tolist() == expected.reference.tolist()
    assert np.array_equal(found.features, expected.features)


@pytest.mark.parametrize("on", ["pixels", "gradients"])
def test_kmeans_enlarges_small_patches_as_the_extractor_does(on: str) -> None:
    small = [torch.rand(3, 12, 40), torch.rand(1, 3, 1, 1), torch.rand(3, 15, 15)]
    assert np.array_equal(kmeans(small, 2, on=on).features, kmeans(single(small), 2, on=on).features)


def test_numpy_numbers() -> None:
    found = kmeans(PATCHES, np.int64(2), tau=np.float32(0.5), seed=np.uint8(0))  # type: ignore[arg-type]
    assert found.reference.tolist() == kmeans(PATCHES, 2, tau=0.5).reference.tolist()
    assert type(ScanHead(tau=np.float32(0.5)).tau) is float  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["x", 5, FeatureExtractor])
def test_heads_that_are_none(network: object) -> None:
    with pytest.raises(InputError, match="network="):
        ScanHead(network)  # type: ignore[arg-type]


def test_a_head_whose_scores_are_not_finite() -> None:
    network = FeatureExtractor(4)
    torch.nn.init.constant_(network.head.bias, torch.nan)
    with pytest.raises(InputError, match="features contain NaN"):
        ScanHead(network)(PATCHES)


def test_crops_to_learn_from_in_double_and_with_gradient() -> None:
    torch.manual_seed(0)
    crops, start = torch.rand(6, 3, 24, 24), FeatureExtractor(4)
    expected = train_head(crops, start, steps=2)[1]
    for given in (crops.double(), crops.clone().requires_grad_()):
        losses = train_head(given, start.to(given.dtype), steps=np.int64(2), seed=np.int64(0))[1]  # type: ignore[arg-type]
        assert losses == pytest.approx(expected, rel=1e-5)
        start.float()


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        ([torch.rand(3, 48, 48)] * 2, "patches are list"),
        (None, "patches are NoneType"),
        (np.zeros((2, 3, 48, 48), np.float32), "patches are ndarray"),
        (torch.zeros(2, 3, 48, 48, dtype=torch.uint8), "floating point"),
        (torch.zeros(2, 3, 9, 48), "15 pixels or more"),
        (torch.zeros(0, 3, 48, 48), "crops: 0 given"),
        (torch.stack([torch.zeros(3, 48, 48), torch.full((3, 48, 48), torch.inf)]), "patch 1 contains NaN"),
    ],
)
def test_crops_that_are_none(crops: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_head(crops, FeatureExtractor(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [extractor(), None, "textures"])
def test_networks_that_no_head_starts_from(start: object) -> None:
    with pytest.raises(InputError, match="expected a FeatureExtractor in full precision"):
        train_head(torch.rand(2, 3, 48, 48), start)  # type: ignore[arg-type]


def test_no_patches() -> None:
    with pytest.raises(InputError, match="no patches"):
        kmeans([], 2)
    with pytest.raises(InputError, match="1 given"):
        train_head(torch.rand(1, 3, 48, 48), FeatureExtractor(4))
