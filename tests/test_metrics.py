"""Scores equal scikit-image on the same planes; each protocol is what its name says."""

from __future__ import annotations

import json
import warnings
from math import inf, log10

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sqlib.errors import InputError
from sqlib.metrics import DEFAULT, PROTOCOLS, Protocol, luma, protocol, psnr, ssim


def noisy(photo: np.ndarray, sigma: float = 12.0, seed: int = 0) -> np.ndarray:
    """A network-like output: float32, not rounded, leaving 0..255 here and there."""
    return (photo + np.random.default_rng(seed).normal(0, sigma, photo.shape)).astype(np.float32)


def studio_luma(rgb: np.ndarray) -> np.ndarray:
    x = rgb.astype(np.float64)
    return 16 + (65.481 * x[..., 0] + 128.553 * x[..., 1] + 24.966 * x[..., 2]) / 255


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    return float(
        structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("sigma", [0.6, 5, 40])
def test_default_equals_scikit_image(photo: np.ndarray, scale: int, sigma: float) -> None:
    sr = noisy(photo, sigma)
    inner = slice(scale, -scale)
    x = studio_luma(np.clip(np.rint(sr), 0, 255))[inner, inner]
    y = studio_luma(photo)[inner, inner]
    assert psnr(sr, photo, scale=scale) == pytest.approx(
        peak_signal_noise_ratio(y, x, data_range=255), abs=1e-4
    )
    assert ssim(sr, photo, scale=scale) == pytest.approx(reference_ssim(x, y), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(11, 40),
    st.integers(11, 40),
    st.sampled_from(["flat", "noise", "steps"]),
    st.integers(0, 2**32 - 1),
)
def test_equals_scikit_image_on_any_image(height: int, width: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hr = np.full((height, width, 3), rng.integers(256), dtype=np.uint8)
    if kind == "noise":
        hr = rng.integers(0, 256, hr.shape, dtype=np.uint8)
    elif kind == "steps":
        hr[: height // 2] = 255 - hr[0, 0]
    sr = np.clip(hr + rng.integers(-9, 10, hr.shape), 0, 255).astype(np.uint8)
    rules = Protocol(crop=0)
    x, y = studio_luma(sr), studio_luma(hr)
    assert ssim(sr, hr, rules) == pytest.approx(reference_ssim(x, y), abs=1e-9)
    if not np.array_equal(x, y):
        assert psnr(sr, hr, rules) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=255), abs=1e-9)


def test_rgb_equals_scikit_image(photo: np.ndarray) -> None:
    sr = np.clip(np.rint(noisy(photo)), 0, 255).astype(np.uint8)
    rules = Protocol(color="RGB", crop=0)
    assert psnr(sr, photo, rules) == pytest.approx(
        peak_signal_noise_ratio(photo, sr, data_range=255), abs=1e-9
    )
    expected = structural_similarity(
        sr.astype(np.float64),
        photo.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )
    assert ssim(sr, photo, rules) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("color", "white"), [("Y-BT601", 235.0), ("Y-EDSR", 235.0002), ("Y-CADyQ", 235.859)])
def test_luma_of_black_and_white(color: str, white: float) -> None:
    ends = luma(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8), color)
    assert ends[0, 0] == 16
    assert ends[0, 1] == pytest.approx(white, abs=1e-4)


def test_luma_is_not_rounded(photo: np.ndarray) -> None:
    plane = luma(photo)
    assert plane.dtype == np.float64
    assert plane.shape == photo.shape[:2]
    np.testing.assert_allclose(plane, studio_luma(photo), atol=1e-12)
    assert np.abs(plane - np.rint(plane)).max() > 0.4


def test_edsr_is_the_luma_of_the_difference(photo: np.ndarray) -> None:
    sr = noisy(photo)
    diff = (np.clip(np.rint(sr), 0, 255).astype(np.float64) - photo)[4:-4, 4:-4] / 255
    valid = diff @ np.array([65.738, 129.057, 25.064]) / 256
    assert psnr(sr, photo, "edsr", scale=4) == pytest.approx(-10 * log10(np.mean(valid**2)), abs=1e-9)


def test_edsr_validation_is_rgb_with_six_more_pixels(photo: np.ndarray) -> None:
    sr = noisy(photo)
    diff = (np.clip(np.rint(sr), 0, 255).astype(np.float64) - photo)[10:-10, 10:-10] / 255
    assert psnr(sr, photo, "edsr-div2k", scale=4) == pytest.approx(-10 * log10(np.mean(diff**2)), abs=1e-9)


def test_cadyq_takes_ssim_on_its_own_plane(photo: np.ndarray) -> None:
    sr = noisy(photo)
    assert psnr(sr, photo, "cadyq", scale=4) == psnr(sr, photo, "edsr", scale=4)
    weights = np.array([65.738, 129.057, 25.064]) / 255
    planes = [
        (image.astype(np.float64) @ weights + 16)[4:-4, 4:-4]
        for image in (np.clip(np.rint(sr), 0, 255), photo)
    ]
    assert ssim(sr, photo, "cadyq", scale=4) == pytest.approx(reference_ssim(*planes), abs=1e-9)
    assert ssim(sr, photo, "cadyq", scale=4) != ssim(sr, photo, "edsr", scale=4)


@pytest.mark.parametrize("name", ["basicsr", "swinir", "matlab"])
def test_presets_that_are_the_default_under_another_name(name: str) -> None:
    assert PROTOCOLS[name] == DEFAULT
    assert PROTOCOLS[name].id == DEFAULT.id


def test_integer_luma(photo: np.ndarray) -> None:
    sr = np.clip(np.rint(noisy(photo)), 0, 255).astype(np.uint8)
    x, y = (np.floor(studio_luma(image)[4:-4, 4:-4] + 0.5) for image in (sr, photo))
    expected = peak_signal_noise_ratio(y, x, data_range=255)
    assert psnr(sr, photo, "matlab-uint8", scale=4) == pytest.approx(expected, abs=1e-9)


def test_rounding_modes(photo: np.ndarray) -> None:
    sr = noisy(photo, 60)
    border = slice(4, -4)
    y = studio_luma(photo)[border, border]
    for mode, image in {
        "uint8": np.clip(np.rint(sr), 0, 255),
        "clip": np.clip(sr, 0, 255),
        "none": sr,
    }.items():
        expected = peak_signal_noise_ratio(y, studio_luma(image)[border, border], data_range=255)
        assert psnr(sr, photo, Protocol(rounding=mode), scale=4) == pytest.approx(expected, abs=1e-9)
    assert PROTOCOLS["elan"].rounding == "clip"


def test_the_constants_over_256_cost_less_than_a_thousandth(photo: np.ndarray) -> None:
    sr = noisy(photo)
    assert abs(psnr(sr, photo, "edsr", scale=4) - psnr(sr, photo, scale=4)) < 1e-3


def test_equal_images(photo: np.ndarray) -> None:
    assert psnr(photo, photo, scale=4) == inf
    assert ssim(photo, photo, scale=4) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_symmetric_and_without_side_effects(photo: np.ndarray, metric: object) -> None:
    assert callable(metric)
    sr = np.clip(np.rint(noisy(photo)), 0, 255).astype(np.uint8)
    before = sr.copy(), photo.copy()
    assert metric(sr, photo, scale=2) == pytest.approx(metric(photo, sr, scale=2), abs=1e-12)
    assert np.array_equal(sr, before[0])
    assert np.array_equal(photo, before[1])


def test_more_noise_is_a_lower_score(photo: np.ndarray) -> None:
    outputs = [noisy(photo, sigma) for sigma in (1, 4, 16, 64)]
    for metric in (psnr, ssim):
        scores = [metric(sr, photo, scale=4) for sr in outputs]
        assert scores == sorted(scores, reverse=True)


def test_what_lies_in_the_border_does_not_count(photo: np.ndarray) -> None:
    sr = np.clip(np.rint(noisy(photo)), 0, 255).astype(np.uint8)
    other = sr.copy()
    other[:4] = other[-4:] = 0
    other[:, :4] = other[:, -4:] = 255
    assert psnr(other, photo, scale=4) == psnr(sr, photo, scale=4)
    assert psnr(other, photo, scale=3) != psnr(sr, photo, scale=3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_survive_json(name: str) -> None:
    rules = PROTOCOLS[name]
    assert Protocol.from_dict(json.loads(json.dumps(rules.to_dict()))) == rules
    assert protocol(name) is rules
    assert protocol(rules) is rules


def test_ids_tell_protocols_apart() -> None:
    assert DEFAULT.id == "Y-BT601/crop=scale/uint8"  # records refer to it
    for a in PROTOCOLS.values():
        for b in PROTOCOLS.values():
            assert (a.id == b.id) == (a == b)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"color": "Lab"}, "unknown colour plane 'Lab'"),
        ({"ssim_color": "Lab"}, "unknown colour plane 'Lab'"),
        ({"rounding": "up"}, "unknown rounding 'up'"),
        ({"crop": -1}, "crop is -1"),
        ({"crop": "shave"}, "crop is 'shave'"),
        ({"crop": True}, "crop is True"),
    ],
)
def test_bad_protocols(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Protocol(**fields)  # type: ignore[arg-type]


def test_unknown_names(photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="unknown protocol 'edrs'; known: default"):
        psnr(photo, photo, "edrs", scale=2)
    with pytest.raises(InputError, match="unknown protocol fields"):
        Protocol.from_dict({"colour": "RGB"})
    with pytest.raises(InputError, match="unknown luma"):
        luma(photo, "RGB")


def test_bad_images(photo: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"one shape \(H, W, 3\)"):
        psnr(photo[:-1], photo, scale=2)
    with pytest.raises(InputError, match=r"one shape \(H, W, 3\)"):
        psnr(photo[..., 0], photo[..., 0], scale=2)
    with pytest.raises(InputError, match="pass scale="):
        psnr(photo, photo)
    with pytest.raises(InputError, match="scale is 0"):
        psnr(photo, photo, scale=0)
    broken = photo.astype(np.float32)
    broken[50, 50, 1] = np.nan
    for rounding in ("uint8", "clip", "none"):
        with pytest.raises(InputError, match="NaN or infinite"):
            psnr(broken, photo, Protocol(rounding=rounding), scale=2)


def test_smaller_than_the_crop_or_the_window() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    with pytest.raises(InputError, match="1 x 1 pixels is smaller than the crop of 4 per side"):
        psnr(pixel, pixel, scale=4)
    small = np.zeros((8, 30, 3), np.uint8)
    with pytest.raises(InputError, match="smaller than the crop"):
        psnr(small, small, scale=4)
    almost = np.zeros((18, 30, 3), np.uint8)
    assert psnr(almost, almost, scale=4) == inf
    with pytest.raises(InputError, match="at least 11 x 11 pixels, 10 x 22 are left"):
        ssim(almost, almost, scale=4)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1)])
def test_two_images_with_white_at_one_are_an_error(photo, metric, dtype, low: int, high: int) -> None:
    hr = (photo / 255 * (high - low) + low).astype(dtype)
    sr = hr + dtype(0.03) * np.sin(np.arange(hr.size)).reshape(hr.shape).astype(dtype)
    with pytest.raises(InputError, match=rf"0\.\.255, got two images in {sr.min():.4g}\.\.{sr.max():.4g}"):
        metric(sr, hr, scale=4)
    with pytest.raises(InputError, match="multiply both by 255"):
        metric(hr, hr, scale=4)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_one_image_with_white_at_one_is_a_warning(photo: np.ndarray, metric) -> None:
    unit = (photo / 255).astype(np.float32)
    for pair in ((unit, photo), (photo, unit), (unit, photo.astype(np.float32))):
        with pytest.warns(UserWarning, match=r"images lie in .*0\.\.") as seen:
            metric(*pair, scale=4)
        assert len(seen) == 1 and seen[0].filename == __file__


def test_the_same_image_in_any_number_type_has_the_same_score(photo: np.ndarray) -> None:
    sr = np.clip(np.rint(noisy(photo)), 0, 255).astype(np.uint8)
    expected = psnr(sr, photo, scale=4), ssim(sr, photo, scale=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float16, np.float32, np.float64, np.int16, np.uint16, np.int64):
            for pair in ((sr.astype(dtype), photo), (sr, photo.astype(dtype))):
                assert (psnr(*pair, scale=4), ssim(*pair, scale=4)) == expected


def test_dark_images_are_scored_without_a_word(photo: np.ndarray) -> None:
    """A black patch, and what networks make of it, is no image in 0..1."""
    black = np.zeros((24, 24, 3), np.uint8)
    near = np.full((24, 24, 3), 0.3, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert psnr(near, black, scale=2) == inf  # rounds to black
        assert psnr(near, black, Protocol(rounding="none", color="RGB"), scale=2) == pytest.approx(
            10 * log10(255**2 / 0.09), abs=1e-4
        )
        assert psnr(black.astype(np.float32), photo[:24, :24], scale=2) < 20
        assert psnr(black.astype(np.float32), black.astype(np.float64), scale=2) == inf


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((24, 24, 3), 40000, np.uint16), r"uint16 in 40000\.\.40000: divide 16-bit samples by 257"),
        (np.full((24, 24, 3), -900, np.int16), r"int16 in -900\.\.-900"),
        (np.ones((24, 24, 3), bool), "dtype bool"),
        (np.ones((24, 24, 3), complex), "dtype complex128"),
        (np.full((24, 24, 3), None), "dtype object"),
        (None, "dtype object"),
        ("photo.png", "dtype <U9"),
        ([[1, 2], [3]], "as a NumPy array"),
        (torch.zeros(24, 24, 3, requires_grad=True), "as a NumPy array"),
        (np.zeros((3, 24, 24), np.uint8), "got"),
        (np.zeros((1, 24, 24, 3), np.uint8), "got"),
    ],
)
def test_what_is_no_image(image: object, message: str) -> None:
    good = np.zeros((24, 24, 3), np.uint8)
    for metric in (psnr, ssim):
        for pair in ((image, good), (good, image)):
            with pytest.raises(InputError, match=message):
                metric(*pair, scale=2)  # type: ignore[arg-type]


def test_channels_first_are_named() -> None:
    with pytest.raises(InputError, match="move the channels last"):
        psnr(np.zeros((3, 24, 24), np.uint8), np.zeros((3, 24, 24), np.uint8), scale=2)


@pytest.mark.parametrize("scale", [float("nan"), inf, "4", True, 0.5, -2, [4], 4j])
def test_bad_scales(photo: np.ndarray, scale: object) -> None:
    with pytest.raises(InputError, match="scale is "):
        psnr(photo, photo, scale=scale)  # type: ignore[arg-type]


def test_odd_protocols(photo: np.ndarray) -> None:
    for fields in ({"color": ["RGB"]}, {"color": None}, {"crop": 1.5}, {"luma_rounding": "no"}):
        with pytest.raises(InputError):
            Protocol(**fields)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown protocol"):
        psnr(photo, photo, ["default"], scale=2)  # type: ignore[arg-type]
