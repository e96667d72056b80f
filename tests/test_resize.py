"""The benchmark degradation: equal to distributed files, and to a slow resize written from the definition."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sqlib.errors import InputError
from sqlib.images import read_image
from sqlib.resize import crop_to_multiple, downscale, imresize


def slow_axis(values: np.ndarray, out_length: int, scale: float) -> np.ndarray:
    """One dimension, tap by tap: cubic kernel a = -1/2, stretched when shrinking, mirrored borders."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    stretch = min(scale, 1.0)
    out = np.zeros((out_length, *values.shape[1:]))
    for k in range(out_length):
        centre = (k + 0.5) / scale - 0.5
        first, last = floor(centre - 2 / stretch), ceil(centre + 2 / stretch)
        weights = {i: cubic(stretch * (centre - i)) for i in range(first, last + 1)}
        for i, weight in weights.items():
            period = i % (2 * len(values))
            source = period if period < len(values) else 2 * len(values) - 1 - period
            out[k] += weight / sum(weights.values()) * values[source]
    return out


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_set5_distributed_files_are_reproduced(data_dir: Path, name: str, scale: int) -> None:
    folder = data_dir / "benchmarks" / "Set5"
    if not folder.is_dir():
        pytest.skip(f"no Set5 in {data_dir}")
    ours = downscale(read_image(folder / "HR" / f"{name}.png"), scale)
    theirs = read_image(folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png")
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.sampled_from([1 / 4, 1 / 3, 1 / 2, 0.7, 1.0, 1.3, 2.0, 3.0, 4.0]),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(height: int, width: int, scale: float, seed: int) -> None:
    image = np.random.default_rng(seed).normal(100, 60, (height, width, 2))
    rows, columns = ceil(height * scale - 1e-9), ceil(width * scale - 1e-9)
    expected = slow_axis(image, rows, scale)
    expected = slow_axis(expected.swapaxes(0, 1), columns, scale).swapaxes(0, 1)
    np.testing.assert_allclose(imresize(image, scale), expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_constant_images_stay_constant(h: int, w: int, rows: int, columns: int, value: int) -> None:
    image = np.full((h, w, 3), value, dtype=np.uint8)
    out = imresize(image, size=(rows, columns))
    assert out.shape == (rows, columns, 3)
    assert np.all(out == value)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([2, 3, 4]), st.integers(0, 2**32 - 1))
def test_mirroring_commutes(h: int, w: int, scale: int, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(h * scale, w * scale))
    small = np.asarray(imresize(image, 1 / scale))
    np.testing.assert_allclose(
        np.asarray(imresize(image[::-1, ::-1], 1 / scale))[::-1, ::-1], small, atol=1e-12
    )


def test_uint8_is_rounded_after_each_dimension(photo: np.ndarray) -> None:
    rows = np.clip(np.floor(slow_axis(photo.astype(float), 24, 1 / 4) + 0.5), 0, 255)
    both = slow_axis(rows.swapaxes(0, 1), 30, 1 / 4).swapaxes(0, 1)
    expected = np.clip(np.floor(both + 0.5), 0, 255)
    assert np.array_equal(imresize(photo, 1 / 4), expected)
    once = np.clip(np.floor(np.asarray(imresize(photo.astype(float), 1 / 4)) + 0.5), 0, 255)
    assert not np.array_equal(once, expected)  # the order of rounding can be seen


def test_the_dimension_with_the_smaller_factor_comes_first(photo: np.ndarray) -> None:
    columns = np.clip(np.floor(slow_axis(photo.astype(float).swapaxes(0, 1), 20, 1 / 6) + 0.5), 0, 255)
    both = slow_axis(columns.swapaxes(0, 1), 48, 1 / 2)
    assert np.array_equal(imresize(photo, size=(48, 20)), np.clip(np.floor(both + 0.5), 0, 255))


def test_pillow_bicubic_is_something_else(photo: np.ndarray) -> None:
    ours = imresize(photo, 1 / 4)
    pillow = np.asarray(Image.fromarray(photo).resize((30, 24), Image.Resampling.BICUBIC))
    assert ours.shape == pillow.shape
    assert np.abs(ours.astype(int) - pillow.astype(int)).max() > 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (8, 12, 3)])
def test_dtype_and_dimensions_are_kept(dtype: type, shape: tuple[int, ...]) -> None:
    out = imresize(np.ones(shape, dtype=dtype), 1 / 4)
    assert out.dtype == dtype
    assert out.shape == (2, 3, *shape[2:])
    assert out.flags.c_contiguous


def test_scale_one_is_the_identity(photo: np.ndarray) -> None:
    assert np.array_equal(imresize(photo, 1), photo)
    assert np.array_equal(downscale(photo, 1), photo)


def test_input_is_not_changed(photo: np.ndarray) -> None:
    before = photo.copy()
    downscale(photo, 3)
    assert np.array_equal(photo, before)


def test_downscale_crops_to_a_multiple(photo: np.ndarray) -> None:
    odd = photo[:95, :119]
    assert np.array_equal(downscale(odd, 4), downscale(photo[:92, :116], 4))
    assert crop_to_multiple(odd, 12).shape == (84, 108, 3)


@pytest.mark.parametrize("scale", [0, -1, 2.5, "four", True, None])
def test_bad_scale(scale: object) -> None:
    with pytest.raises(InputError, match="scale"):
        downscale(np.zeros((8, 8, 3), np.uint8), scale)  # type: ignore[arg-type]


def test_too_small_for_one_block() -> None:
    with pytest.raises(InputError, match="1 x 1 pixels is smaller than one 4 x 4 block"):
        downscale(np.zeros((1, 1, 3), np.uint8), 4)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_factor(factor: float) -> None:
    with pytest.raises(InputError, match="positive finite"):
        imresize(np.zeros((8, 8), np.uint8), factor)


def test_bad_arrays_and_sizes() -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="dtype int64"):
        imresize(np.zeros((8, 8), np.int64), 0.5)
    with pytest.raises(InputError, match="shape"):
        imresize(np.zeros((0, 8), np.uint8), 0.5)
    with pytest.raises(InputError, match="shape"):
        imresize(np.zeros(8, np.uint8), 0.5)
    with pytest.raises(InputError, match="exactly one"):
        imresize(good)
    with pytest.raises(InputError, match="exactly one"):
        imresize(good, 0.5, size=(4, 4))
    with pytest.raises(InputError, match="two positive"):
        imresize(good, size=(0, 4))
    with pytest.raises(InputError, match="expected uint8"):
        downscale(np.zeros((8, 8, 3), np.float32), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scale",
    [np.float32(0.5), np.float64(0.5), Fraction(1, 2), np.array(0.5), torch.tensor(0.5)],
    ids=lambda scale: type(scale).__name__,
)
def test_a_factor_may_be_any_real_number(photo: np.ndarray, scale) -> None:
    assert np.array_equal(imresize(photo, scale), imresize(photo, 0.5))
    assert np.array_equal(imresize(photo, np.int8(2)), imresize(photo, 2.0))


def test_a_third_in_single_precision_gives_a_third_of_the_rows() -> None:
    for kind in (np.float32, np.float16):
        for parts in (2, 3, 4, 6, 7):
            assert imresize(np.zeros((420, 420)), kind(1 / parts)).shape == (420 // parts, 420 // parts)


@pytest.mark.parametrize(
    "scale",
    [
        True,
        np.True_,
        "0.5",
        b"1",
        0.5j,
        [2],
        (0.5, 0.5),
        np.array([0.5, 0.5]),
        np.array("x"),
        Decimal("0.5"),
        {},
        10**400,
        -(10**400),
    ],
    ids=repr,
)
def test_what_is_no_factor(scale) -> None:
    with pytest.raises(InputError, match="positive finite number"):
        imresize(np.zeros((8, 8), np.uint8), scale)


@pytest.mark.parametrize("scale", [1e308, 2**70, 1e9, 1e6, 1e-9, 1e-12, 1e-300])
def test_factors_out_of_proportion(scale: float) -> None:
    with pytest.raises(InputError, match="out of proportion"):
        imresize(np.zeros((8, 12), np.uint8), scale)


def test_a_tiny_factor_leaves_one_pixel(photo: np.ndarray) -> None:
    for image in (photo, photo / 255):
        one = imresize(image, 1e-4)
        assert one.shape == (1, 1, 3)
        np.testing.assert_allclose(one[0, 0], image.mean((0, 1)), atol=1.01 if image is photo else 1e-3)


def test_sizes(photo: np.ndarray) -> None:
    expected = imresize(photo, size=(40, 30))
    for size in ([40, 30], np.array([40, 30]), (np.uint8(40), np.int64(30))):
        assert np.array_equal(imresize(photo, size=size), expected)  # type: ignore[arg-type]
    for bad in ((40.0, 30), (True, 30), ("40", "30"), (40,), (40, 30, 3), 40, "44", {40, 30}, (np.nan, 30)):
        with pytest.raises(InputError, match="two positive integers"):
            imresize(photo, size=bad)  # type: ignore[arg-type]
    for huge in ((10**9, 4), (10**20, 1), (50000, 50000)):
        with pytest.raises(InputError, match="out of proportion"):
            imresize(photo, size=huge)


def test_what_is_no_array() -> None:
    for image in ([[1.0, 2], [3]], torch.zeros(8, 8, requires_grad=True), torch.zeros(8, 8).bfloat16()):
        for resize in (lambda x: imresize(x, 0.5), lambda x: downscale(x, 2)):
            with pytest.raises(InputError, match="expected an array"):
                resize(image)
    with pytest.raises(InputError, match="masked"):
        imresize(np.ma.masked_less(np.arange(64.0).reshape(8, 8), 9), 0.5)
    for dtype in (bool, complex, object, np.int16, "M8[s]"):
        with pytest.raises(InputError, match="expected uint8 or floating point"):
            imresize(np.zeros((8, 8), dtype), 0.5)


def test_small_numpy_integers_do_not_overflow() -> None:
    image = np.random.default_rng(0).integers(0, 256, (600, 405, 3), dtype=np.uint8)
    assert np.array_equal(crop_to_multiple(image, np.uint8(200)), image[:, :400])
    assert np.array_equal(downscale(image, np.uint8(200)), downscale(image, 200))
