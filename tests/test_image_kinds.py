"""Kinds of image file beyond 8-bit RGB: the right values, a clear refusal, and a word on what is left out."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sqlib.errors import DataError, InputError
from sqlib.images import read_image, read_photo


def samples(channels: int, dtype: Any = np.uint16, seed: int = 0) -> np.ndarray:
    top = int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(seed).integers(0, top, (40, 48, channels), dtype=dtype)


def to_eight(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257.0).astype(np.uint8)


def three(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane, 3, axis=2)


def silent(path: Path) -> np.ndarray:
    """The image; nothing may have been left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_image(path)


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    values: np.ndarray,
    depth: int,
    colour: int,
    *,
    interlaced: bool = False,
    key: Any = (),
    short: bool = False,
) -> bytes:
    """A PNG of `values` (H, W, samples) by the letter of its standard; `short` leaves out the last row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = []
    for left, top, across, down in passes:
        for row in values[top::down, left::across]:
            bits = "".join(f"{int(v):0{depth}b}" for v in row.ravel())
            bits += "0" * (-len(bits) % 8)
            if bits:
                rows.append(b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, interlaced)
    packed = zlib.compress(b"".join(rows[:-1] if short else rows))
    middle = len(packed) // 2
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", bytes(range(3 * 2 ** min(depth, 4)))) if colour == 3 else b"",
            chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if len(key) else b"",
            chunk(b"IDAT", packed[:middle]),
            chunk(b"IDAT", packed[middle:]),
            chunk(b"IEND", b""),
        ]
    )


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"bigtiff": True, "byteorder": ">"},
    {"tile": (16, 16)},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": 2},
    {"compression": "zlib", "predictor": 2, "byteorder": ">", "tile": (16, 32)},
    {"compression": "lzma", "tile": (16, 16)},
    {"rowsperstrip": 7},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sixteen_bit_tiff_has_the_right_values(tmp_path: Path, layout: dict[str, Any]) -> None:
    path, values = tmp_path / "a.tif", samples(3)
    values[0, :4, 0] = 0, 65535, 128, 129  # ends, and both sides of the first rounding border (128.5)
    tifffile.imwrite(path, values, photometric="rgb", **layout)
    assert np.array_equal(silent(path), to_eight(values))
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate", **layout)
    assert np.array_equal(silent(path), to_eight(values))
    tifffile.imwrite(path, values[..., 0], photometric="minisblack", **layout)
    assert np.array_equal(silent(path), three(to_eight(values[..., :1])))
    tifffile.imwrite(path, values[..., 0], photometric="miniswhite", **layout)
    assert np.array_equal(silent(path), three(to_eight(65535 - values[..., :1])))


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if len(one) != 2 or "tile" in one], ids=str)
def test_eight_bit_tiff_has_the_right_values(tmp_path: Path, layout: dict[str, Any]) -> None:
    path, values = tmp_path / "a.tif", samples(3, np.uint8)
    tifffile.imwrite(path, values, photometric="rgb", **layout)
    assert np.array_equal(silent(path), values)
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate", **layout)
    assert np.array_equal(silent(path), values)
    tifffile.imwrite(path, values[..., 0], photometric="miniswhite", **layout)
    assert np.array_equal(silent(path), three(255 - values[..., :1]))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bit_tiff_with_alpha(tmp_path: Path, planar: str) -> None:
    path, values = tmp_path / "a.tif", samples(4)
    stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, extrasamples=[2])
    with pytest.warns(UserWarning, match=r"a\.tif: transparency dropped$"):
        assert np.array_equal(read_image(path), to_eight(values[..., :3]))
    tifffile.imwrite(path, values[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[2])
    with pytest.warns(UserWarning, match="transparency dropped"):
        assert np.array_equal(read_image(path), three(to_eight(values[..., :1])))
    values[..., 3] = 65535
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=[1])
    assert np.array_equal(silent(path), to_eight(values[..., :3]))


def test_sixteen_bit_gray_tiff_of_a_compression_that_only_pillow_knows(tmp_path: Path) -> None:
    values = samples(1)
    Image.fromarray(values[..., 0]).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.array_equal(silent(tmp_path / "a.tif"), three(to_eight(values)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_sixteen_bit_tiff(tmp_path: Path, orientation: int) -> None:
    path, values = tmp_path / "a.tif", samples(3)
    tifffile.imwrite(path, values, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    eight = Image.fromarray(to_eight(values))
    eight.getexif()[274] = orientation
    eight.save(tmp_path / "a.png", exif=eight.getexif())
    assert np.array_equal(silent(path), silent(tmp_path / "a.png"))
    assert np.array_equal(silent(path), to_eight(values)) == (orientation == 1)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.int16, "signed integers of 16 bits"),
        (np.int8, "signed integers of 8 bits"),
        (np.int32, "signed integers of 32 bits"),
        (np.uint32, "32 bits, expected 1, 8 or 16"),
        (np.uint64, "64 bits, expected 1, 8 or 16"),
        (np.float16, r"floating point \(mode 'F'\) of 16 bits"),
        (np.float32, r"floating point \(mode 'F'\) of 32 bits"),
        (np.float64, r"floating point \(mode 'F'\) of 64 bits"),
        (np.complex64, "complex numbers of 64 bits"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_without_a_known_white_are_refused(
    tmp_path: Path, dtype: Any, words: str, channels: int
) -> None:
    values = samples(3, np.uint8)[..., 0 if channels == 1 else slice(None)].astype(dtype)
    kind = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=kind)
    with pytest.raises(InputError, match=rf"a\.tif: samples .*{words}") as refused:
        read_image(tmp_path / "a.tif")
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize(
    ("channels", "options", "words"),
    [
        (4, {"photometric": "separated"}, "colour model SEPARATED"),
        (3, {"photometric": "cielab"}, "colour model CIELAB"),
        (4, {"photometric": "rgb", "extrasamples": [1]}, "multiplied by alpha"),
        (5, {"photometric": "rgb", "extrasamples": [0, 0]}, r"shape \(40, 48, 5\)"),
    ],
)
def test_other_sixteen_bit_colour_is_refused(
    tmp_path: Path, channels: int, options: dict[str, Any], words: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples(channels), **options)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "a.tif")


def test_deep_colour_of_formats_that_pillow_cuts_to_eight_bits_is_refused(tmp_path: Path) -> None:
    # SGI, two bytes a sample, not compressed: a header of 512 bytes, then planes
    header = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 8, 8, 3, 0, 65535).ljust(512, b"\0")
    (tmp_path / "a.sgi").write_bytes(header + samples(3)[:8, :8].astype(">u2").tobytes())
    with pytest.raises(InputError, match="SGI of more than 8 bits"):
        read_image(tmp_path / "a.sgi")
    buffer = io.BytesIO()
    Image.fromarray(samples(3, np.uint8)).save(buffer, "JPEG2000", irreversible=False)
    data = bytearray(buffer.getvalue())
    (tmp_path / "a.jp2").write_bytes(data)
    assert np.array_equal(silent(tmp_path / "a.jp2"), samples(3, np.uint8))
    data[data.find(b"\xff\x4f\xff\x51") + 42] = 11  # 12 bits, counted from 0
    (tmp_path / "a.jp2").write_bytes(data)
    with pytest.raises(InputError, match="JPEG2000 of more than 8 bits"):
        read_image(tmp_path / "a.jp2")


def test_sixteen_bit_pnm(tmp_path: Path) -> None:
    values = samples(3)
    (tmp_path / "a.ppm").write_bytes(b"P6 48 40 65535\n" + values.astype(">u2").tobytes())
    assert np.array_equal(silent(tmp_path / "a.ppm"), to_eight(values))
    (tmp_path / "a.pgm").write_bytes(b"P5 48 40 65535\n" + values[..., 0].astype(">u2").tobytes())
    assert np.array_equal(silent(tmp_path / "a.pgm"), three(to_eight(values[..., :1])))
    (tmp_path / "b.pgm").write_bytes(b"P5 48 40 1023\n" + (values[..., 0] >> 6).astype(">u2").tobytes())
    ten = three(np.rint((values[..., :1] >> 6) / 1023 * 255).astype(np.uint8))
    assert np.abs(silent(tmp_path / "b.pgm").astype(int) - ten).max() <= 1  # by way of 16 bits


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_eight_bit_values_in_sixteen_bit_samples_are_named(tmp_path: Path, name: str) -> None:
    values = samples(1, np.uint8)[..., 0].astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    with pytest.warns(UserWarning, match=r"reach 255 of 65535, nearly black"):
        assert read_image(tmp_path / name).max() == 1
    Image.fromarray(values * 0).save(tmp_path / name)
    assert silent(tmp_path / name).max() == 0  # black is black


def test_opaque_alpha_loses_nothing(tmp_path: Path) -> None:
    rgba = samples(4, np.uint8)
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(silent(tmp_path / "a.png"), rgba[..., :3])
    Image.frombytes("LA", (48, 40), np.ascontiguousarray(rgba[..., [0, 3]]).tobytes()).save(
        tmp_path / "b.png"
    )
    assert np.array_equal(silent(tmp_path / "b.png"), three(rgba[..., :1]))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour", "channels"),
    [(1, 0, 1), (2, 3, 1), (4, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 1), (16, 2, 3), (16, 4, 2)],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 5), (9, 21)])
def test_a_png_whose_pixel_data_end_early_is_no_black_picture(
    tmp_path: Path, size: tuple[int, int], depth: int, colour: int, channels: int, interlaced: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 2**depth, (*size, channels))
    whole, short = tmp_path / "whole.png", tmp_path / "short.png"
    whole.write_bytes(png(values, depth, colour, interlaced=interlaced))
    short.write_bytes(png(values, depth, colour, interlaced=interlaced, short=True))
    assert read_image(whole, warn=False).shape == (*size, 3)
    with pytest.raises(InputError, match=r"short\.png"):
        read_image(short)


@pytest.mark.parametrize(
    ("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)], ids=str
)
def test_a_transparent_colour_of_any_depth(tmp_path: Path, depth: int, colour: int) -> None:
    channels = 3 if colour else 1
    values = np.random.default_rng(1).integers(0, 2**depth, (6, 7, channels))
    values[3, 4] = values[2, 1]
    path = tmp_path / "a.png"
    path.write_bytes(png(values, depth, colour, key=values[2, 1].tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 16 bits rounded to 8
        alpha = read_photo(path).alpha
    assert alpha is not None
    assert np.array_equal(alpha == 0, (values == values[2, 1]).all(axis=2))
    with pytest.warns(UserWarning, match=r"a\.png: transparency dropped$"):
        read_image(path)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key", "16-bit key", "WebP", "TIFF"])
def test_transparency_is_named(tmp_path: Path, kind: str) -> None:
    rgba = samples(4, np.uint8)
    expected, path = rgba[..., :3], tmp_path / "a.png"
    if kind == "RGBA":
        Image.fromarray(rgba).save(path)
    elif kind == "WebP":
        path = tmp_path / "a.webp"
        Image.fromarray(rgba).save(path, lossless=True, exact=True)
    elif kind == "TIFF":
        path = tmp_path / "a.tif"
        Image.fromarray(rgba).save(path)
    elif kind == "LA":
        Image.frombytes("LA", (48, 40), np.ascontiguousarray(rgba[..., 2:]).tobytes()).save(path)
        expected = three(rgba[..., 2:3])
    elif kind == "palette":
        image = Image.fromarray(rgba[..., 0])
        colours = samples(3, np.uint8).reshape(-1, 3)[:256]
        image.putpalette(colours.ravel().tolist())
        image.save(path, transparency=7)
        expected = colours[rgba[..., 0]]
    elif kind == "colour key":
        Image.fromarray(expected).save(path, transparency=tuple(int(v) for v in expected[3, 4]))
    else:
        values = samples(1)
        Image.fromarray(values[..., 0]).save(path, transparency=int(values[3, 4, 0]))
        expected = three(to_eight(values))
    with pytest.warns(UserWarning, match=rf"{path.name}: transparency dropped$"):
        assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tif"])
def test_other_frames_are_named(tmp_path: Path, kind: str) -> None:
    values = (samples(1, np.uint8)[..., 0] > 127).astype(np.uint8) * 255
    frames = [
        Image.fromarray(three(plane[..., None])) for plane in (values, 255 - values, values.T[:40, :40])
    ]
    frames[2] = frames[2].resize((48, 40))
    path = tmp_path / f"a.{kind}"
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(UserWarning, match=rf"a\.{kind}: 2 of 3 frames dropped \(the first is read\)$"):
        assert np.array_equal(read_image(path), three(values[..., None]))
    frames[0].save(path, **options)
    assert np.array_equal(silent(path), three(values[..., None]))


def test_pages_of_a_sixteen_bit_tiff_are_named(tmp_path: Path) -> None:
    pages = np.stack([samples(3, seed=seed) for seed in (0, 1)])
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb")
    with pytest.warns(UserWarning, match="1 of 2 frames dropped"):
        assert np.array_equal(read_image(tmp_path / "a.tif"), to_eight(pages[0]))


def test_colour_profile_is_named_unless_it_is_srgb(tmp_path: Path) -> None:
    rgb = samples(3, np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=srgb)
    assert np.array_equal(silent(tmp_path / "a.png"), rgb)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(lab))).strip()
    for suffix in ("png", "tif", "webp"):
        Image.fromarray(rgb).save(tmp_path / f"b.{suffix}", icc_profile=lab, lossless=True)
        with pytest.warns(UserWarning, match=f"colour profile '{name}' ignored"):
            assert np.array_equal(read_image(tmp_path / f"b.{suffix}"), rgb)
    Image.fromarray(rgb).save(tmp_path / "c.png", icc_profile=b"no profile")
    with pytest.warns(UserWarning, match="colour profile 'unreadable' ignored"):
        assert np.array_equal(read_image(tmp_path / "c.png"), rgb)


def test_gamma_is_named_unless_it_is_that_of_srgb(tmp_path: Path) -> None:
    rgb = samples(3, np.uint8)
    for gamma, words in ((45455, None), (100000, "gamma entry 1 ignored")):
        Image.fromarray(rgb).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        body = b"gAMA" + struct.pack(">I", gamma)
        chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
        if words is None:
            assert np.array_equal(silent(tmp_path / "a.png"), rgb)
        else:
            with pytest.warns(UserWarning, match=words):
                assert np.array_equal(read_image(tmp_path / "a.png"), rgb)


def test_extra_channels_are_named(tmp_path: Path) -> None:
    values = samples(5, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[0, 0])
    with pytest.warns(UserWarning, match="2 extra channels dropped"):
        assert np.array_equal(read_image(tmp_path / "a.tif"), values[..., :3])


def test_everything_left_out_is_one_warning_and_can_be_silenced(tmp_path: Path) -> None:
    rgba = samples(4, np.uint8)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    frames = [Image.fromarray(rgba), Image.fromarray(rgba[::-1].copy())]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], icc_profile=lab)
    with pytest.warns(UserWarning) as seen:
        read_image(tmp_path / "a.png")
    assert len(seen) == 1 and seen[0].filename == __file__
    assert [w in str(seen[0].message) for w in ("frames", "transparency", "profile")] == [True] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "a.png", warn=False)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    rgb = samples(3, np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(silent(tmp_path / "a.jpg"), rgb)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("fraction", [0.001, 0.03, 0.5, 0.99])
def test_cut_off_sixteen_bit_tiff(tmp_path: Path, compression: str | None, fraction: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples(3), photometric="rgb", compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(InputError, match=r"a\.tif.*damaged, cut off"):
        read_image(tmp_path / "a.tif")


def test_tifffile_prints_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples(3), photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:100])
    code = (
        "import sys; from sqlib.images import read_image\n"
        "try: read_image(sys.argv[1])\n"
        "except ValueError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tif")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")
    assert logging.getLogger("tifffile").disabled is False


def bomb(kind: str) -> bytes:
    """A small file that claims 40,000 x 40,000 pixels."""
    buffer = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(buffer, samples(3), photometric="rgb")
        data = bytearray(buffer.getvalue())
        for tag in (256, 257):  # width and height, each twelve bytes: tag, type, count, value
            at = data.index(struct.pack("<H", tag) + b"\x04\0\x01\0\0\0")
            data[at + 8 : at + 12] = struct.pack("<I", 40000)
        return bytes(data)
    header = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\0IDAT"
    )


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_more_pixels_than_the_limit(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(bomb(kind))
    with pytest.raises(InputError, match=r"pixels.*MAX_IMAGE_PIXELS"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize(("data", "words"), [(b"", "empty"), (b"text", "no image begins like this")])
def test_no_image_at_all(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=words) as refused:
        read_image(tmp_path / "a.png")
    assert "BytesIO" not in str(refused.value)


def test_names_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a device"):
        read_image("/dev/zero")
    with pytest.raises(DataError, match="no image file"):
        read_image("a\0b")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(DataError, match="round"):
        read_image(tmp_path / "round")
