"""Every kind of image file becomes the right uint8 RGB array, or a clear error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sqlib._pixels import from_16_bits
from sqlib.errors import DataError, InputError
from sqlib.images import EXTENSIONS, as_rgb, read_image, read_photo, to_uint8, write_image


def random_rgb(height: int = 9, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_deep_png(path: Path, samples: np.ndarray, color_type: int) -> None:
    """A 16-bit PNG by the format's description: uint16 (H, W, channels), row filters 0 to 4 in turn."""
    height, width, channels = samples.shape
    raw = samples.astype(">u2").tobytes()
    stride, step = width * channels * 2, channels * 2
    previous = bytes(stride)
    out = bytearray()
    for y in range(height):
        row = raw[y * stride : (y + 1) * stride]
        kind = y % 5
        out.append(kind)
        for i, value in enumerate(row):
            a = row[i - step] if i >= step else 0
            b = previous[i]
            c = previous[i - step] if i >= step else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
        previous = row

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(out)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("extension", [".png", ".bmp", ".webp"])
def test_lossless_formats_round_trip(tmp_path: Path, extension: str) -> None:
    image = random_rgb()
    write_image(tmp_path / f"a{extension}", image)
    assert np.array_equal(read_image(tmp_path / f"a{extension}"), image)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{extension}"]


@pytest.mark.parametrize("extension", [".jpg", ".jpeg"])
def test_jpeg_round_trip_is_close(tmp_path: Path, photo: np.ndarray, extension: str) -> None:
    write_image(tmp_path / f"a{extension}", photo)
    assert np.abs(read_image(tmp_path / f"a{extension}").astype(int) - photo).mean() < 2


def test_gray_is_repeated(tmp_path: Path) -> None:
    plane = random_rgb()[..., 0]
    Image.fromarray(plane).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(plane[..., None], 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    plane = random_rgb()[..., 0] > 127
    Image.fromarray(plane).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 1], plane * np.uint8(255))


@pytest.mark.filterwarnings("ignore:.*transparency dropped")
@pytest.mark.parametrize("transparent", [False, True])
def test_palette_is_looked_up(tmp_path: Path, transparent: bool) -> None:
    colours = random_rgb(1, 4)[0]
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / "a.png", **({"transparency": 2} if transparent else {}))
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    assert np.array_equal(read_image(tmp_path / "a.png"), colours[index])


@pytest.mark.filterwarnings("ignore:.*transparency dropped")
@pytest.mark.parametrize("extension", ["png", "webp"])
def test_alpha_is_dropped_and_nothing_is_blended(tmp_path: Path, extension: str) -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / f"a.{extension}", lossless=True, exact=True)
    assert np.array_equal(read_image(tmp_path / f"a.{extension}"), rgba[..., :3])


@pytest.mark.filterwarnings("ignore:.*transparency dropped")
def test_gray_with_alpha(tmp_path: Path) -> None:
    la = np.random.default_rng(1).integers(0, 256, (6, 5, 2), dtype=np.uint8)
    Image.frombytes("LA", (5, 6), la.tobytes()).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(la[..., :1], 3, axis=2))


@pytest.mark.filterwarnings("ignore:.*transparency dropped")
@pytest.mark.parametrize(
    ("color_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)], ids=["gray", "gray+alpha", "rgb", "rgba"]
)
def test_sixteen_bits_are_rounded_over_257(tmp_path: Path, color_type: int, channels: int) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (11, 6, channels), dtype=np.uint16)
    samples[0, :4, 0] = 0, 65535, 128, 129  # ends, and both sides of the first rounding border (128.5)
    write_deep_png(tmp_path / "a.png", samples, color_type)
    colours = samples[..., :3] if channels >= 3 else np.repeat(samples[..., :1], 3, axis=2)
    expected = np.rint(colours / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)
    # what Pillow alone would do is different, so this test can see the difference
    assert not np.array_equal((colours >> 8).astype(np.uint8), expected)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 16, 4), dtype=np.uint8)
    cmyk[:, 8:, 0] = 255  # full cyan takes all red away
    Image.frombytes("CMYK", (16, 16), cmyk.tobytes()).save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert image.shape == (16, 16, 3)
    assert np.abs(image[:, :7] - 255).max() <= 3
    assert np.abs(image[:, 9:] - [0, 255, 255]).max() <= 3


def test_exif_orientation_is_applied(tmp_path: Path, photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn of 90 degrees clockwise
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(photo, -1))


def test_one_pixel(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[[1, 2, 3]]], dtype=np.uint8))
    assert read_image(tmp_path / "a.png").tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.95])
def test_truncated_file_is_named(tmp_path: Path, photo: np.ndarray, extension: str, fraction: float) -> None:
    path = tmp_path / f"cut{extension}"
    write_image(path, photo)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(InputError, match=rf"cut\{extension}.*damaged, cut off"):
        read_image(path)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.png"):
        read_image(path)


def test_damaged_pixels(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "bad.png"
    write_image(path, photo)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"bad\.png"):
        read_image(path)


def test_floating_point_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="mode 'F'"):
        read_image(tmp_path / "a.tiff")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"extension '\.tif'"):
        write_image(tmp_path / "a.tif", random_rgb())
    with pytest.raises(InputError, match="to_uint8"):
        write_image(tmp_path / "a.png", random_rgb().astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot write"):
        write_image(tmp_path / "no" / "such" / "a.png", random_rgb())
    with pytest.raises(InputError, match="cannot encode"):
        write_image(tmp_path / "a.webp", np.zeros((1, 16384, 3), dtype=np.uint8))


def test_to_uint8_clips_and_rounds_half_to_even() -> None:
    x = np.array([-3.0, 0.5, 1.5, 2.51, 254.5, 255.5, 300.0], dtype=np.float32)
    assert to_uint8(x).tolist() == [0, 0, 2, 3, 254, 255, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_to_uint8_refuses_non_finite(value: float) -> None:
    with pytest.raises(InputError, match="1 of 4 values"):
        to_uint8(np.array([0.0, 1.0, value, 2.0]))


@given(st.integers(0, 65535))
def test_sixteen_to_eight_bits_is_the_nearest(value: int) -> None:
    assert abs(int(from_16_bits(np.array([value]))[0]) * 257 - value) <= 128


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_as_rgb_refuses_other_shapes(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected a non-empty uint8 array"):
        as_rgb(array, "test")


@pytest.mark.parametrize("width", [1, 2, 37])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_png_of_many_blocks_of_rows(tmp_path: Path, photo: np.ndarray, width: int, with_alpha: bool) -> None:
    """A smooth image and noise: every kind of row filter is used; Pillow checks every chunk."""
    rng = np.random.default_rng(0)
    image = np.concatenate([photo[:80, :width], rng.integers(0, 256, (61, width, 3), dtype=np.uint8)])
    alpha = rng.integers(0, 256, image.shape[:2], dtype=np.uint8) if with_alpha else None
    write_image(tmp_path / "a.png", image, alpha=alpha, profile=b"a profile")
    with Image.open(tmp_path / "a.png") as read:
        read.load()
        assert read.mode == ("RGBA" if with_alpha else "RGB") and read.info["icc_profile"] == b"a profile"
        np.testing.assert_array_equal(np.asarray(read)[:, :, :3], image)
        if with_alpha:
            np.testing.assert_array_equal(np.asarray(read)[:, :, 3], alpha)


def test_png_is_about_as_small_as_pillows(tmp_path: Path, photo: np.ndarray) -> None:
    write_image(tmp_path / "a.png", photo)
    Image.fromarray(photo).save(tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size < 1.1 * (tmp_path / "b.png").stat().st_size


def test_alpha_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alpha is uint8 of shape \(2, 2\)"):
        write_image(tmp_path / "a.png", random_rgb(), alpha=np.zeros((2, 2), np.uint8))


def test_a_photo_keeps_opacity_and_an_rgb_profile(tmp_path: Path) -> None:
    rgba = np.dstack([random_rgb(), random_rgb(seed=1)[:, :, :1]])
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name, profile in (("rgb", icc), ("lab", lab)):
        Image.fromarray(rgba).save(tmp_path / f"{name}.png", icc_profile=profile)
    found = read_photo(tmp_path / "rgb.png")
    assert found.profile == icc and np.array_equal(np.dstack([found.rgb, found.alpha]), rgba)
    with pytest.warns(UserWarning, match="colour profile .* ignored"):
        assert read_photo(tmp_path / "lab.png").profile is None
