"""Edges of patches, against SciPy's filters and against what is known of simple images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sqlib.engine import Context
from sqlib.errors import InputError
from sqlib.quantizers import edge_scores, image_gradients
from sqlib.quantizers.edges import picture

LAPLACIAN = np.array([[2, 0, 2], [0, -8, 0], [2, 0, 2]])


def noise(shape, seed=0, kind=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def scipy_score(levels):
    """Of an (H, W) array of integers from 0 to 255."""
    return np.round(np.minimum(np.abs(ndimage.convolve(levels, LAPLACIAN, mode="mirror")), 255).mean(), 2)


@pytest.mark.parametrize("shape", [(3, 1, 7, 9), (2, 1, 2, 3), (2, 1, 1, 5), (2, 1, 6, 1), (1, 1, 1, 1)])
def test_scores_are_those_of_scipy_on_8_bit_gray(shape):
    levels = np.random.default_rng(0).integers(0, 256, shape)
    found = edge_scores(torch.as_tensor(levels / 255))
    assert found.tolist() == [round(100 * scipy_score(one[0])) for one in levels]
    assert torch.equal(edge_scores(torch.as_tensor(levels.astype(np.float32)), data_range=255), found)


def test_gray_is_opencvs_integer_formula():
    """(9798 R + 19235 G + 3735 B + 2^14) >> 15: 254 * 19235 / 2^15 = 149.1, and 76.4, 29.4 of white parts."""
    levels = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 200, 30]])
    x = (levels / 255).view(5, 3, 1, 1).expand(5, 3, 1, 2).clone()
    x[..., 1] = 0  # beside a black pixel: |Laplacian| is 4 of its gray level, as both rows mirror
    gray = [76, 150, 29, 255, 124]
    want = [np.array([[g, 0]]) for g in gray]
    assert edge_scores(x).tolist() == [round(100 * scipy_score(w)) for w in want]


def test_a_constant_patch_has_no_edges():
    for value in (0.0, 0.3, 1.0):
        x = torch.full((2, 3, 8, 8), value)
        assert edge_scores(x).tolist() == [0, 0]
        assert torch.equal(image_gradients(x), torch.zeros(2, 2))


def test_saturation_of_the_release_leaves_black_and_white():
    """255 times too bright: every level from 1 on is white, so only black pixels have edges."""
    levels = np.random.default_rng(1).integers(0, 3, (1, 1, 12, 12))
    binary = np.where(levels > 0, 255, 0)
    found = edge_scores(torch.as_tensor(levels / 255), saturated=True)
    assert found.tolist() == [round(100 * scipy_score(binary[0, 0]))]
    assert edge_scores(0.1 + 0.9 * noise((2, 3, 8, 8)), saturated=True).tolist() == [0, 0]


def test_values_outside_the_range_are_clipped():
    x = torch.tensor([[-3.0, 0.5, 7.0, 1.0]]).view(1, 1, 2, 2)
    assert torch.equal(edge_scores(x), edge_scores(x.clamp(0, 1)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_of_values_that_are_not_finite_are_refused(bad):
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, 1, 1] = bad
    with pytest.raises(InputError, match="not finite"):
        edge_scores(x)


@pytest.mark.parametrize("shape", [(3, 3, 7, 9), (2, 1, 1, 5), (1, 1, 1, 1)])
def test_gradients_are_sobel_over_8_with_replicated_borders(shape):
    x = noise(shape, kind=torch.float64)
    found = image_gradients(x).numpy()
    weights = (1,) if shape[1] == 1 else (0.299, 0.587, 0.114)
    for one, (gx, gy) in zip(x.numpy(), found, strict=True):
        gray = sum(w * channel for w, channel in zip(weights, one, strict=True))
        for axis, value in ((1, gx), (0, gy)):
            want = np.abs(ndimage.sobel(gray, axis=axis, mode="nearest") / 8).mean()
            np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-15)


def test_a_ramp_has_the_gradient_of_its_slope_inside():
    x = torch.arange(100.0).view(1, 1, 1, 100).expand(1, 1, 5, 100)
    gx, gy = image_gradients(x)[0].tolist()
    assert gx == pytest.approx((98 + 2 * 0.5) / 100) and gy == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_a_patch_has_the_same_edges_in_any_batch(samples, kind, height, width, seed):
    x = noise((samples, 3 if kind > 1 else 1, height, width), seed)
    for measure in (edge_scores, image_gradients):
        assert torch.equal(measure(x), torch.cat([measure(one) for one in x.split(1)]))


def test_half_precision_images_are_measured_in_single():
    x = noise((2, 3, 8, 8)).half()
    assert torch.equal(image_gradients(x), image_gradients(x.float()))
    assert torch.equal(edge_scores(x), edge_scores(x.float()))


def test_the_images_of_a_pass():
    context, x = Context(), noise((2, 3, 4, 4))
    context.begin((torch.zeros(2),), {"x": x})
    assert torch.equal(picture(context), x)
    for shape in [(2, 4, 8, 8), (2, 3, 8)]:
        context = Context()
        context.begin((torch.zeros(shape),), {})
        with pytest.raises(InputError, match=r"gray or RGB .*; its tensors are \(2, "):
            picture(context)
    with pytest.raises(InputError, match="its tensors are none"):
        picture(None)
